"""On a CPU, images and objects of large maps go one by one: the same numbers, and the same gradients."""

from typing import Any

import jax
import numpy as np
import pytest
from small_models import random_tensors, smallest_config
from tolerances import relative_error

from sam2_jax.checkpoint import names
from sam2_jax.model import mask_decoder, sam2
from sam2_jax.model.sam2 import Sam2

RNG = np.random.default_rng(70)
PIXELS = RNG.standard_normal((2, 64, 96, 3)).astype(np.float32)
POINTS = RNG.uniform(0, 64, (2, 4, 2, 2)).astype(np.float32)
LABELS = np.array([[[1, 0], [1, -10], [2, 3], [0, 1]], [[1, 1], [-1, -10], [1, 0], [2, 3]]], np.int32)
MASKS = {
    "no masks": None,
    "a mask for an image": RNG.standard_normal((2, 1, 16, 24)).astype(np.float32),
    "a mask for each object": RNG.standard_normal((2, 4, 16, 24)).astype(np.float32),
}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("masks", MASKS)
def test_one_by_one_changes_no_number(masks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = smallest_config((64, 96))
    module = Sam2(config)
    params = names.unflatten(names.to_flax(random_tensors(config)))

    def predict(params: Any) -> Any:
        return module.apply({"params": params}, PIXELS, POINTS, LABELS, MASKS[masks])

    def loss(params: Any) -> tuple[jax.Array, Any]:
        prediction = predict(params)
        return (prediction.masks**2).mean() + prediction.iou_scores.sum(), prediction

    def run() -> tuple[dict[str, Any], Any]:
        """Gradients, which take long to compile, of the case that has all there is; prediction."""
        if masks == "a mask for each object":
            gradients, prediction = jax.jit(lambda p: jax.grad(loss, has_aux=True)(p))(params)
            return names.flatten(gradients), prediction
        return {}, jax.jit(lambda p: predict(p))(params)

    together = run()
    monkeypatch.setattr(sam2, "_LARGE_IMAGE", 1)
    monkeypatch.setattr(mask_decoder, "_LARGE_MAP", 1)
    apart = run()
    for a, b in zip(jax.tree.leaves(apart[1]), jax.tree.leaves(together[1]), strict=True):
        assert relative_error(a, b) < 1e-5  # the object scores, near zero here, come to 2e-6
    for name, gradient in apart[0].items():
        expected = together[0][name]
        np.testing.assert_allclose(gradient, expected, atol=1e-5 * np.abs(expected).max() + 1e-7)
    loops = str(jax.make_jaxpr(lambda p: predict(p))(params)).count("scan[")
    assert loops >= 3, "one over images in the encoder, one over images and one over objects in the decoder"
