"""bfloat16 from end to end, parameters too: how close its masks are to float32's on the reference photos."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_real_weights import CASES, Runner

from sam2_jax import Sam2Model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("pixels_encoded_once")]


class OneByOne(Runner):
    """Encodes each photo by itself: an encoder of two at once would be another long compilation."""

    def _encode(self, photos: tuple[str, ...]) -> tuple[dict[str, np.ndarray], Any]:
        if len(photos) == 1:
            return super()._encode(photos)
        inputs, embeddings = zip(*(self.encode((photo,)) for photo in photos), strict=True)
        sizes = {"original_sizes": np.concatenate([each["original_sizes"] for each in inputs])}
        return sizes, jax.tree.map(lambda *levels: jnp.concatenate(levels), *embeddings)


@pytest.fixture(scope="module")
def runners(reference_dir: Path, tiny_model: Sam2Model) -> tuple[Runner, Runner]:
    """The stored cases in float32 and in bfloat16."""
    types = {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16}
    weights = reference_dir / "weights" / "sam2-hiera-tiny-image"
    half = Sam2Model.from_pretrained(weights, **types)
    full_compatible, half_compatible = (
        Sam2Model(each.config, each.params, padding="transformers", **options)
        for each, options in ((tiny_model, {}), (half, types))
    )
    return (
        Runner(reference_dir, tiny_model, full_compatible),
        OneByOne(reference_dir, half, half_compatible),
    )


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
