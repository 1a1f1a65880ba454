"""The four released sizes, every block, window and head of them, at a smaller image."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("transformers", reason="parity needs transformers")

from tolerances import assert_close

from parity.oracle import build, channels_last, predict
from sam2_jax import released_config

SIDE = 256


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tiny", "small", "base-plus", "large"])
def test_features_logits_and_scores(size: str) -> None:
    pair = build(released_config(f"facebook/sam2.1-hiera-{size}").with_image_size(SIDE))
    rng = np.random.default_rng(0)
    corners = np.sort(rng.random((1, 2, 2, 2)) * SIDE, axis=2)
    inputs = {
        "pixel_values": rng.standard_normal((1, SIDE, SIDE, 3)).astype(np.float32),
        "input_points": (rng.random((1, 2, 2, 2)) * SIDE).astype(np.float32),
        "input_labels": rng.integers(0, 2, (1, 2, 2)),
        "input_boxes": corners.reshape(1, 2, 4).astype(np.float32),
    }
    ours, theirs = pair.ours(**inputs), predict(pair.theirs, **inputs)
    for level, (a, b) in enumerate(zip(ours.image_embeddings, theirs.image_embeddings, strict=True)):
        assert_close("features", f"{size}, embedding {level}", a, channels_last(b))
    assert_close("masks", f"{size}, logits", ours.pred_masks, theirs.pred_masks)
    assert_close("scores", f"{size}, IoU", ours.iou_scores, theirs.iou_scores)
    assert_close("scores", f"{size}, object score", ours.object_score_logits, theirs.object_score_logits)
