"""The name rule: every released model's tensors counted and named, converted both ways, and compared."""

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from small_models import random_tensors, small_config

from sam2_jax import RELEASED_MODELS, released_config
from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.pretrained import parameter_shapes
from sam2_jax.config import released_video_config

Shapes = dict[str, tuple[int, ...]]


class Count(NamedTuple):
    """Parameters (the Fourier matrix, a buffer in torch, apart), and tensors of the transformers layout."""

    total: int
    backbone: int
    neck: int
    tensors: int


GOLDEN_COUNTS = {
    f"facebook/{version}-hiera-{size}": count
    for version in ("sam2", "sam2.1")
    for size, count in {
        "tiny": Count(31_440_721, 26_849_472, 369_664, 309),
        "small": Count(38_538_577, 33_947_328, 369_664, 357),
        "base-plus": Count(73_328_401, 68_675_712, 431_104, 453),
        "large": Count(216_924_865, 212_149_296, 553_984, 741),
    }.items()
}
PROMPT_ENCODER, MASK_DECODER = 6_220, 4_215_109  # of every size
# What a video checkpoint holds beside the image model, whatever its size: (parameters, tensors).
VIDEO_ONLY = {"2.0": (7_505_265, 157), "2.1": (7_521_777, 160)}
VIDEO_TOTALS = {  # of transformers' Sam2VideoModel
    "facebook/sam2-hiera-tiny": 38_945_986,
    "facebook/sam2-hiera-small": 46_043_842,
    "facebook/sam2-hiera-base-plus": 80_833_666,
    "facebook/sam2-hiera-large": 224_430_130,
    "facebook/sam2.1-hiera-tiny": 38_962_498,
    "facebook/sam2.1-hiera-small": 46_060_354,
    "facebook/sam2.1-hiera-base-plus": 80_850_178,
    "facebook/sam2.1-hiera-large": 224_446_642,
}

flax_shapes = lru_cache(parameter_shapes)  # 2.0 and 2.1 have the same network


def torch_shapes(model: str) -> Shapes:
    """Names and shapes in the transformers layout of a released model."""
    flat = flax_shapes(released_config(model))
    return names.shapes(names.to_torch({name: np.zeros(shape, np.uint8) for name, shape in flat.items()}))


def parameters(shapes: Shapes, prefix: str = "") -> int:
    """Number of parameters under a prefix, without the Fourier matrix."""
    return sum(
        math.prod(shape)
        for name, shape in shapes.items()
        if name.startswith(prefix) and not name.endswith("positional_embedding")
    )


@pytest.fixture(scope="module")
def tensors() -> names.Tensors:
    """Random tensors of a small network, in the transformers layout."""
    return random_tensors(small_config())


def read_shapes(reference_dir: Path, file: str) -> Shapes:
    table = json.loads((reference_dir / "spec" / file).read_text(encoding="utf-8"))
    return {name: tuple(shape) for name, shape in table.items()}


def test_every_released_model_has_a_golden_count() -> None:
    assert GOLDEN_COUNTS.keys() == VIDEO_TOTALS.keys() == RELEASED_MODELS.keys()


@pytest.mark.parametrize("model", GOLDEN_COUNTS)
def test_parameters_are_as_many_as_in_transformers(model: str) -> None:
    expected, shapes = GOLDEN_COUNTS[model], flax_shapes(released_config(model))
    assert parameters(shapes) == expected.total
    assert parameters(shapes, "vision_encoder.backbone.") == expected.backbone
    assert parameters(shapes, "vision_encoder.neck.") == expected.neck
    assert parameters(shapes, "prompt_encoder.") == PROMPT_ENCODER
    assert parameters(shapes, "mask_decoder.") == MASK_DECODER
    assert parameters(shapes, "no_memory_embedding") == 256


@pytest.mark.parametrize("model", GOLDEN_COUNTS)
def test_tensors_are_as_many_as_in_transformers(model: str) -> None:
    shapes = torch_shapes(model)
    assert len(shapes) == GOLDEN_COUNTS[model].tensors
    assert parameters(shapes) == GOLDEN_COUNTS[model].total
    assert shapes[names.FOURIER] == shapes[names.FOURIER_COPY] == (2, 128)


@pytest.mark.parametrize("model", VIDEO_TOTALS)
def test_a_video_checkpoint_is_the_image_model_and_what_is_its_own(model: str) -> None:
    version, _ = RELEASED_MODELS[model]
    assert GOLDEN_COUNTS[model].total + VIDEO_ONLY[version][0] == VIDEO_TOTALS[model]
    assert (
        parameters(names.torch_shapes(parameter_shapes(released_video_config(model)))) == VIDEO_TOTALS[model]
    )


def test_names_and_shapes_are_those_of_transformers(reference_dir: Path) -> None:
    assert torch_shapes("facebook/sam2.1-hiera-tiny") == read_shapes(
        reference_dir, "hf_image_tiny_shapes.json"
    )


@pytest.mark.parametrize("version", VIDEO_ONLY)
def test_a_video_checkpoint_falls_into_image_and_video_only_names(reference_dir: Path, version: str) -> None:
    image = torch_shapes("facebook/sam2.1-hiera-tiny")
    video = read_shapes(reference_dir, f"hf_video_{version}_tiny_shapes.json")
    own = {name: shape for name, shape in video.items() if names.is_video_only(name)}
    assert not image.keys() & own.keys()
    assert image | own == video
    assert (parameters(own), len(own)) == VIDEO_ONLY[version]


