"""The vision models alone, image features, prompt embeddings and positions, against transformers' own."""

from inspect import signature
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("transformers", reason="parity needs transformers")

import numpy as np
import torch
import transformers
from tolerances import assert_close
from transformers.models.sam2.modeling_sam2 import Sam2SinePositionEmbedding

import sam2_jax
from parity.oracle import (
    Pair,
    channels_first,
    channels_last,
    recorded_attentions,
    to_torch,
    transformers_model,
)
from sam2_jax import Sam2HieraDetModel, Sam2Model, Sam2VisionModel
from sam2_jax.checkpoint import names
from sam2_jax.model.positions import sine_positions

RNG = np.random.default_rng(50)
POINTS = RNG.uniform(0, 128, (2, 3, 4, 2)).astype(np.float32)
LABELS = np.array([[[1, 0, -1, 1], [1, 1, 1, -10], [0] * 4], [[0, 1, 1, 0], [1, -10, -10, -10], [1] * 4]])
BOXES = np.sort(RNG.uniform(0, 128, (2, 3, 2, 2)), axis=2).reshape(2, 3, 4).astype(np.float32)
MASKS = (5 * RNG.standard_normal((2, 1, 32, 32))).astype(np.float32)
OBLONG = RNG.standard_normal((1, 64, 160, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def vision(pair: Pair) -> Sam2VisionModel:
    return Sam2VisionModel(pair.ours.config.vision_config, pair.ours.params["vision_encoder"])


@pytest.fixture(scope="module")
def backbone(pair: Pair) -> Sam2HieraDetModel:
    config = pair.ours.config.vision_config.backbone_config
    return Sam2HieraDetModel(config, pair.ours.params["vision_encoder"]["backbone"])


def run(model: Any, pixels: np.ndarray, **options: bool) -> Any:
    with torch.no_grad():
        return model(pixel_values=channels_first(pixels), **options)


def assert_equal_maps(rung: str, ours: Any, theirs: Any, *, are_channels_first: bool = False) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert_close("features", rung, a, channels_last(b) if are_channels_first else b)


# --- positions


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (64, 64), (12, 40), (33, 7)])
@pytest.mark.parametrize("features", [16, 256])
def test_sine_positions(size: tuple[int, int], features: int) -> None:
    theirs = Sam2SinePositionEmbedding(features // 2, normalize=True)(
        torch.Size((1, features, *size)), "cpu", torch.float32
    )
    assert_close("features", "sine positions", sine_positions(*size, features), channels_last(theirs))


def test_image_wide_positions(pair: Pair) -> None:
    ours = pair.ours.get_image_wide_positional_embeddings()
    assert_close(
        "features",
        "image-wide positions",
        ours,
        channels_last(pair.theirs.get_image_wide_positional_embeddings()),
    )


def test_defect_9a8_a_fresh_model_has_one_fourier_matrix(pair: Pair) -> None:
    """transformers draws two; what we save for it has one matrix under both names."""
    config = pair.ours.config
    fresh = transformers.Sam2Model(transformers.Sam2Config(**config.to_dict())).state_dict()
    assert not torch.equal(fresh[names.FOURIER], fresh[names.FOURIER_COPY])
    flat = names.flatten(Sam2Model(config, pair.ours.params).params)
    assert sum(name.endswith("positional_embedding") for name in flat) == 1
    tensors = names.to_torch({name: np.asarray(value) for name, value in flat.items()})
    np.testing.assert_array_equal(tensors[names.FOURIER], tensors[names.FOURIER_COPY])
    theirs = transformers_model(config, tensors)  # and with both equal it embeds as we do
    assert_close(
        "features",
        "image-wide positions",
        pair.ours.get_image_wide_positional_embeddings(),
        channels_last(theirs.get_image_wide_positional_embeddings()),
    )


def test_defect_9a9_positions_stay_float32_in_bfloat16(pair: Pair, pixels: np.ndarray) -> None:
    """A bfloat16 model of ours still has transformers' float32 positions; its own bfloat16 are far off."""
    ours = Sam2VisionModel(
        pair.ours.config.vision_config, pair.ours.params["vision_encoder"], dtype="bfloat16"
    )(pixels).fpn_position_encoding
    theirs = run(pair.theirs.vision_encoder, pixels).fpn_position_encoding
    assert_equal_maps("positions in bfloat16", ours, theirs, are_channels_first=True)
    shape = torch.Size((1, 32, 32, 32))
    low, high = (
        Sam2SinePositionEmbedding(16, normalize=True)(shape, "cpu", dtype).float()
        for dtype in (torch.bfloat16, torch.float32)
    )
    assert (low - high).abs().max() > 0.005


