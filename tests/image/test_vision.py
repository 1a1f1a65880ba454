"""Sam2VisionModel and Sam2HieraDetModel by themselves: shapes, sizes, refusals, checkpoints."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_models import random_tensors, smallest_config

from sam2_jax import (
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2HieraDetModel,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2PromptEncoderConfig,
    Sam2VideoConfig,
    Sam2VisionConfig,
    Sam2VisionModel,
)
from sam2_jax.checkpoint import names

CONFIG = smallest_config()
PARTS = {Sam2VisionModel: "vision_encoder.", Sam2HieraDetModel: "vision_encoder.backbone."}
EITHER = pytest.mark.parametrize("kind", PARTS)

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def whole() -> Sam2Model:
    return Sam2Model(CONFIG, names.unflatten(names.to_flax(random_tensors(CONFIG))))


@pytest.fixture(scope="module")
def vision(whole: Sam2Model) -> Sam2VisionModel:
    return Sam2VisionModel(CONFIG.vision_config, whole.params["vision_encoder"])


@pytest.fixture(scope="module")
def backbone(whole: Sam2Model) -> Sam2HieraDetModel:
    params = whole.params["vision_encoder"]["backbone"]
    return Sam2HieraDetModel(CONFIG.vision_config.backbone_config, params)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(31).standard_normal((2, 64, 64, 3)).astype(np.float32)


def assert_params(model: Any, whole: Sam2Model) -> None:
    """Assert that a model holds its part of the whole's parameters, bit for bit."""
    prefix = PARTS[type(model)]
    expected = {n.removeprefix(prefix): x for n, x in names.flatten(whole.params).items() if prefix in n}
    found = names.flatten(model.params)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


# --- outputs


def test_vision_outputs(vision: Sam2VisionModel, pixels: np.ndarray) -> None:
    outputs = vision(pixels)
    assert tuple(outputs) == ("last_hidden_state", "fpn_hidden_states", "fpn_position_encoding")
    assert outputs.last_hidden_state.shape == (2, 2, 2, 64)
    for maps in (outputs.fpn_hidden_states, outputs.fpn_position_encoding):
        assert [x.shape for x in maps] == [(2, n, n, 16) for n in (16, 8, 4)]
    as_tuple = vision.forward(pixels, return_dict=False)
    assert isinstance(as_tuple, tuple)
    jax.tree.map(np.testing.assert_array_equal, as_tuple, outputs.to_tuple())


def test_backbone_outputs(backbone: Sam2HieraDetModel, pixels: np.ndarray) -> None:
    outputs = backbone(pixels)
    assert tuple(outputs) == ("last_hidden_state", "intermediate_hidden_states")
    stages = [(2, 16, 16, 8), (2, 8, 8, 16), (2, 4, 4, 32), (2, 2, 2, 64)]
    assert [x.shape for x in outputs.intermediate_hidden_states] == stages
    np.testing.assert_array_equal(outputs.last_hidden_state, outputs.intermediate_hidden_states[-1])
    assert len(backbone.forward(pixels, return_dict=False)) == 2


def test_what_is_recorded_on_request(
    vision: Sam2VisionModel, backbone: Sam2HieraDetModel, pixels: np.ndarray
) -> None:
    for model in (vision, backbone):
        outputs = model(pixels, output_hidden_states=True, output_attentions=True)
        assert len(outputs.hidden_states) == 5 + 1
        np.testing.assert_allclose(outputs.hidden_states[-1], outputs.last_hidden_state, atol=1e-6)
        assert len(outputs.attentions) == 5
        for weights in outputs.attentions:
            np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
        assert len(model(pixels, return_dict=False, output_hidden_states=True)) == len(outputs) - 1


def test_a_bfloat16_model_computes_in_bfloat16(vision: Sam2VisionModel, pixels: np.ndarray) -> None:
    outputs = Sam2VisionModel(vision.config, vision.params, dtype=jnp.bfloat16)(pixels)
    kinds = [x.dtype for x in (outputs.last_hidden_state, *outputs.fpn_hidden_states)]
    assert set(kinds) == {jnp.dtype(jnp.bfloat16)}
    assert {x.dtype for x in outputs.fpn_position_encoding} == {jnp.dtype(jnp.float32)}


