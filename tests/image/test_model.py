"""Sam2Model and its module by themselves: shapes, precision, invariances, refusals, gradients, compiling."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import (
    model_of,
    model_of_its_own,
    random_tensors,
    smallest_config,
    smallest_video_config,
)
from tolerances import relative_error

from sam2_jax import (
    AutomaticMaskGenerator,
    Sam2ImageProcessor,
    Sam2ImageSegmentationOutput,
    Sam2Model,
    Sam2Processor,
    Sam2VideoModel,
    pipeline,
)
from sam2_jax.checkpoint import names
from sam2_jax.meta import SAM2AutomaticMaskGenerator, SAM2ImagePredictor
from sam2_jax.model.layers import LayerNorm
from sam2_jax.model.sam2 import ImageEmbeddings

RNG = np.random.default_rng(30)
POINTS = RNG.uniform(0, 64, (2, 5, 4, 2)).astype(np.float32)
LABELS = RNG.integers(0, 2, (2, 5, 4))
BOXES = np.sort(RNG.uniform(0, 64, (2, 5, 2, 2)), axis=2).reshape(2, 5, 4).astype(np.float32)
MASKS = (5 * RNG.standard_normal((2, 5, 16, 16))).astype(np.float32)
# What reordering of a sum may change at most; any real difference is far above it.
ROUNDING = 1e-5

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def model() -> Sam2Model:
    return model_of(smallest_config())


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(31).standard_normal((2, 64, 64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def embeddings(model: Sam2Model, pixels: np.ndarray) -> ImageEmbeddings:
    return model.get_image_embeddings(pixels)


@pytest.fixture(scope="module")
def whole(model: Sam2Model, embeddings: ImageEmbeddings) -> Sam2ImageSegmentationOutput:
    """All objects on both images in one call."""
    return model(image_embeddings=embeddings, input_points=POINTS, input_labels=LABELS)


def assert_same(actual: Any, expected: Any) -> None:
    """Assert that two outputs agree but for rounding, in masks, predicted IoU and object score."""
    for name in ("pred_masks", "iou_scores", "object_score_logits"):
        ours, theirs = getattr(actual, name), getattr(expected, name)
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=ROUNDING, atol=ROUNDING, err_msg=name)


def part(outputs: Any, images: Any, objects: Any) -> Sam2ImageSegmentationOutput:
    """The outputs of some images and some of their objects."""
    fields = ("pred_masks", "iou_scores", "object_score_logits")
    taken = {name: np.asarray(getattr(outputs, name))[images][:, objects] for name in fields}
    return Sam2ImageSegmentationOutput(**taken, image_embeddings=outputs.image_embeddings)


# --- shapes and dtypes


@pytest.mark.parametrize(("multimask_output", "masks"), [(True, 3), (False, 1)])
def test_shapes_and_dtypes_of_outputs(
    model: Sam2Model, pixels: np.ndarray, multimask_output: bool, masks: int
) -> None:
    outputs = model(pixels, POINTS, LABELS, multimask_output=multimask_output)
    assert outputs.pred_masks.shape == (2, 5, masks, 16, 16)
    assert outputs.iou_scores.shape == (2, 5, masks)
    assert outputs.object_score_logits.shape == (2, 5, 1)
    assert [x.shape for x in outputs.image_embeddings] == [(2, 16, 16, 2), (2, 8, 8, 4), (2, 4, 4, 16)]
    arrays = [outputs.pred_masks, outputs.iou_scores, outputs.object_score_logits, *outputs.image_embeddings]
    assert {x.dtype for x in arrays} == {jnp.dtype(jnp.float32)}
    assert 0 <= outputs.iou_scores.min() <= outputs.iou_scores.max() <= 1
    assert (
        outputs.vision_hidden_states is outputs.vision_attentions is outputs.mask_decoder_attentions is None
    )


def test_without_prompts_there_is_one_object(model: Sam2Model, embeddings: ImageEmbeddings) -> None:
    assert model(image_embeddings=embeddings).pred_masks.shape == (2, 1, 3, 16, 16)


def test_outputs_answer_as_those_of_transformers_do(model: Sam2Model, pixels: np.ndarray) -> None:
    outputs = model(pixels, POINTS, LABELS, original_sizes=np.full((2, 2), 64), labels=np.zeros((2, 16, 16)))
    assert list(outputs) == list(outputs.keys())
    assert tuple(outputs) == ("iou_scores", "pred_masks", "object_score_logits", "image_embeddings")
    assert outputs["pred_masks"] is outputs[1] is outputs.pred_masks is dict(outputs)["pred_masks"]
    assert len(outputs) == len(outputs.to_tuple()) == len(outputs[:]) == 4
    assert "vision_attentions" not in outputs
    with pytest.raises(KeyError, match="vision_attentions.*there are iou_scores, pred_masks"):
        outputs["vision_attentions"]
    with pytest.raises(IndexError):
        outputs[4]
    as_tuple = model.forward(pixels, POINTS, LABELS, return_dict=False)
    assert isinstance(as_tuple, tuple)
    jax.tree.map(np.testing.assert_array_equal, as_tuple, outputs.to_tuple())


def test_none_is_the_default_of_flags(model: Sam2Model, pixels: np.ndarray) -> None:
    flags = ("output_hidden_states", "output_attentions", "return_dict")
    outputs = model(pixels, POINTS, LABELS, multimask_output=None, **dict.fromkeys(flags))
    assert outputs.pred_masks.shape == (2, 5, 3, 16, 16)
    features = model.get_image_features(pixels, **dict.fromkeys(flags))
    assert features.pooler_output is None
    assert "pooler_output" not in features
    for flag in ("multimask_output", *flags):
        with pytest.raises(ValueError, match=f"{flag} must be True or False; got 'yes'"):
            model(pixels, POINTS, LABELS, **{flag: "yes"})


def test_a_model_says_what_it_is(model: Sam2Model) -> None:
    assert repr(model) == "Sam2Model(hiera of 5 blocks, 8 wide, 64 x 64, float32, 0.1 M parameters)"


def test_outputs_are_a_pytree(whole: Sam2ImageSegmentationOutput) -> None:
    doubled = jax.tree.map(lambda x: 2 * x, whole)
    np.testing.assert_array_equal(doubled.iou_scores, 2 * whole.iou_scores)
    assert jax.tree.structure(doubled) == jax.tree.structure(whole)


@pytest.mark.slow
def test_oblong_images_run() -> None:
    size = height, width = 32, 96
    model = model_of(smallest_config(size))
    images = np.random.default_rng(0).standard_normal((1, *size, 3)).astype(np.float32)
    outputs = model(images, np.float32([[[[width - 1, height - 1]]]]))
    assert outputs.pred_masks.shape == (1, 1, 3, height // 4, width // 4)
    assert jnp.isfinite(outputs.pred_masks).all()


@pytest.mark.slow
def test_another_patch_stride_runs_and_its_embeddings_are_taken_back() -> None:
    config = smallest_config()
    backbone = replace(config.vision_config.backbone_config, patch_stride=(2, 2))
    config = replace(
        config,
        vision_config=replace(config.vision_config, backbone_config=backbone, backbone_feature_sizes=None),
        prompt_encoder_config=replace(config.prompt_encoder_config, patch_size=8),
    )
    model = model_of(config)
    outputs = model(np.ones((1, 64, 64, 3)), POINTS[:1])
    assert outputs.pred_masks.shape[-2:] == (32, 32)
    again = model(image_embeddings=outputs.image_embeddings, input_points=POINTS[:1])
    assert_same(again, outputs)


# --- precision


@pytest.fixture(scope="module")
def bfloat16(model: Sam2Model) -> Sam2Model:
    return Sam2Model(model.config, model.params, dtype=jnp.bfloat16)


@pytest.mark.slow
def test_bfloat16_stays_near_float32(bfloat16: Sam2Model, model: Sam2Model, pixels: np.ndarray) -> None:
    near, exact = (each(pixels, POINTS, LABELS) for each in (bfloat16, model))
    for name, limit in {"pred_masks": 0.05, "iou_scores": 0.01, "object_score_logits": 0.05}.items():
        actual = getattr(near, name)
        assert actual.dtype == jnp.float32
        assert ROUNDING < relative_error(actual, getattr(exact, name)) < limit, name
    assert {x.dtype for x in near.image_embeddings} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.slow
def test_defect_9a9_positions_of_a_bfloat16_model_are_those_of_float32(
    bfloat16: Sam2Model, model: Sam2Model, pixels: np.ndarray
) -> None:
    def positions(each: Sam2Model) -> list[jax.Array]:
        variables = {"params": each.params}
        tokens = each.module.apply(variables, method=lambda m: m.vision_encoder.backbone.positions(16, 16))
        sines = each.get_image_features(pixels).fpn_position_encoding
        return [tokens, each.get_image_wide_positional_embeddings(), *sines]

    for ours, expected in zip(positions(bfloat16), positions(model), strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_array_equal(ours, expected)


def test_softmax_of_a_bfloat16_model_is_float32(bfloat16: Sam2Model, embeddings: ImageEmbeddings) -> None:
    outputs = bfloat16(image_embeddings=embeddings, input_points=POINTS, output_attentions=True)
    for name, weights in outputs.mask_decoder_attentions.items():
        assert weights.dtype == jnp.float32
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5, err_msg=name)  # bfloat16 rows are 1e-3 off


def test_norms_of_a_bfloat16_model_take_float32_statistics() -> None:
    x = (100 + np.random.default_rng(0).standard_normal((64, 96))).astype(jnp.bfloat16)
    params = {"params": {"scale": np.ones(96, np.float32), "bias": np.zeros(96, np.float32)}}
    low = LayerNorm(1e-6, jnp.bfloat16).apply(params, x)
    high = LayerNorm(1e-6, jnp.float32).apply(params, x)
    assert low.dtype == jnp.bfloat16
    np.testing.assert_array_equal(low, high.astype(jnp.bfloat16))


@pytest.mark.slow
def test_random_parameters_follow_seed_and_type_but_for_the_fourier_matrix() -> None:
    first, again, other = (
        names.flatten(Sam2Model(smallest_config(), param_dtype=jnp.bfloat16, seed=seed).params)
        for seed in (0, 0, 1)
    )
    kinds = {name: leaf.dtype for name, leaf in first.items()}
    assert kinds.pop(names.FOURIER) == jnp.float32
    assert set(kinds.values()) == {jnp.dtype(jnp.bfloat16)}
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first[names.FOURIER], other[names.FOURIER])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "none"}, r"padding must be one of \('masked', 'transformers'\); got 'none'"),
        ({"dtype": jnp.float16}, r"dtype must be float32 or bfloat16; got .*float16"),
        ({"dtype": "foo"}, r"dtype must be float32 or bfloat16; got 'foo'"),
        ({"param_dtype": jnp.int32}, r"param_dtype must be float32 or bfloat16; got .*int32"),
        ({"config": "facebook/sam2.1-hiera-tiny"}, r"must be a Sam2Config .*Sam2Model.from_pretrained"),
        ({"params": {}}, r"params does not fit the configured network"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sam2Model(**{"config": smallest_config(), "params": {}, **options})


# --- what must not change a result


@pytest.mark.slow
def test_images_of_a_batch_equal_images_alone(
    model: Sam2Model, pixels: np.ndarray, whole: Sam2ImageSegmentationOutput
) -> None:
    for i in range(2):
        one = slice(i, i + 1)
        assert_same(model(pixels[one], POINTS[one], LABELS[one]), part(whole, one, slice(None)))


def test_objects_of_a_call_equal_objects_alone(
    model: Sam2Model, embeddings: ImageEmbeddings, whole: Sam2ImageSegmentationOutput
) -> None:
    for i in range(5):
        one = slice(i, i + 1)
        alone = model(image_embeddings=embeddings, input_points=POINTS[:, one], input_labels=LABELS[:, one])
        assert_same(alone, part(whole, slice(None), one))


def test_the_order_of_objects_does_not_matter(
    model: Sam2Model, embeddings: ImageEmbeddings, whole: Sam2ImageSegmentationOutput
) -> None:
    order = [3, 0, 4, 2, 1]
    mixed = model(image_embeddings=embeddings, input_points=POINTS[:, order], input_labels=LABELS[:, order])
    assert_same(mixed, part(whole, slice(None), order))


def test_the_order_of_points_does_not_matter(
    model: Sam2Model, embeddings: ImageEmbeddings, whole: Sam2ImageSegmentationOutput
) -> None:
    order = [2, 3, 1, 0]
    mixed = model(
        image_embeddings=embeddings, input_points=POINTS[:, :, order], input_labels=LABELS[:, :, order]
    )
    assert_same(mixed, whole)


@pytest.mark.parametrize("multimask_output", [True, False])
def test_defect_9a2_an_object_of_a_ragged_call_equals_the_object_alone(
    model: Sam2Model, embeddings: ImageEmbeddings, multimask_output: bool
) -> None:
    counts = [1, 4, 2, 3, 1]
    labels = np.where(np.arange(4) < np.array(counts)[:, None], LABELS, -10)
    points = np.where(labels[..., None] == -10, np.nan, POINTS)  # what padding holds must not matter
    call = partial(model, image_embeddings=embeddings, multimask_output=multimask_output)
    ragged = call(input_points=points, input_labels=labels)
    for i, count in enumerate(counts):
        one = slice(i, i + 1)
        alone = call(input_points=POINTS[:, one, :count], input_labels=LABELS[:, one, :count])
        assert_same(part(ragged, slice(None), one), alone)


@pytest.mark.parametrize(("objects", "points"), [(1, 2), (3, 1), (5, 3)])
def test_padding_to_a_bucket_changes_nothing(
    model: Sam2Model, embeddings: ImageEmbeddings, objects: int, points: int
) -> None:
    prompts = POINTS[:, :objects, :points], LABELS[:, :objects, :points]
    padded = model(image_embeddings=embeddings, input_points=prompts[0], input_labels=prompts[1])
    decode = partial(model.module.apply, mask_padding=False, method="decode_masks")
    unpadded = jax.jit(decode)({"params": model.params}, embeddings, *prompts)
    for ours, exact in zip(
        (padded.pred_masks, padded.iou_scores, padded.object_score_logits),
        (unpadded.masks, unpadded.iou_scores, unpadded.object_score_logits),
        strict=True,
    ):
        assert relative_error(ours, exact) <= ROUNDING


def test_a_box_is_its_corners(model: Sam2Model, embeddings: ImageEmbeddings) -> None:
    corners, labels = BOXES.reshape(2, 5, 2, 2), np.broadcast_to([2, 3], (2, 5, 2))
    as_points = model(image_embeddings=embeddings, input_points=corners, input_labels=labels)
    assert_same(model(image_embeddings=embeddings, input_boxes=BOXES), as_points)


@pytest.mark.slow
def test_an_object_without_a_box_equals_the_object_alone(
    model: Sam2Model, embeddings: ImageEmbeddings
) -> None:
    """A call in which every second object has a box, the others points only."""
    boxes = np.where(np.arange(5)[None, :, None] % 2, np.nan, BOXES)
    given = boxes.copy()
    call = partial(model, image_embeddings=embeddings)
    mixed = call(input_points=POINTS, input_labels=LABELS, input_boxes=boxes)
    np.testing.assert_array_equal(boxes, given)
    for i in range(5):
        one = slice(i, i + 1)
        prompts = {"input_points": POINTS[:, one], "input_labels": LABELS[:, one]}
        alone = call(**prompts) if i % 2 else call(**prompts, input_boxes=BOXES[:, one])
        assert_same(part(mixed, slice(None), one), alone)


def test_labels_are_positive_by_default(model: Sam2Model, embeddings: ImageEmbeddings) -> None:
    call = partial(model, image_embeddings=embeddings, input_points=POINTS)
    assert_same(call(), call(input_labels=np.ones((2, 5, 4), int)))


def test_image_embeddings_stand_for_the_pixels(
    model: Sam2Model, pixels: np.ndarray, whole: Sam2ImageSegmentationOutput
) -> None:
    first = model(pixels, POINTS, LABELS)
    assert_same(first, whole)
    again = model(image_embeddings=list(first.image_embeddings), input_points=POINTS, input_labels=LABELS)
    assert_same(again, first)


@pytest.mark.slow
def test_more_objects_than_one_call_takes_are_joined_in_order(
    model: Sam2Model, embeddings: ImageEmbeddings
) -> None:
    one_image = tuple(x[:1] for x in embeddings)
    points = np.random.default_rng(32).uniform(0, 64, (1, 100, 1, 2)).astype(np.float32)
    masks = (5 * np.random.default_rng(33).standard_normal((1, 100, 8, 8))).astype(np.float32)
    call = partial(model, image_embeddings=one_image)
    all_of_them = call(input_points=points, input_masks=masks)
    assert all_of_them.pred_masks.shape == (1, 100, 3, 16, 16)
    for i in (0, 63, 64, 99):
        one = slice(i, i + 1)
        alone = call(input_points=points[:, one], input_masks=masks[:, one])
        assert_same(part(all_of_them, slice(None), one), alone)


def test_a_mask_for_the_image_is_shared_by_its_objects(model: Sam2Model, embeddings: ImageEmbeddings) -> None:
    call = partial(model, image_embeddings=embeddings, input_points=POINTS)
    shared = call(input_masks=MASKS[:, :1])
    repeated = call(input_masks=np.repeat(MASKS[:, :1], 5, axis=1))
    assert_same(shared, repeated)
    assert relative_error(shared.pred_masks, call().pred_masks) > 0.01, "the mask must have an effect"


def test_defect_9a5_masks_of_objects_reach_their_own_object(
    model: Sam2Model, embeddings: ImageEmbeddings
) -> None:
    call = partial(model, image_embeddings=embeddings)
    together = call(input_points=POINTS, input_masks=MASKS)
    for i in range(5):
        one = slice(i, i + 1)
        alone = call(input_points=POINTS[:, one], input_masks=MASKS[:, one])
        assert_same(part(together, slice(None), one), alone)
    assert_same(call(input_points=POINTS, input_masks=MASKS[:, :, None]), together)


# --- what is recorded on request


def test_recording_changes_no_output(
    model: Sam2Model, pixels: np.ndarray, whole: Sam2ImageSegmentationOutput
) -> None:
    recorded = model(pixels, POINTS, LABELS, output_attentions=True, output_hidden_states=True)
    assert_same(recorded, whole)
    for attentions in (recorded.vision_attentions, tuple(recorded.mask_decoder_attentions.values())):
        for weights in attentions:
            assert weights.min() >= 0
            np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert [x.shape for x in recorded.vision_hidden_states] == [
        (2, 16, 16, 8),
        (2, 16, 16, 8),
        (2, 8, 8, 16),
        (2, 4, 4, 32),
        (2, 4, 4, 32),
        (2, 2, 2, 64),
    ]
    # 8 x 8 windows; 8 x 8 and 4 x 4 with pooled queries; global; 6 x 6 filled up from 4 x 4, pooled.
    assert [x.shape for x in recorded.vision_attentions] == [
        (2, 4, 1, 64, 64),
        (2, 4, 1, 16, 64),
        (2, 4, 2, 4, 16),
        (2, 1, 2, 16, 16),
        (2, 1, 2, 9, 36),
    ]
    tokens = 6 + 4 + 1
    shapes = {name: weights.shape for name, weights in recorded.mask_decoder_attentions.items()}
    assert shapes == {
        **{f"layers.{i}.self_attn": (2, 5, 2, tokens, tokens) for i in (0, 1)},
        **{f"layers.{i}.cross_attn_token_to_image": (2, 5, 2, tokens, 16) for i in (0, 1)},
        **{f"layers.{i}.cross_attn_image_to_token": (2, 5, 2, 16, tokens) for i in (0, 1)},
        "final_attn_token_to_image": (2, 5, 2, tokens, 16),
    }


def test_padding_gets_no_attention(model: Sam2Model, embeddings: ImageEmbeddings) -> None:
    labels = np.where(np.arange(4) < 2, LABELS, -10)
    outputs = model(
        image_embeddings=embeddings, input_points=POINTS, input_labels=labels, output_attentions=True
    )
    for name, weights in outputs.mask_decoder_attentions.items():
        if not name.endswith("token_to_image"):
            assert (weights[..., 8:10] == 0).all(), name
            assert (weights[..., 10] > 0).all(), name


def test_another_image_size_keeps_all_else() -> None:
    model = model_of(smallest_config(), padding="transformers", dtype=jnp.bfloat16)
    other = model.with_image_size((96, 64))
    assert other.config == model.config.with_image_size((96, 64))
    jax.tree.map(np.testing.assert_array_equal, other.params, model.params)
    assert (other.padding, other.module.dtype) == ("transformers", jnp.bfloat16)
    assert other.processor(images=np.zeros((9, 9, 3), np.uint8))["pixel_values"].shape == (1, 96, 64, 3)


# --- refusals

ONES = np.ones((2, 5, 4), int)
MAPS = tuple(np.zeros((2, 16 // 2**i, 16 // 2**i, c), np.float32) for i, c in enumerate((2, 4, 16)))
REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "no image": ({"image_embeddings": None}, r"exactly one of pixel_values and image_embeddings"),
    "two images": (
        {"pixel_values": np.zeros((2, 64, 64, 3))},
        r"exactly one of pixel_values and image_emb",
    ),
    "channels first": (
        {"image_embeddings": None, "pixel_values": np.zeros((2, 3, 64, 64))},
        r"shape \(batch, 64, 64, 3\); got \(2, 3, 64, 64\): .*channels first: transpose with \(0, 2, 3, 1\)",
    ),
    "another size": (
        {"image_embeddings": None, "pixel_values": np.zeros((2, 64, 32, 3))},
        r"got \(2, 64, 32, 3\): use the model's processor, or config\.with_image_size",
    ),
    "one image without a batch": (
        {"image_embeddings": None, "pixel_values": np.zeros((64, 64, 3))},
        r"pixel_values must be of shape \(batch, 64, 64, 3\); got \(64, 64, 3\): .*index with \[None\]",
    ),
    "an empty batch": (
        {"image_embeddings": None, "pixel_values": np.zeros((0, 64, 64, 3))},
        r"pixel_values must be of shape .*; got \(0, 64, 64, 3\)",
    ),
    "two maps": (
        {"image_embeddings": MAPS[:2]},
        r"image_embeddings must be the three maps an earlier call returned",
    ),
    "one array": ({"image_embeddings": MAPS[2]}, r"image_embeddings must be the three maps .*; got ndarray"),
    "maps channels first": (
        {"image_embeddings": [np.moveaxis(x, -1, 1) for x in MAPS]},
        r"of shapes \(batch, 16, 16, 2\), \(batch, 8, 8, 4\), \(batch, 4, 4, 16\); got \[\(2, 2, 16, 16\)",
    ),
    "maps of different batches": (
        {"image_embeddings": (MAPS[0][:1], *MAPS[1:])},
        r"image_embeddings must be the three maps",
    ),
    "points of another batch": (
        {"input_points": POINTS[:1]},
        r"input_points must be for as many images .* 2; got 1",
    ),
    "boxes of another batch": (
        {"input_boxes": BOXES[:1]},
        r"input_boxes must be for as many images .* 2; got 1",
    ),
    "masks of another batch": (
        {"input_masks": MASKS[:1]},
        r"input_masks must be for as many images as the call has, 2; got 1",
    ),
    "points of rank 3": (
        {"input_points": POINTS[0]},
        r"input_points must be of shape \(batch, objects, points, 2\)",
    ),
    "three coordinates": (
        {"input_points": np.zeros((2, 5, 4, 3))},
        r"input_points must be of shape .*, 4, 3\)",
    ),
    "no points": (
        {"input_points": POINTS[:, :, :0]},
        r"input_points must be .*none of it empty; got \(2, 5, 0, 2\)",
    ),
    "no objects": (
        {"input_points": POINTS[:, :0]},
        r"input_points must be .*none of it empty; got \(2, 0, 4, 2\)",
    ),
    "NaN points": (
        {"input_points": np.full((2, 5, 4, 2), np.nan)},
        r"input_points must be finite .* got NaN",
    ),
    "labels alone": ({"input_labels": LABELS}, r"input_labels are given without input_points"),
    "fewer labels": (
        {"input_points": POINTS, "input_labels": LABELS[:, :, :3]},
        r"input_labels must have the shape of the points, \(2, 5, 4\); got \(2, 5, 3\)",
    ),
    "label 4": (
        {"input_points": POINTS, "input_labels": 4 * ONES},
        r"input_labels must be among \(-10, -1, 0, 1, 2, 3\); got \[4\]",
    ),
    "label -2": (
        {"input_points": POINTS, "input_labels": -2 * ONES},
        r"input_labels must be among .* got \[-2\]",
    ),
    "label 0.5": (
        {"input_points": POINTS, "input_labels": 0.5 * ONES},
        r"input_labels must be among .* got \[0\.5\]",
    ),
    "boxes of three": (
        {"input_boxes": BOXES[..., :3]},
        r"input_boxes must be of shape \(batch, objects, 4\)",
    ),
    "boxes turned round": (
        {"input_boxes": BOXES[..., ::-1]},
        r"input_boxes must be .* with x0 <= x1 and y0 <= y1",
    ),
    "infinite boxes": ({"input_boxes": np.full((2, 5, 4), np.inf)}, r"input_boxes must be finite"),
    "half a box": (
        {"input_boxes": np.where(np.arange(4) < 2, np.nan, BOXES)},
        r"input_boxes must be finite numbers, or four NaN for an object without a box",
    ),
    "masks of one object and one image": (
        {"input_masks": np.zeros((2, 5, 3, 16, 16), np.float32)},
        r"input_masks must be logits .*; got \(2, 5, 3, 16, 16\): choose one of an object's masks",
    ),
    "lists of masks of different sizes": (
        {"input_masks": [[np.zeros((4, 4))], [np.zeros((8, 8))]]},
        r"input_masks must be one array",
    ),
    "pixels of different sizes": (
        {"image_embeddings": None, "pixel_values": [np.zeros((64, 64, 3)), np.zeros((32, 64, 3))]},
        r"pixel_values must be one array of numbers; the processor makes it; got",
    ),
    "a photo's name": (
        {"image_embeddings": None, "pixel_values": "photo.jpg"},
        r"pixel_values must be one array of numbers; the processor makes it; got 'photo.jpg'",
    ),
    "fewer boxes than objects": (
        {"input_points": POINTS, "input_boxes": BOXES[:, :4]},
        r"input_points and input_boxes must be for as many objects; got 5 and 4",
    ),
    "binary masks in floating point": (
        {"input_masks": (MASKS > 0).astype(np.float32)},
        r"input_masks must be logits, .*got 0 and 1: of a binary mask, 20.0 \* mask - 10",
    ),
    "a least score that is none": ({"min_score": "high"}, r"min_score must be a number; got 'high'"),
    "binary masks": ({"input_masks": MASKS > 0}, r"input_masks must be logits, .*got bool"),
    "masks of 0 and 255": (
        {"input_masks": np.full(MASKS.shape, 255, np.uint8)},
        r"input_masks must be logits, .*got uint8",
    ),
    "NaN masks": ({"input_masks": np.full(MASKS.shape, np.nan)}, r"input_masks must be finite numbers"),
    "NaN pixels": (
        {"image_embeddings": None, "pixel_values": np.full((2, 64, 64, 3), np.nan, np.float32)},
        r"pixel_values must be finite numbers",
    ),
    "raw pixels": (
        {"image_embeddings": None, "pixel_values": np.zeros((2, 64, 64, 3), np.uint8)},
        r"pixel_values must be normalised, floating point; got uint8",
    ),
    "points that are no array": (
        {"input_points": [[[[1, 2]], [[1, 2], [3, 4]]]]},
        r"input_points must be an array of shape .*the processor makes it",
    ),
    "masks of rank 3": ({"input_masks": MASKS[0]}, r"input_masks must be logits .* got \(5, 16, 16\)"),
    "no masks": ({"input_masks": MASKS[:, :0]}, r"input_masks must be logits .* got \(2, 0, 16, 16\)"),
    "fewer masks than objects": (
        {"input_points": POINTS, "input_masks": MASKS[:, :3]},
        r"input_masks must have 1 mask for an image or one for each of 5 objects; got 3",
    ),
    "similarity for fewer tokens": (
        {"input_points": POINTS, "attention_similarity": np.zeros((10, 2, 10, 16))},
        r"attention_similarity must be of shape .*\(2, 5, 2, 11, 16\), or 1 .*; got \(2, 5, 2, 10, 16\)",
    ),
    "similarity of rank 3": (
        {"input_points": POINTS, "attention_similarity": np.zeros((2, 11, 16))},
        r"attention_similarity must be of shape",
    ),
    "target of another width": (
        {"input_points": POINTS, "target_embedding": np.zeros((2, 5, 11, 8))},
        r"target_embedding must be of shape .*\(2, 5, 11, 16\), or 1 where it repeats; got \(2, 5, 11, 8\)",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_meant_is_refused(model: Sam2Model, case: str) -> None:
    arguments, message = REFUSALS[case]
    with pytest.raises(ValueError, match=message):
        model(**{"image_embeddings": MAPS, **arguments})


@pytest.mark.parametrize("call", ["get_image_embeddings", "get_image_features"])
@pytest.mark.parametrize(
    ("pixel_values", "message"),
    [
        (None, r"pixel_values must be given"),
        (np.zeros((2, 3, 64, 64), np.float32), r"got \(2, 3, 64, 64\): this looks like channels first"),
        (
            np.zeros((2, 32, 64, 3), np.float32),
            r"\(batch, 64, 64, 3\); got \(2, 32, 64, 3\): use the model's",
        ),
        (np.zeros((2, 64, 64, 3), np.uint8), r"pixel_values must be normalised"),
    ],
)
def test_defect_9a11_pixels_that_do_not_fit_are_named(
    model: Sam2Model, call: str, pixel_values: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(model, call)(pixel_values)


def test_prompts_are_checked_before_an_image_is_encoded(
    model: Sam2Model, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "_run", lambda *_, **__: pytest.fail("something was computed"))
    with pytest.raises(ValueError, match="input_points must be for as many images as the call has, 2; got 1"):
        model(pixels, POINTS[:1])


# --- what is embedded without masks being decoded


def test_image_features_become_embeddings_by_adding_no_memory(
    model: Sam2Model, pixels: np.ndarray, embeddings: ImageEmbeddings
) -> None:
    features = model.get_image_features(pixels)
    fine, middle, coarse = features.fpn_hidden_states
    expected = fine, middle, coarse + model.params["no_memory_embedding"].reshape(1, 1, 1, -1)
    for ours, embedding in zip(expected, embeddings, strict=True):
        assert relative_error(ours, embedding) <= ROUNDING
    assert [x.shape for x in features.fpn_position_encoding] == [(2, n, n, 16) for n in (16, 8, 4)]
    assert features.last_hidden_state.shape == (2, 2, 2, 64)
    assert tuple(features) == ("last_hidden_state", "fpn_hidden_states", "fpn_position_encoding")
    assert len(model.get_image_features(pixels, return_dict=False)) == 3


def test_prompt_embeddings_have_the_documented_shapes(model: Sam2Model) -> None:
    embed = model.get_prompt_embeddings
    sparse, dense = embed()
    assert sparse is None
    assert dense.shape == (1, 1, 4, 4, 16)
    shapes = {
        "points": (embed(POINTS, LABELS), (2, 5, 5, 16), (1, 1, 4, 4, 16)),
        "one list": (embed([[[[1, 2]]]]), (1, 1, 2, 16), (1, 1, 4, 4, 16)),
        "boxes": (embed(input_boxes=BOXES), (2, 5, 3, 16), (1, 1, 4, 4, 16)),
        "both": (embed(POINTS, LABELS, BOXES), (2, 5, 7, 16), (1, 1, 4, 4, 16)),
        "both and masks": (embed(POINTS, LABELS, BOXES, MASKS), (2, 5, 7, 16), (2, 5, 4, 4, 16)),
        "shared mask": (embed(POINTS, input_masks=MASKS[:, :1]), (2, 5, 5, 16), (2, 1, 4, 4, 16)),
    }
    for name, (found, *expected) in shapes.items():
        assert [x.shape for x in found] == expected, name
    alone, dense = embed(input_masks=MASKS)
    assert alone is None
    np.testing.assert_array_equal(dense, shapes["both and masks"][0][1])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (
            {"input_points": POINTS, "input_boxes": BOXES[:1]},
            r"input_boxes must be for as many images as the call has, 2; got 1",
        ),
        (
            {"input_boxes": BOXES, "input_masks": MASKS[:1]},
            r"input_masks must be for as many images as the call has, 2; got 1",
        ),
        ({"input_labels": LABELS}, r"input_labels are given without input_points"),
        ({"input_points": 5}, r"input_points must be of shape"),
        ({"input_points": POINTS, "input_masks": MASKS[:, :2]}, r"one for each of 5 objects; got 2"),
    ],
)
def test_prompts_to_embed_are_checked_as_in_a_call(
    model: Sam2Model, prompts: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model.get_prompt_embeddings(**prompts)


# --- the processor that goes with a model


def test_the_processor_follows_the_configured_size(pixels: np.ndarray) -> None:
    model = model_of(smallest_config((32, 96)))
    processor = model.processor
    assert processor is model.processor, "made once"
    assert processor.image_processor.size == {"height": 32, "width": 96}
    assert processor.image_processor.mask_size == {"height": 8, "width": 24}
    assert processor(np.zeros((10, 20, 3), np.uint8))["pixel_values"].shape == (1, 32, 96, 3)


def test_the_processor_is_the_one_beside_the_weights(model: Sam2Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    Sam2Processor(Sam2ImageProcessor(size=64, image_mean=(0.1, 0.2, 0.3))).save_pretrained(tmp_path)
    loaded = Sam2Model.from_pretrained(tmp_path)
    assert tuple(loaded.processor.image_processor.image_mean) == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("kind", [Sam2Model, Sam2VideoModel])
def test_a_processor_that_was_set_goes_along_to_another_image_size(kind: Any) -> None:
    """As it does by way of a folder: pictures are not prepared otherwise of a sudden."""
    config = smallest_config() if kind is Sam2Model else smallest_video_config()
    model = kind(config, names.unflatten(names.to_flax(random_tensors(config))))
    model.processor = kind.processor_class(Sam2ImageProcessor(size=64, image_mean=(0.1, 0.2, 0.3)))
    found = model.with_image_size(96).processor
    assert type(found) is kind.processor_class
    assert tuple(found.image_processor.image_mean) == (0.1, 0.2, 0.3)
    assert found.image_processor.size == {"height": 96, "width": 96}
    assert model.processor.image_processor.size == {"height": 64, "width": 64}


def test_sessions_and_batches_begin_at_the_model(model: Sam2Model) -> None:
    photo = np.random.default_rng(37).integers(0, 255, (40, 60, 3), np.uint8)
    inputs = model.processor(photo, input_points=[[[[20, 10]]]])
    outputs = model(inputs["pixel_values"], inputs["input_points"], multimask_output=False)
    expected = model.processor.post_process_masks(outputs.pred_masks, [(40, 60)])[0][0, 0]
    session = model.predictor(photo, max_hole_area=0)
    clicked = session.predict([[20, 10]], multimask_output=False)
    np.testing.assert_array_equal(clicked.mask, expected)
    (result,) = model.predict_batch([{"photo": photo, "points": [[[20, 10]]]}], progress=False)
    np.testing.assert_array_equal(np.asarray(result.masks).reshape(40, 60), expected)


def test_what_works_with_a_model_says_so(model: Sam2Model) -> None:
    for made in (pipeline(model=model, points_per_crop=3), AutomaticMaskGenerator(model, points_per_side=3)):
        assert repr(made).startswith(f"{type(made).__name__}({model!r}, ")
        assert "points_per_side=3" in repr(made)
    for of_meta in (SAM2ImagePredictor(model), SAM2AutomaticMaskGenerator(model)):
        assert repr(of_meta).startswith(f"{type(of_meta).__name__}({model!r}, ")
    assert "size={'height': 64, 'width': 64}" in repr(model.processor)


def test_what_is_typed_of_habit(model: Sam2Model, bfloat16: Sam2Model) -> None:
    """`.eval()` changes nothing, `.to(...)` gets a sentence, `device` and `dtype` are what they are."""
    assert model.eval() is model
    assert (model.dtype, bfloat16.dtype) == (jnp.float32, jnp.bfloat16)
    assert model.device == jax.devices()[0]
    with pytest.raises(ValueError, match=r"leave .to\(...\) out.* model.params = jax.device_put"):
        model.to("cuda")


# --- the module under JAX's transformations


@pytest.fixture(scope="module")
def loss_and_gradient(model: Sam2Model, pixels: np.ndarray) -> Any:
    """A loss as a function of the parameters, with its gradient, to be compiled."""

    def loss(params: Any) -> jax.Array:
        prompts = POINTS[:1, :3], LABELS[:1, :3], MASKS[:1, :3]
        prediction = model.module.apply({"params": params}, pixels[:1], *prompts)
        return sum(jnp.square(x).mean() for x in prediction)

    return jax.jit(jax.value_and_grad(loss))


@pytest.mark.slow
def test_gradients_reach_all_that_takes_part(model: Sam2Model, loss_and_gradient: Any) -> None:
    flat = names.flatten(loss_and_gradient(model.params)[1])
    assert all(np.isfinite(gradient).all() for gradient in flat.values())
    silent = {name for name, gradient in flat.items() if not np.any(gradient)}
    # The Fourier matrix is a constant; a mask is given, and of four masks the first is not asked for. The
    # bias of the image's keys adds the same to all scores of a token, which a softmax does not see.
    assert silent == {
        names.FOURIER,
        "prompt_encoder.no_mask_embed.embedding",
        *(name for name in flat if name.startswith("mask_decoder.output_hypernetworks_mlps_0.")),
        *(name for name in flat if name.endswith("attn_token_to_image.k_proj.bias")),
    }


@pytest.mark.slow
def test_gradients_are_the_slope(model: Sam2Model, loss_and_gradient: Any) -> None:
    gradient = loss_and_gradient(model.params)[1]
    rng = np.random.default_rng(36)
    # Along the gradient's signs, where the slope stands out of rounding.
    direction = jax.tree.map(lambda g: np.sign(g) * rng.uniform(size=g.shape).astype(np.float32), gradient)
    step = 1e-5  # small, for there are kinks: ReLU and the maximum

    def moved(by: float) -> Any:
        return jax.tree.map(lambda p, d: np.asarray(p) + np.float32(by) * d, model.params, direction)

    slope = (loss_and_gradient(moved(step))[0] - loss_and_gradient(moved(-step))[0]) / (2 * step)
    parts = jax.tree.map(lambda g, d: np.vdot(g, d), gradient, direction)
    np.testing.assert_allclose(slope, sum(jax.tree.leaves(parts)), rtol=0.02)


def test_the_module_runs_under_vmap_over_prompts(
    model: Sam2Model, embeddings: ImageEmbeddings, whole: Sam2ImageSegmentationOutput
) -> None:
    def decode(points: jax.Array, labels: jax.Array) -> Any:
        return model.module.apply({"params": model.params}, embeddings, points, labels, method="decode_masks")

    def objects_first(x: np.ndarray) -> np.ndarray:
        return x.swapaxes(0, 1)[:, :, None]

    one_by_one = jax.jit(jax.vmap(decode))(objects_first(POINTS), objects_first(LABELS))
    assert relative_error(one_by_one.masks[:, :, 0].swapaxes(0, 1), whole.pred_masks) <= ROUNDING
    assert relative_error(one_by_one.iou_scores[:, :, 0].swapaxes(0, 1), whole.iou_scores) <= ROUNDING


def constant_sizes(lowered: Any) -> list[int]:
    """Elements of every constant in a lowered program that is not one number repeated."""
    sizes = []
    for line in lowered.as_text().splitlines():
        if "constant" in line and ("dense<[" in line or 'dense<"' in line):
            shape = line.rpartition("tensor<")[2].partition(">")[0].split("x")[:-1]
            sizes.append(int(np.prod([int(n) for n in shape])))
    return sizes


def test_parameters_are_arguments_of_the_program_not_constants_in_it(
    model: Sam2Model, pixels: np.ndarray, embeddings: ImageEmbeddings
) -> None:
    def run(method: str, params: Any, *inputs: Any) -> Any:
        return model.module.apply({"params": params}, *inputs, method=method)

    encode = jax.jit(partial(run, "encode_image")).lower(model.params, pixels)
    decode = jax.jit(partial(run, "decode_masks")).lower(model.params, embeddings, POINTS, LABELS)
    baked = jax.jit(lambda: run("decode_masks", model.params, embeddings, POINTS, LABELS)).lower()
    assert max(constant_sizes(baked)) >= 512, "this is what baked-in parameters look like"
    # Left are the resize matrices and the grid's positions.
    assert max(constant_sizes(encode)) <= 16 * 7
    assert max(constant_sizes(decode)) <= 4 * 4 * 2


def test_other_parameters_give_other_results_without_compiling_again(
    model: Sam2Model,
    embeddings: ImageEmbeddings,
    whole: Sam2ImageSegmentationOutput,
    traces: list[str],
) -> None:
    other = Sam2Model(model.config, jax.tree.map(lambda x: 1.1 * x, model.params))
    outputs = other(image_embeddings=embeddings, input_points=POINTS, input_labels=LABELS)
    assert relative_error(outputs.pred_masks, whole.pred_masks) > 0.01
    assert not traces


@pytest.mark.slow
def test_any_number_of_points_and_objects_needs_few_compilations(
    traces: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of_its_own()
    embeddings = model.get_image_embeddings(np.ones((1, 64, 64, 3), np.float32))
    traces.clear()  # building a model traces it too
    points = np.random.default_rng(35).uniform(0, 64, (1, 16, 8, 2)).astype(np.float32)
    shapes = [(objects, count) for objects in range(1, 17) for count in range(1, 9)]

    def run_all() -> None:
        for objects, count in shapes:
            outputs = model(image_embeddings=embeddings, input_points=points[:, :objects, :count])
            assert outputs.pred_masks.shape == (1, objects, 3, 16, 16)

    run_all()
    assert len(traces) == 3 * 5  # 1, 4 or 16 points; 1, 2, 4, 8 or 16 objects
    with jax.log_compiles(), caplog.at_level("DEBUG"):
        run_all()
        jax.jit(lambda x: x * 3)(len(shapes))
    compiled = [record.getMessage() for record in caplog.records if "Compiling" in record.getMessage()]
    assert len(compiled) == 1, "only the probe after the second pass may compile"
    assert len(traces) == 3 * 5