# --- the vision models alone


@pytest.mark.parametrize("images", ["square", "oblong"])
def test_vision_model(pair: Pair, vision: Sam2VisionModel, pixels: np.ndarray, images: str) -> None:
    given = pixels if images == "square" else OBLONG
    ours = vision(given, output_hidden_states=True)
    theirs = run(pair.theirs.vision_encoder, given, output_hidden_states=True)
    assert tuple(ours) == tuple(theirs.keys())
    assert_close(
        "features", f"vision model, {images}: last", ours.last_hidden_state, theirs.last_hidden_state
    )
    rung = f"vision model, {images}:"
    assert_equal_maps(f"{rung} hidden state", ours.hidden_states, theirs.hidden_states)
    for name in ("fpn_hidden_states", "fpn_position_encoding"):
        assert_equal_maps(f"{rung} {name}", ours[name], theirs[name], are_channels_first=True)


@pytest.mark.parametrize("images", ["square", "oblong"])
def test_backbone(pair: Pair, backbone: Sam2HieraDetModel, pixels: np.ndarray, images: str) -> None:
    given = pixels if images == "square" else OBLONG
    ours = backbone(given, output_hidden_states=True)
    theirs = run(pair.theirs.vision_encoder.backbone, given, output_hidden_states=True)
    assert tuple(ours) == tuple(theirs.keys())
    assert len(ours.hidden_states) == 8 + 1
    rung = f"backbone, {images}:"
    assert_close("features", f"{rung} last", ours.last_hidden_state, theirs.last_hidden_state)
    for name in ("intermediate_hidden_states", "hidden_states"):
        assert_equal_maps(f"{rung} {name}", ours[name], theirs[name])


def test_defect_9a7_attentions_of_the_models_alone_are_weights(
    pair: Pair, vision: Sam2VisionModel, backbone: Sam2HieraDetModel, pixels: np.ndarray
) -> None:
    with recorded_attentions(pair.theirs) as weights:
        theirs = run(pair.theirs.vision_encoder, pixels, output_attentions=True)
    for model in (vision, backbone):
        ours = model(pixels, output_attentions=True).attentions
        assert len(ours) == len(theirs.attentions) == 8
        for i, found in enumerate(ours):
            expected = weights[f"vision_encoder.backbone.blocks.{i}.attn"]
            assert_close("attentions", "models alone", found.reshape(-1, *found.shape[2:]), expected)
            assert theirs.attentions[i].shape != expected.shape, "transformers returns something else"


def test_outputs_without_names_are_those_of_transformers(
    pair: Pair, vision: Sam2VisionModel, backbone: Sam2HieraDetModel, pixels: np.ndarray
) -> None:
    for model, other in (
        (vision, pair.theirs.vision_encoder),
        (backbone, pair.theirs.vision_encoder.backbone),
    ):
        for hidden in (False, True):
            options = {"output_hidden_states": hidden, "return_dict": False}
            ours, theirs = model(pixels, **options), run(other, pixels, **options)
            assert [type(x) is tuple for x in ours] == [isinstance(x, (tuple, list)) for x in theirs]


@pytest.mark.parametrize(
    ("kind", "part"),
    [("Sam2VisionModel", "vision_encoder"), ("Sam2HieraDetModel", "vision_encoder.backbone")],
)
def test_parts_go_to_transformers_and_back(
    pair: Pair,
    vision: Sam2VisionModel,
    backbone: Sam2HieraDetModel,
    pixels: np.ndarray,
    tmp_path: Path,
    kind: str,
    part: str,
) -> None:
    ours = {"Sam2VisionModel": vision, "Sam2HieraDetModel": backbone}[kind]
    ours.save_pretrained(tmp_path / "ours", layout="transformers")
    loaded, report = getattr(transformers, kind).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    expected = run(loaded.eval(), pixels).last_hidden_state
    assert_close("features", f"{kind} saved by us", ours(pixels).last_hidden_state, expected)

    pair.theirs.get_submodule(part).save_pretrained(tmp_path / "theirs")
    back = type(ours).from_pretrained(tmp_path / "theirs")
    assert back.config == ours.config
    params = names.flatten(ours.params)
    for name, value in names.flatten(back.params).items():
        np.testing.assert_array_equal(value, params[name], err_msg=name)


# --- parts of the whole model


