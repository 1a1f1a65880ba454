"""bfloat16 from end to end, parameters too: how close its masks are to float32's on the reference photos."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from test_real_weights import CASES, Runner

from sam2_jax import Sam2Model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runners(reference_dir: Path) -> tuple[Runner, Runner]:
    """The stored cases in float32 and in bfloat16."""
    full, half = Runner(reference_dir), Runner(reference_dir)
    weights = reference_dir / "weights" / "sam2-hiera-tiny-image"
    half.model = Sam2Model.from_pretrained(weights, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    half.compatible = Sam2Model(
        half.model.config,
        half.model.params,
        dtype=jnp.bfloat16,
        param_dtype=jnp.bfloat16,
        padding="transformers",
    )
    return full, half


def test_every_chosen_mask_is_float32_s(runners: tuple[Runner, Runner]) -> None:
    """Of each object the mask of highest predicted IoU in float32, as a user would take it."""
    worst = {}
    for name in CASES:
        outputs = [runner.run(name) for runner in runners]
        best = np.asarray(outputs[0].iou_scores).argmax(axis=-1)[..., None, None, None]
        ours = [np.take_along_axis(np.asarray(x.pred_masks, np.float32), best, axis=2) > 0 for x in outputs]
        union = (ours[0] | ours[1]).sum(axis=(-2, -1))
        iou = (ours[0] & ours[1]).sum(axis=(-2, -1)) / np.maximum(union, 1)
        worst[name] = float(iou.min())
        scores = [np.asarray(x.iou_scores, np.float32) for x in outputs]
        assert np.abs(scores[0] - scores[1]).max() < 0.05
    print(worst)
    assert min(worst.values()) >= 0.99, worst


def test_types_are_bfloat16_where_they_should_be(runners: tuple[Runner, Runner]) -> None:
    model = runners[1].model
    fourier = model.params["shared_image_embedding"]["positional_embedding"]
    assert fourier.dtype == jnp.float32
    assert model.params["vision_encoder"]["neck"]["convs_0"]["kernel"].dtype == jnp.bfloat16
    outputs = runners[1].run("truck_one_point")
    assert {x.dtype for x in outputs.image_embeddings} == {jnp.dtype(jnp.bfloat16)}
    assert outputs.pred_masks.dtype == outputs.iou_scores.dtype == jnp.float32
