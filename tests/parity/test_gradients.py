"""The gradient of a loss with respect to every parameter, against torch's."""

import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("transformers", reason="parity needs transformers")

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from small_models import smallest_config
from tolerances import assert_close

from parity.oracle import build, channels_first, to_torch
from sam2_jax.checkpoint import names

RNG = np.random.default_rng(16)
PIXELS = RNG.standard_normal((1, 64, 64, 3)).astype(np.float32)
POINTS = RNG.uniform(0, 64, (1, 3, 4, 2)).astype(np.float32)
LABELS = np.array([[[1, 0, 1, 1], [2, 3, -1, 0], [1, 1, 0, 0]]])
MASKS = RNG.standard_normal((1, 1, 16, 16)).astype(np.float32)


def loss_of(masks: Any, scores: Any, objects: Any) -> Any:
    """A sum that every output has a part in, in either framework."""
    return (masks**2).mean() + (scores**2).mean() + (objects**2).mean()


def test_gradients_of_all_parameters() -> None:
    pair = build(smallest_config())

    def loss(params: Any) -> jax.Array:
        prediction = pair.ours.module.apply({"params": params}, jnp.asarray(PIXELS), POINTS, LABELS, MASKS)
        return loss_of(prediction.masks, prediction.iou_scores, prediction.object_score_logits)

    gradient = jax.jit(jax.grad(loss))(pair.ours.params)
    ours = names.to_torch({name: np.asarray(leaf) for name, leaf in names.flatten(gradient).items()})

    outputs = pair.theirs(
        pixel_values=channels_first(PIXELS),
        input_points=to_torch(POINTS),
        input_labels=to_torch(LABELS),
        input_masks=to_torch(MASKS),
    )
    loss_of(outputs.pred_masks, outputs.iou_scores, outputs.object_score_logits).backward()
    theirs = {name: p.grad.numpy() for name, p in pair.theirs.named_parameters() if p.grad is not None}

    assert len(theirs) > 200
    for name, expected in theirs.items():
        if name.startswith("mask_decoder.transformer") and name.endswith("k_proj.bias"):
            # Softmax does not see what is added to all its scores: the exact gradient is zero.
            assert max(np.abs(ours[name]).max(), np.abs(expected).max()) < 1e-7
        elif expected.any():
            assert_close("gradients", "all parameters", ours[name], expected)
        else:
            assert not ours[name].any(), name
