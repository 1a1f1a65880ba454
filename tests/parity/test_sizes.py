"""The four released sizes: every block, window and head of them, on oblong images below 1024 x 1024."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("transformers", reason="parity needs transformers")

from tolerances import assert_close

from parity.oracle import build, channels_last, predict, their_steps
from sam2_jax import released_config

# Tiny is so large that windows go in bands. The others share what is compiled of the decoder.
IMAGE_SIZES = {"tiny": (512, 384), "small": (192, 256), "base-plus": (192, 256), "large": (192, 256)}

RNG = np.random.default_rng(0)
POINTS = RNG.random((2, 2, 2, 2)).astype(np.float32)
LABELS = RNG.integers(0, 2, (2, 2, 2))
BOXES = np.sort(RNG.random((2, 2, 2, 2)), axis=2).astype(np.float32)
MASKS = (5 * RNG.standard_normal((2, 1, 40, 40))).astype(np.float32)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_every_block_and_every_kind_of_prompt(size: str) -> None:
    height, width = IMAGE_SIZES[size]
    config = released_config(f"facebook/sam2.1-hiera-{size}").with_image_size((height, width))
    # Under seeds 0 and 1 object scores cancel to 0.004 - 0.05, where torch is 5e-6 off its own float64.
    pair = build(config, seed=2)
    points = {"input_points": POINTS * [width, height], "input_labels": LABELS}
    boxes = {"input_boxes": (BOXES * [width, height]).reshape(2, 2, 4)}
    prompts = {
        "points": points,
        "boxes": boxes,
        "points and boxes": points | boxes,
        "points and masks": points | {"input_masks": MASKS},
    }
    for kind in prompts.values():
        kind |= {name: x.astype(np.float32) for name, x in kind.items() if x.dtype == np.float64}

    pixels = RNG.standard_normal((2, height, width, 3)).astype(np.float32)
    steps = their_steps(pair.theirs, pixel_values=pixels)
    ours = pair.ours(pixels, output_hidden_states=True)
    for i, hidden in enumerate(ours.vision_hidden_states[1:]):
        assert_close(
            "features", f"{size}, blocks", hidden, steps.outputs[f"vision_encoder.backbone.blocks.{i}"]
        )
    theirs = [channels_last(level) for level in steps.outputs[""].image_embeddings]
    for level, (a, b) in enumerate(zip(ours.image_embeddings, theirs, strict=True)):
        assert_close("features", f"{size}, embedding {level}", a, b)

    for name, kind in prompts.items():
        a = pair.ours(image_embeddings=ours.image_embeddings, **kind)
        b = predict(pair.theirs, image_embeddings=theirs, **kind)
        assert_close("masks", f"{size}, {name}", a.pred_masks, b.pred_masks)
        assert_close("scores", f"{size}, IoU, {name}", a.iou_scores, b.iou_scores)
        assert_close("scores", f"{size}, object, {name}", a.object_score_logits, b.object_score_logits)