@pytest.mark.parametrize("version", VIDEO_ONLY)
def test_conversion_of_the_video_model_comes_back_bit_by_bit(reference_dir: Path, version: str) -> None:
    video = read_shapes(reference_dir, f"hf_video_{version}_tiny_shapes.json")
    rng = np.random.default_rng(0)
    tensors = {name: rng.integers(256, size=shape, dtype=np.uint8) for name, shape in video.items()}
    tensors[names.FOURIER_COPY] = tensors[names.FOURIER]
    back = names.to_torch(names.to_flax(tensors))
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)


@pytest.mark.parametrize("model", GOLDEN_COUNTS)
def test_flax_and_torch_names_are_each_others_inverse(model: str) -> None:
    for name, shape in flax_shapes(released_config(model)).items():
        assert names.flax_name(names.torch_name(name), len(shape)) == name
    for name, shape in torch_shapes(model).items():
        assert names.torch_name(names.flax_name(name, len(shape))) == name


@pytest.mark.parametrize(
    ("torch", "rank", "flax"),
    [
        (
            "vision_encoder.backbone.blocks.10.attn.qkv.weight",
            2,
            "vision_encoder.backbone.blocks_10.attn.qkv.kernel",
        ),
        (
            "vision_encoder.backbone.blocks.0.layer_norm1.weight",
            1,
            "vision_encoder.backbone.blocks_0.layer_norm1.scale",
        ),
        ("vision_encoder.backbone.pos_embed_window", 4, "vision_encoder.backbone.pos_embed_window"),
        ("vision_encoder.neck.convs.3.bias", 1, "vision_encoder.neck.convs_3.bias"),
        ("prompt_encoder.point_embed.weight", 2, "prompt_encoder.point_embed.embedding"),
        ("prompt_encoder.mask_embed.conv1.weight", 4, "prompt_encoder.mask_embed.conv1.kernel"),
        ("mask_decoder.obj_score_token.weight", 2, "mask_decoder.obj_score_token.embedding"),
        (
            "mask_decoder.output_hypernetworks_mlps.2.layers.0.weight",
            2,
            "mask_decoder.output_hypernetworks_mlps_2.layers_0.kernel",
        ),
        ("no_memory_embedding", 3, "no_memory_embedding"),
        (
            "memory_encoder.memory_fuser.layers.1.scale",
            1,
            "memory_encoder.memory_fuser.layers_1.layer_scale",
        ),
    ],
)
def test_names_that_show_the_rule(torch: str, rank: int, flax: str) -> None:
    assert names.flax_name(torch, rank) == flax
    assert names.torch_name(flax) == torch


def test_conversion_comes_back_bit_by_bit(tensors: names.Tensors) -> None:
    back = names.to_torch(names.to_flax(tensors))
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)
        assert back[name].flags.c_contiguous, f"{name}: safetensors writes memory as it lies"


def test_the_tree_comes_back_from_flat_names(tensors: names.Tensors) -> None:
    flat = names.to_flax(tensors)
    tree = names.unflatten(flat)
    assert tree["vision_encoder"]["backbone"]["blocks_0"]["attn"]["qkv"]["kernel"].shape == (16, 48)
    again = names.flatten(tree)
    assert again.keys() == flat.keys()
    assert all(again[name] is flat[name] for name in flat)


@pytest.mark.parametrize("kept", [names.FOURIER, names.FOURIER_COPY])
def test_one_copy_of_the_fourier_matrix_is_enough(tensors: names.Tensors, kept: str) -> None:
    (dropped,) = {names.FOURIER, names.FOURIER_COPY} - {kept}
    flat = names.to_flax({name: tensor for name, tensor in tensors.items() if name != dropped})
    assert flat.keys() == parameter_shapes(small_config()).keys()
    np.testing.assert_array_equal(flat[names.FOURIER], tensors[kept])


def test_copies_of_the_fourier_matrix_that_differ_are_refused(tensors: names.Tensors) -> None:
    differing = {**tensors, names.FOURIER_COPY: tensors[names.FOURIER_COPY] + 1}
    with pytest.raises(
        ValueError, match=r"shared_embedding\.positional_embedding must be equal and are not.*copy"
    ):
        names.to_flax(differing)


def test_equal_names_and_shapes_pass_the_check() -> None:
    names.check_names({"a.kernel": (2, 3)}, {"a.kernel": (2, 3)}, "checkpoint x")


def test_the_check_shows_missing_unexpected_and_other_shapes_side_by_side() -> None:
    expected = {"a.kernel": (2, 3), "b.bias": (4,), "same": (1,)}
    found = {"a.kernel": (3, 2), "c.scale": (5,), "same": (1,)}
    with pytest.raises(
        ValueError, match=r"^checkpoint x does not fit the configured network: 3 of 3"
    ) as error:
        names.check_names(expected, found, "checkpoint x")
    rows = [line.split("  ") for line in str(error.value).splitlines()[1:]]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["tensor", "expected", "found"],
        ["a.kernel", "(2, 3)", "(3, 2)"],
        ["b.bias", "(4,)", "-"],
        ["c.scale", "-", "(5,)"],
    ]
    assert "same" not in str(error.value)


def test_the_check_of_another_network_stays_readable() -> None:
    expected = {f"block_{i}": (i + 1,) for i in range(100)}
    with pytest.raises(ValueError, match=r"100 of 100 tensors are missing") as error:
        names.check_names(expected, {}, "checkpoint x")
    *_, last = str(error.value).splitlines()
    assert last.strip() == "... and 80 more"