def test_any_multiple_of_the_stride_will_do(vision: Sam2VisionModel, backbone: Sam2HieraDetModel) -> None:
    assert backbone.config.stride == (32, 32)
    for model in (vision, backbone):
        assert model(np.ones((1, 32, 96, 3), np.float32)).last_hidden_state.shape == (1, 1, 3, 64)


# --- refusals


@pytest.mark.parametrize(
    ("pixel_values", "message"),
    [
        (None, r"pixel_values must be given: the processor makes them"),
        (
            np.zeros((1, 64, 48, 3), np.float32),
            r"height and width divisible by the backbone's stride \(32, 32\); got \(1, 64, 48, 3\): resize",
        ),
        (
            np.zeros((1, 3, 64, 64), np.float32),
            r"\(batch, height, width, 3\); got \(1, 3, 64, 64\): this looks like channels first",
        ),
        (np.zeros((64, 64, 3), np.float32), r"got \(64, 64, 3\): one image is a batch of one"),
        (np.zeros((0, 64, 64, 3), np.float32), r"got \(0, 64, 64, 3\)"),
        (np.zeros((1, 0, 64, 3), np.float32), r"got \(1, 0, 64, 3\)"),
        (np.zeros((1, 64, 64, 3), np.uint8), r"normalised, floating point; got uint8"),
        (np.full((1, 64, 64, 3), np.inf, np.float32), r"pixel_values must be finite numbers"),
        ([np.zeros((64, 64, 3)), np.zeros((64, 32, 3))], r"pixel_values must be one array"),
    ],
)
def test_defect_9a11_pixels_that_do_not_fit_are_named(
    vision: Sam2VisionModel, backbone: Sam2HieraDetModel, pixel_values: Any, message: str
) -> None:
    for model in (vision, backbone):
        with pytest.raises(ValueError, match=message):
            model(pixel_values)


@EITHER
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": CONFIG}, r"config must be a Sam2\w+ or None; got Sam2Config.*from_pretrained"),
        ({"config": "facebook/sam2.1-hiera-tiny"}, r"config must be a Sam2\w+ or None; got str"),
        ({"dtype": jnp.float16}, r"dtype must be float32 or bfloat16"),
        ({"param_dtype": "int32"}, r"param_dtype must be float32 or bfloat16; got 'int32'"),
        ({"params": {}}, r"params does not fit the configured network"),
    ],
)
def test_unknown_options_are_refused(kind: Callable[..., Any], options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**{"params": {}, **options})


# --- configurations


def test_defect_9a12_configurations_are_positional_and_take_tuples(pixels: np.ndarray) -> None:
    as_tuples = Sam2HieraDetConfig(
        8,
        embed_dim_per_stage=(8, 16, 32, 64),
        num_attention_heads_per_stage=(1, 1, 2, 2),
        blocks_per_stage=(1, 1, 2, 1),
        window_size_per_stage=(8, 4, 6, 3),
        global_attention_blocks=(3,),
        image_size=(64, 64),
    )
    assert as_tuples == CONFIG.vision_config.backbone_config
    vision = Sam2VisionConfig(as_tuples, (64, 32, 16, 8), ((16, 16), (8, 8), (4, 4)), 16)
    prompt, decoder = Sam2PromptEncoderConfig(16, 64), Sam2MaskDecoderConfig(16, mlp_dim=32)
    assert Sam2Config(vision, prompt, decoder).vision_config is vision
    model = Sam2VisionModel(vision)
    assert model.config is vision
    assert jnp.isfinite(model(pixels).last_hidden_state).all()


def test_none_stands_for_the_documented_default_of_a_sequence() -> None:
    nothing = dict.fromkeys(("image_size", "patch_stride", "blocks_per_stage", "global_attention_blocks"))
    assert Sam2HieraDetConfig(**nothing) == Sam2HieraDetConfig()
    assert Sam2VisionConfig(None, None, None, fpn_top_down_levels=None) == Sam2VisionConfig()