def test_image_features(pair: Pair, pixels: np.ndarray) -> None:
    ours = pair.ours.get_image_features(pixels, output_hidden_states=True)
    with torch.no_grad():
        theirs = pair.theirs.get_image_features(channels_first(pixels), output_hidden_states=True)
    assert tuple(ours) == tuple(theirs.keys())
    assert_close("features", "image features: last", ours.last_hidden_state, theirs.last_hidden_state)
    assert_equal_maps("image features: hidden state", ours.hidden_states, theirs.hidden_states)
    for name in ("fpn_hidden_states", "fpn_position_encoding"):
        maps = [np.asarray(x).reshape(2, -1, x.shape[-1]).swapaxes(0, 1) for x in ours[name]]
        assert_equal_maps(f"image features: {name}", maps, theirs[name])


def test_image_embeddings(pair: Pair, pixels: np.ndarray) -> None:
    theirs = pair.theirs.get_image_embeddings(channels_first(pixels))
    ours = pair.ours.get_image_embeddings(pixels)
    assert_equal_maps("image embeddings", ours, theirs, are_channels_first=True)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("Sam2Model", "forward"),
        ("Sam2Model", "get_image_features"),
        ("Sam2Model", "get_image_embeddings"),
        ("Sam2Model", "get_prompt_embeddings"),
        ("Sam2Model", "get_image_wide_positional_embeddings"),
        ("Sam2VisionModel", "forward"),
        ("Sam2HieraDetModel", "forward"),
    ],
)
def test_parameters_have_transformers_names_order_and_defaults(kind: str, method: str) -> None:
    ours, theirs = (
        signature(getattr(getattr(library, kind), method)).parameters.values()
        for library in (sam2_jax, transformers)
    )
    expected = [(p.name, p.default) for p in theirs if p.kind is not p.VAR_KEYWORD]
    assert [(p.name, p.default) for p in ours][: len(expected)] == expected


POINT_PROMPTS = {"input_points": POINTS, "input_labels": LABELS}
PROMPTS: dict[str, dict[str, np.ndarray]] = {
    "nothing": {},
    "points": POINT_PROMPTS,
    "boxes": {"input_boxes": BOXES},
    "masks": {"input_masks": MASKS},
    "points and boxes": POINT_PROMPTS | {"input_boxes": BOXES},
    "points and masks": POINT_PROMPTS | {"input_masks": MASKS},
    "boxes and masks": {"input_boxes": BOXES, "input_masks": MASKS},
    "points, boxes and masks": POINT_PROMPTS | {"input_boxes": BOXES, "input_masks": MASKS},
}


@pytest.mark.parametrize("prompts", PROMPTS)
def test_prompt_embeddings(pair: Pair, prompts: str) -> None:
    given = PROMPTS[prompts]
    sparse, dense = pair.ours.get_prompt_embeddings(**given)
    tokens, maps = pair.theirs.get_prompt_embeddings(**{name: to_torch(x) for name, x in given.items()})
    if tokens is None:
        assert sparse is None
    else:
        assert_close("tokens", f"embedded {prompts}", sparse, tokens)
    maps = channels_last(maps)
    assert dense.shape[0] in (1, maps.shape[0])
    dense = np.broadcast_to(dense[:, 0], maps.shape)
    assert_close("features", f"embedded {prompts}: dense", dense, maps)


def test_embedded_labels_are_positive_if_left_out(pair: Pair) -> None:
    sparse, _ = pair.ours.get_prompt_embeddings(POINTS)
    tokens, _ = pair.theirs.get_prompt_embeddings(to_torch(POINTS), torch.ones(2, 3, 4).int())
    assert_close("tokens", "embedded points without labels", sparse, tokens)


def test_masks_of_another_size_are_resized_before_they_are_embedded(pair: Pair) -> None:
    """As forward does, where transformers' get_prompt_embeddings would embed them at their own size."""
    masks = (5 * RNG.standard_normal((2, 1, 50, 90))).astype(np.float32)
    _, dense = pair.ours.get_prompt_embeddings(input_masks=masks)
    resized = torch.nn.functional.interpolate(
        to_torch(masks), (32, 32), mode="bilinear", align_corners=False, antialias=True
    )
    _, maps = pair.theirs.get_prompt_embeddings(input_masks=resized)
    assert_close("features", "embedded masks, resized", dense[:, 0], channels_last(maps))


def test_defect_9a5_masks_of_objects_are_embedded_each(pair: Pair) -> None:
    masks = (5 * RNG.standard_normal((2, 3, 32, 32))).astype(np.float32)
    _, dense = pair.ours.get_prompt_embeddings(POINTS, LABELS, input_masks=masks)
    for item in range(3):
        one = slice(item, item + 1)
        _, maps = pair.theirs.get_prompt_embeddings(input_masks=to_torch(masks[:, one]))
        assert_close("features", "embedded masks of objects", dense[:, item], channels_last(maps))
