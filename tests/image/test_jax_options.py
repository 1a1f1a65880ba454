"""The same masks, of the same types, under JAX's options: 64 bits, no NaN, strict promotion of types."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import model_of, smallest_config

from sam2_jax import AutomaticMaskGenerator, Sam2Model

RNG = np.random.default_rng(81)
PHOTO = RNG.integers(0, 256, (40, 60, 3), np.uint8)
MASK = np.full((1, 1, 9, 9), -3.0)

OPTIONS = {
    "jax_enable_x64": lambda: jax.enable_x64(True),
    "jax_debug_nans": lambda: jax.debug_nans(True),
    "jax_numpy_dtype_promotion": lambda: jax.numpy_dtype_promotion("strict"),
}

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")


@pytest.fixture(scope="module")
def model() -> Sam2Model:
    return model_of(smallest_config())


def all_ways(model: Sam2Model) -> Any:
    """What a call, a session, a batch and a generator give."""
    pixels = model.processor(images=PHOTO)["pixel_values"].astype(np.float64)
    session = model.predictor(PHOTO)
    clicked = [session.click(3, 4), session.click(30, 20), session.set_box(1, 1, 30, 30)]
    task = {"photo": PHOTO, "points": [[(1, 2)], [(4, 5)]], "boxes": [None, (1, 1, 9, 9)]}
    (batch,) = model.predict_batch([task], progress=False)
    generator = AutomaticMaskGenerator(
        model, points_per_side=2, pred_iou_thresh=0.01, stability_score_thresh=0.01, use_m2m=True
    )
    return (
        model(pixels, [[[[1, 2.5]]]], min_score=0.01, output_attentions=True),
        model.get_prompt_embeddings([[[[1, 2]]]], input_masks=MASK),
        [(each.logits, each.scores) for each in clicked],
        (batch.logits, batch.iou_scores),
        [(each.mask, each.predicted_iou) for each in generator.find(PHOTO)],
        model.params["no_memory_embedding"],
    )


@pytest.fixture(scope="module")
def usual(model: Sam2Model) -> Any:
    return all_ways(model)


@pytest.fixture(params=OPTIONS)
def option(request: pytest.FixtureRequest, usual: Any) -> Iterator[None]:
    context: AbstractContextManager[None] = OPTIONS[request.param]()
    with context:
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("option")
def test_nothing_changes(model: Sam2Model, usual: Any) -> None:
    def compare(actual: Any, expected: Any) -> None:
        assert np.asarray(actual).dtype == np.asarray(expected).dtype
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)

    jax.tree.map(compare, all_ways(model), usual)


def test_parameters_of_64_bits_are_taken_as_32(model: Sam2Model) -> None:
    with jax.enable_x64(True):
        wide = Sam2Model(model.config, jax.tree.map(lambda x: np.asarray(x, np.float64), model.params))
    jax.tree.map(np.testing.assert_array_equal, wide.params, model.params)
    assert {leaf.dtype for leaf in jax.tree.leaves(wide.params)} == {jnp.dtype(jnp.float32)}


@pytest.mark.slow
@pytest.mark.usefixtures("option")
def test_random_and_bfloat16_models_are_traced(model: Sam2Model) -> None:
    drawn = jax.eval_shape(lambda: Sam2Model(model.config, param_dtype=jnp.bfloat16).params)
    kinds = {leaf.dtype for leaf in jax.tree.leaves(drawn)}
    assert kinds == {jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)}
    low = Sam2Model(model.config, model.params, dtype=jnp.bfloat16)
    shape = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    outputs = jax.eval_shape(lambda x: low(x, [[[[1, 2]]]], input_masks=MASK, multimask_output=False), shape)
    assert outputs.pred_masks.dtype == outputs.iou_scores.dtype == jnp.float32
    assert outputs.image_embeddings[2].dtype == jnp.bfloat16