# --- checkpoints


@EITHER
@pytest.mark.parametrize("layout", ["flax", "transformers"])
def test_the_part_of_a_whole_checkpoint_is_loaded(
    kind: type, layout: str, whole: Sam2Model, tmp_path: Path
) -> None:
    whole.save_pretrained(tmp_path, layout=layout)
    model = kind.from_pretrained(tmp_path)
    assert_params(model, whole)
    assert type(model.config).__name__ in {"Sam2VisionConfig", "Sam2HieraDetConfig"}


@EITHER
def test_the_part_of_a_video_checkpoint_is_loaded(kind: type, whole: Sam2Model, tmp_path: Path) -> None:
    whole.save_pretrained(tmp_path, layout="transformers")
    config = Sam2VideoConfig.from_dict(whole.config.to_dict() | {"model_type": "sam2_video"})
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    weights = tmp_path / "model.safetensors"
    save_file(load_file(weights) | {"no_object_pointer": np.zeros((1, 16), np.float32)}, weights)
    assert_params(kind.from_pretrained(tmp_path), whole)


@EITHER
@pytest.mark.parametrize("layout", ["flax", "transformers"])
def test_what_was_saved_is_loaded_bit_for_bit(
    kind: type, layout: str, whole: Sam2Model, tmp_path: Path
) -> None:
    whole.save_pretrained(tmp_path / "whole")
    part = kind.from_pretrained(tmp_path / "whole")
    part.save_pretrained(tmp_path / "part", layout=layout)
    again = kind.from_pretrained(tmp_path / "part")
    assert again.config == part.config
    assert_params(again, whole)
    described = json.loads((tmp_path / "part" / "config.json").read_text())
    assert described["architectures"] == [kind.__name__]
    assert described["model_type"] == part.config.model_type


def test_the_backbone_of_a_saved_vision_model_is_loaded(
    vision: Sam2VisionModel, whole: Sam2Model, tmp_path: Path
) -> None:
    vision.save_pretrained(tmp_path)
    assert_params(Sam2HieraDetModel.from_pretrained(tmp_path), whole)


def test_a_part_is_not_taken_for_the_whole(
    vision: Sam2VisionModel, backbone: Sam2HieraDetModel, tmp_path: Path
) -> None:
    vision.save_pretrained(tmp_path / "vision")
    backbone.save_pretrained(tmp_path / "backbone")
    with pytest.raises(ValueError, match=r"one of \['sam2', 'sam2_video'\]; got 'sam2_vision_model'"):
        Sam2Model.from_pretrained(tmp_path / "vision")
    with pytest.raises(ValueError, match=r"'sam2_vision_model'\]; got 'sam2_hiera_det_model'"):
        Sam2VisionModel.from_pretrained(tmp_path / "backbone")


@EITHER
def test_missing_tensors_are_named_as_the_file_names_them(
    kind: type, whole: Sam2Model, tmp_path: Path
) -> None:
    whole.save_pretrained(tmp_path, layout="transformers")
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["vision_encoder.backbone.blocks.1.attn.qkv.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"vision_encoder\.backbone\.blocks\.1\.attn\.qkv\.weight .*-"):
        kind.from_pretrained(tmp_path)


@EITHER
def test_options_of_loading_are_those_of_the_whole_model(
    kind: type, whole: Sam2Model, tmp_path: Path
) -> None:
    whole.save_pretrained(tmp_path)
    model = kind.from_pretrained(tmp_path, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, layout="flax")
    assert {x.dtype for x in jax.tree.leaves(model.params)} == {jnp.dtype(jnp.bfloat16)}
    with pytest.raises(ValueError, match="dtype must be float32 or bfloat16; got 'foo'"):
        kind.from_pretrained("facebook/sam2.1-hiera-tiny", dtype="foo")  # before anything is downloaded
