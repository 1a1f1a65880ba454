"""Models, sessions and all that holds state under JAX's transformations, in threads, and afterwards."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from small_models import model_of_its_own

from sam2_jax import AutomaticMaskGenerator, Sam2HieraDetModel, Sam2Model, Sam2VisionModel

RNG = np.random.default_rng(80)
PHOTO = RNG.integers(0, 256, (40, 60, 3), np.uint8)
PIXELS = RNG.standard_normal((2, 64, 64, 3)).astype(np.float32)
POINTS = RNG.uniform(0, 64, (2, 2, 2, 2)).astype(np.float32)
BOXES = np.float32([[[1, 2, 30, 40], [5, 5, 60, 60]]] * 2)
MASKS = (5 * RNG.standard_normal((2, 2, 16, 16))).astype(np.float32)
ROUNDING = 1e-5

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def model() -> Sam2Model:
    return model_of_its_own()  # its numbers are compared to the bit: none of its programs is another test's


@pytest.fixture(scope="module")
def embeddings(model: Sam2Model) -> Any:
    return model.get_image_embeddings(PIXELS)


@pytest.fixture(scope="module")
def calls(model: Sam2Model, embeddings: Any) -> dict[str, tuple[Callable[[Any], Any], np.ndarray]]:
    """Public methods as functions of one array [2, ...], and that array."""
    vision_config = model.config.vision_config
    vision = Sam2VisionModel(vision_config, model.params["vision_encoder"])
    hiera = Sam2HieraDetModel(vision_config.backbone_config, model.params["vision_encoder"]["backbone"])
    decode = partial(model, image_embeddings=embeddings)

    def of_embeddings(x: Any) -> Any:  # those of one image of a batch for all its maps
        maps = (embeddings[0][: len(x)], embeddings[1][: len(x)], x)
        return model(image_embeddings=maps, input_points=POINTS[: len(x)]).pred_masks

    def positions(x: Any) -> Any:
        return x + model.get_image_wide_positional_embeddings().mean()

    return {
        "pixels": (lambda x: model(x, POINTS[: len(x)]).pred_masks, PIXELS),
        "embeddings": (of_embeddings, np.asarray(embeddings[2])),
        "points": (lambda x: decode(input_points=x).iou_scores, POINTS),
        "points in lists": (lambda x: decode(input_points=[list(image) for image in x]).iou_scores, POINTS),
        "boxes": (lambda x: decode(input_boxes=x).iou_scores, BOXES),
        "points and masks": (lambda x: decode(input_points=POINTS, input_masks=x).iou_scores, MASKS),
        "a least score": (lambda x: decode(input_points=x, min_score=x.min() - 100).iou_scores, POINTS),
        "get_image_embeddings": (model.get_image_embeddings, PIXELS),
        "get_image_features": (model.get_image_features, PIXELS),
        "get_prompt_embeddings": (lambda x: model.get_prompt_embeddings(x)[0], POINTS),
        "get_image_wide_positional_embeddings": (positions, POINTS),
        "Sam2VisionModel": (vision, PIXELS),
        "Sam2HieraDetModel": (hiera, PIXELS),
    }


CALLS = [
    "pixels",
    "embeddings",
    "points",
    "points in lists",
    "boxes",
    "points and masks",
    "a least score",
    "get_image_embeddings",
    "get_image_features",
    "get_prompt_embeddings",
    "get_image_wide_positional_embeddings",
    "Sam2VisionModel",
    "Sam2HieraDetModel",
]


def in_shards(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    mesh = jax.make_mesh((1,), ("images",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("images")
    return jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)


def summed(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: sum(leaf.astype(jnp.float32).sum() for leaf in jax.tree.leaves(function(x)))


TRANSFORMATIONS: dict[str, Callable[[Callable[[Any], Any]], Callable[[Any], Any]]] = {
    "jit": jax.jit,
    "eval_shape": lambda f: partial(jax.eval_shape, f),
    "make_jaxpr": jax.make_jaxpr,
    "grad": lambda f: jax.grad(summed(f)),
    "jvp": lambda f: lambda x: jax.jvp(f, (x,), (x,)),
    "vmap": lambda f: jax.vmap(lambda x: f(jnp.stack([x, x]))),
    "scan": lambda f: lambda x: jax.lax.scan(lambda carry, _: (carry, f(x)), 0, None, 2),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(summed(f))),
    "shard_map": in_shards,
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_can_be_traced_in_every_way_and_is_the_same_afterwards(
    calls: dict[str, Any], model: Sam2Model, call: str
) -> None:
    function, x = calls[call]
    model._positions = None  # traced first of all, in the first transformation
    for transform in TRANSFORMATIONS.values():
        # A new function, so that nothing is remembered; its shape only, so that nothing is compiled.
        jax.eval_shape(lambda x, transform=transform: (transform(lambda y: function(y))(x), None)[1], x)
    assert model._positions is None or not isinstance(model._positions[1], jax.core.Tracer)
    shapes = jax.eval_shape(lambda x: function(x), x)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), function(x)) == jax.tree.map(
        lambda a: (a.shape, a.dtype), shapes
    )


@pytest.mark.parametrize("call", ["pixels", "points", "boxes"])
@pytest.mark.parametrize("transformation", ["jit", "shard_map"])
def test_numbers_stay_under_a_transformation(calls: dict[str, Any], call: str, transformation: str) -> None:
    function, x = calls[call]
    before = function(x)
    within = jax.jit(TRANSFORMATIONS[transformation](lambda x: function(x)))(jnp.asarray(x))
    np.testing.assert_allclose(within, before, rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_array_equal(function(x), before)


@pytest.mark.slow
def test_vmap_over_prompts_and_gradients_to_a_point(model: Sam2Model, embeddings: Any) -> None:
    """What a researcher does: many prompts of one image, and the slope of a score along a click."""
    image = tuple(x[:1] for x in embeddings)

    def score(point: Any) -> jax.Array:
        outputs = model(image_embeddings=image, input_points=point[None, None, None])
        return outputs.iou_scores[0, 0]

    points = jnp.asarray(POINTS[0, :, 0])
    expected = jnp.stack([score(point) for point in points])
    np.testing.assert_allclose(jax.vmap(score)(points), expected, rtol=ROUNDING)
    slope = jax.grad(lambda point: score(point).sum())(points[0])
    step = np.float32([0.05, 0])
    change = (score(points[0] + step) - score(points[0] - step)).sum() / 0.1
    np.testing.assert_allclose(slope[0], change, rtol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("transformation", ["jit", "eval_shape", "make_jaxpr", "grad", "scan"])
def test_sessions_batches_and_generators_work_inside_and_afterwards(
    model: Sam2Model, transformation: str
) -> None:
    generator = AutomaticMaskGenerator(
        model, points_per_side=2, pred_iou_thresh=0.01, stability_score_thresh=0.01, use_m2m=True
    )
    session = model.predictor(PHOTO)
    found: list[Any] = []

    def use(x: Any) -> Any:
        model._positions = None
        session.reset()
        clicked = [session.click(30, 20), session.click(5, 5), session.set_box(1, 1, 30, 30)]
        several = session.predict_objects([[(1, 2)], [(3, 4)], [(5, 6)]])
        (batch,) = model.predict_batch([{"photo": PHOTO, "points": [[(30, 20)]]}], progress=False)
        masks = [record["predicted_iou"] for record in generator.generate(PHOTO)]
        found.append(([each.logits for each in [*clicked, *several]], batch.logits, masks))
        return x

    outside = use(1.0) and found.pop()
    TRANSFORMATIONS[transformation](use)(jnp.ones((2,)))
    inside = found.pop()
    again = use(1.0) and found.pop()
    for other in (inside, again):
        jax.tree.map(np.testing.assert_array_equal, other, outside)


def test_a_model_made_inside_of_a_trace_holds_arrays(model: Sam2Model) -> None:
    made: list[Sam2Model] = []
    given = jax.tree.map(np.asarray, model.params)
    jax.eval_shape(lambda x: made.append(Sam2Model(model.config, given)) or x, 1.0)
    np.testing.assert_array_equal(made[0](PIXELS, POINTS).iou_scores, model(PIXELS, POINTS).iou_scores)


def test_parameters_put_in_place_of_others_count_at_once(model: Sam2Model) -> None:
    mine = Sam2Model(model.config, model.params)
    positions = mine.get_image_wide_positional_embeddings()
    before = mine(PIXELS, POINTS)
    mine.params = jax.tree.map(lambda x: 1.1 * np.asarray(x), model.params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(mine.params))
    fresh = Sam2Model(model.config, mine.params)
    np.testing.assert_array_equal(mine(PIXELS, POINTS).pred_masks, fresh(PIXELS, POINTS).pred_masks)
    assert not np.array_equal(mine(PIXELS, POINTS).pred_masks, before.pred_masks)
    assert not np.array_equal(mine.get_image_wide_positional_embeddings(), positions)
    with pytest.raises(ValueError, match="params does not fit the configured network"):
        mine.params = {}


def test_traced_parameters_are_for_a_model_of_the_trace(model: Sam2Model) -> None:
    mine = Sam2Model(model.config, model.params)

    def loss_of_a_new_model(params: Any) -> jax.Array:
        return Sam2Model(model.config, params)(PIXELS, POINTS).iou_scores.sum()

    def loss_of_mine(params: Any) -> jax.Array:
        mine.params = params
        return mine(PIXELS, POINTS).iou_scores.sum()

    slopes = jax.eval_shape(jax.grad(loss_of_a_new_model), model.params)
    assert jax.tree.structure(slopes) == jax.tree.structure(model.params)
    with pytest.raises(ValueError, match="params of a model must not be what JAX traces"):
        jax.eval_shape(jax.grad(loss_of_mine), model.params)
    np.testing.assert_array_equal(mine(PIXELS, POINTS).iou_scores, model(PIXELS, POINTS).iou_scores)


@pytest.mark.parametrize(
    "params", [3, "text", [1, 2], {"mask_decoder": [np.ones(2)]}, {"a": 1.5}, {"a": np.ones(2, np.int32)}]
)
def test_what_is_no_tree_of_parameters_is_a_sentence(model: Sam2Model, params: Any) -> None:
    with pytest.raises(ValueError, match="params must be a tree of floating point arrays in dictionaries"):
        Sam2Model(model.config, params)


def test_threads_share_a_model(model: Sam2Model) -> None:
    shared = Sam2Model(model.config, model.params)
    expected = model(PIXELS, POINTS).iou_scores
    clicked = model.predictor(PHOTO).click(30, 20).scores

    def work(i: int) -> Any:
        if i % 3 == 0:
            return shared(PIXELS, POINTS).iou_scores, expected
        if i % 3 == 1:
            return shared.predictor(PHOTO).click(30, 20).scores, clicked
        traced = jax.eval_shape(lambda x: shared(x, POINTS).iou_scores, PIXELS)
        return np.zeros(traced.shape), np.zeros(expected.shape)

    with ThreadPoolExecutor(8) as threads:
        for actual, wanted in threads.map(work, range(24)):
            np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"input_points": POINTS[0]}, r"input_points must be of shape .*; got \(2, 2, 2\)"),
        ({"input_points": POINTS, "input_labels": np.ones((2, 2))}, "input_labels must have the shape"),
        ({"input_boxes": BOXES[..., :3]}, "input_boxes must be of shape"),
        ({"input_points": POINTS[:1]}, "for as many images as the call has, 2; got 1"),
    ],
)
def test_shapes_of_traced_prompts_are_checked(
    model: Sam2Model, embeddings: Any, prompts: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda given: model(image_embeddings=embeddings, **given).iou_scores, prompts)
