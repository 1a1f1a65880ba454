"""Images that are not square, of which transformers' prompt encoder must be told both sides by hand."""

import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("transformers", reason="parity needs transformers")

import numpy as np
from small_models import small_config
from tolerances import assert_close

from parity.oracle import Pair, build, channels_last, predict, their_steps

SIZES = [(96, 160), (64, 32)]  # windows that do and do not divide the grid, on either side


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def oblong(request: pytest.FixtureRequest) -> Pair:
    return build(small_config(request.param))


@pytest.fixture(scope="module")
def images(oblong: Pair) -> np.ndarray:
    size = oblong.ours.config.image_size
    return np.random.default_rng(40).standard_normal((2, *size, 3)).astype(np.float32)


def test_every_block_and_embedding(oblong: Pair, images: np.ndarray) -> None:
    theirs = their_steps(oblong.theirs, pixel_values=images)
    ours = oblong.ours(images, output_hidden_states=True)
    for i, hidden in enumerate(ours.vision_hidden_states[1:]):
        expected = theirs.outputs[f"vision_encoder.backbone.blocks.{i}"]
        assert_close("features", "oblong blocks", hidden, expected)
    for ours_level, level in zip(ours.image_embeddings, theirs.outputs[""].image_embeddings, strict=True):
        assert_close("features", "oblong embeddings", ours_level, channels_last(level))


def test_grid_of_positions(oblong: Pair) -> None:
    embedding = oblong.ours.module.bind({"params": oblong.ours.params}).shared_image_embedding
    height, width = (side // 16 for side in oblong.ours.config.image_size)
    expected = oblong.theirs.get_image_wide_positional_embeddings()
    assert_close("features", "oblong grid", embedding.grid(height, width), channels_last(expected))


@pytest.mark.parametrize("multimask_output", [True, False])
def test_predictions(oblong: Pair, images: np.ndarray, multimask_output: bool) -> None:
    height, width = oblong.ours.config.image_size
    rng = np.random.default_rng(41)
    places = (rng.random((2, 3, 4, 2)) * [width, height]).astype(np.float32)
    call = {
        "pixel_values": images,
        "input_points": places[:, :, :2],
        "input_labels": rng.integers(0, 2, (2, 3, 2)),
        "input_boxes": np.sort(places[:, :, 2:], axis=2).reshape(2, 3, 4),
        "input_masks": rng.standard_normal((2, 1, 20, 30)).astype(np.float32),
        "multimask_output": multimask_output,
    }
    ours, theirs = oblong.ours(**call), predict(oblong.theirs, **call)
    assert ours.pred_masks.shape[-2:] == (height // 4, width // 4)
    assert_close("masks", "oblong", ours.pred_masks, theirs.pred_masks)
    assert_close("scores", "oblong, IoU", ours.iou_scores, theirs.iou_scores)
    assert_close("scores", "oblong, object", ours.object_score_logits, theirs.object_score_logits)
