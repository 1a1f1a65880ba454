"""Configurations: documented defaults, ways to build and write one, released sizes, readable refusals."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam2_jax import (
    RELEASED_MODELS,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2PromptEncoderConfig,
    Sam2VideoConfig,
    Sam2VisionConfig,
    released_config,
)
from sam2_jax.config import read_config, released_video_config

DEFAULTS: dict[type, dict[str, Any]] = {
    Sam2HieraDetConfig: {
        "hidden_size": 96,
        "num_attention_heads": 1,
        "num_channels": 3,
        "image_size": [1024, 1024],
        "patch_kernel_size": [7, 7],
        "patch_stride": [4, 4],
        "patch_padding": [3, 3],
        "query_stride": [2, 2],
        "window_positional_embedding_background_size": [7, 7],
        "num_query_pool_stages": 3,
        "blocks_per_stage": [1, 2, 7, 2],
        "embed_dim_per_stage": [96, 192, 384, 768],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 14, 7],
        "global_attention_blocks": [5, 7, 9],
        "mlp_ratio": 4.0,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "initializer_range": 0.02,
        "model_type": "sam2_hiera_det_model",
    },
    Sam2VisionConfig: {
        "backbone_channel_list": [768, 384, 192, 96],
        "backbone_feature_sizes": [[256, 256], [128, 128], [64, 64]],
        "fpn_hidden_size": 256,
        "fpn_kernel_size": 1,
        "fpn_stride": 1,
        "fpn_padding": 0,
        "fpn_top_down_levels": [2, 3],
        "num_feature_levels": 3,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "initializer_range": 0.02,
        "model_type": "sam2_vision_model",
    },
    Sam2PromptEncoderConfig: {
        "hidden_size": 256,
        "image_size": 1024,
        "patch_size": 16,
        "mask_input_channels": 16,
        "num_point_embeddings": 4,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "scale": 1,
        "model_type": "sam2_prompt_encoder",
    },
    Sam2MaskDecoderConfig: {
        "hidden_size": 256,
        "hidden_act": "gelu",
        "mlp_dim": 2048,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "attention_downsample_rate": 2,
        "num_multimask_outputs": 3,
        "iou_head_depth": 3,
        "iou_head_hidden_dim": 256,
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
        "model_type": "sam2_mask_decoder",
    },
    Sam2Config: {"initializer_range": 0.02, "model_type": "sam2"},
}
PARTS = {"backbone_config", "vision_config", "prompt_encoder_config", "mask_decoder_config"}


@pytest.mark.parametrize("cls", DEFAULTS)
def test_defaults_are_the_documented_ones(cls: type) -> None:
    assert {name: value for name, value in cls().to_dict().items() if name not in PARTS} == DEFAULTS[cls]


def test_parts_left_out_are_defaults() -> None:
    assert Sam2Config().vision_config == Sam2VisionConfig()
    assert Sam2Config(None, None, None) == Sam2Config()
    assert Sam2VisionConfig().backbone_config == Sam2HieraDetConfig()


def test_video_defaults_are_those_of_sam_2_1() -> None:
    config = Sam2VideoConfig()
    assert (config.num_maskmem, config.image_size, config.max_object_pointers_in_encoder) == (7, 1024, 16)
    assert config.enable_occlusion_spatial_embedding
    assert config.enable_temporal_pos_encoding_for_object_pointers
    assert config.rope_parameters == {"rope_theta": 10000.0, "rope_type": "axial"}
    assert config.image_config == Sam2Config()


def test_parts_are_given_by_position_or_keyword_as_objects_or_dictionaries() -> None:
    vision, prompt, decoder = (
        Sam2VisionConfig(),
        Sam2PromptEncoderConfig(scale=2),
        Sam2MaskDecoderConfig(mlp_dim=64),
    )
    by_position = Sam2Config(vision, prompt, decoder)
    by_keyword = Sam2Config(mask_decoder_config=decoder, prompt_encoder_config=prompt, vision_config=vision)
    by_dictionary = Sam2Config({}, {"scale": 2}, {"mlp_dim": 64})
    assert by_position == by_keyword == by_dictionary
    assert by_position.mask_decoder_config.mlp_dim == 64


def test_tuples_and_lists_are_the_same_and_hashable() -> None:
    lists = Sam2HieraDetConfig(image_size=[512, 512], global_attention_blocks=[5, 7])
    tuples = Sam2HieraDetConfig(image_size=(512, 512), global_attention_blocks=(5, 7))
    assert lists == tuples
    assert hash(lists) == hash(tuples)
    sizes = Sam2VisionConfig(backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]])
    assert sizes.backbone_feature_sizes == ((32, 32), (16, 16), (8, 8))
    assert len({Sam2Config(), Sam2Config(initializer_range=0.03), Sam2Config({})}) == 2
    assert hash(Sam2VideoConfig()) == hash(Sam2VideoConfig())


def test_configurations_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Sam2Config().initializer_range = 1.0


def test_dictionaries_hold_json_and_come_back() -> None:
    for config in (Sam2Config(), Sam2VideoConfig(), released_config("facebook/sam2-hiera-large")):
        values = json.loads(json.dumps(config.to_dict()))
        assert values == config.to_dict()
        assert type(config).from_dict(values) == config


def test_another_image_size_changes_what_depends_on_it() -> None:
    config = Sam2Config().with_image_size((512, 768))
    assert config.image_size == (512, 768)
    assert config.prompt_encoder_config.image_size == (512, 768)
    assert config.vision_config.backbone_config.image_size == (512, 768)
    assert config.vision_config.backbone_feature_sizes == ((128, 192), (64, 96), (32, 48))
    assert config.mask_decoder_config == Sam2Config().mask_decoder_config
    assert config.with_image_size(1024) == Sam2Config()
    assert Sam2Config().with_image_size(512).prompt_encoder_config.image_size == 512


@pytest.mark.parametrize(
    ("windows", "stride"), [((8, 4, 14, 7), (32, 32)), ((16, 4, 14, 7), (64, 64)), ((2, 4, 14, 7), (32, 32))]
)
def test_stride_covers_halvings_and_windows(windows: tuple[int, ...], stride: tuple[int, int]) -> None:
    backbone = Sam2HieraDetConfig(window_size_per_stage=windows)
    assert Sam2Config(Sam2VisionConfig(backbone)).stride == stride
    assert backbone.stage_ends == (0, 2, 9, 11)


# What the sizes say where tiny says something else.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"blocks_per_stage": (1, 2, 11, 2), "global_attention_blocks": (7, 10, 13)},
    "base-plus": {
        "hidden_size": 112,
        "embed_dim_per_stage": (112, 224, 448, 896),
        "num_attention_heads_per_stage": (2, 4, 8, 16),
        "blocks_per_stage": (2, 3, 16, 3),
        "global_attention_blocks": (12, 16, 20),
        "window_positional_embedding_background_size": (14, 14),
    },
    "large": {
        "hidden_size": 144,
        "embed_dim_per_stage": (144, 288, 576, 1152),
        "num_attention_heads_per_stage": (2, 4, 8, 16),
        "blocks_per_stage": (2, 6, 36, 4),
        "global_attention_blocks": (23, 33, 43),
        "window_size_per_stage": (8, 4, 16, 8),
    },
}


@pytest.mark.parametrize("model", RELEASED_MODELS)
def test_released_models_differ_in_what_differs_and_nothing_else(model: str) -> None:
    version, size = RELEASED_MODELS[model]
    assert model == f"facebook/sam2{'.1' if version == '2.1' else ''}-hiera-{size}"
    config, tiny = released_config(model), Sam2Config()
    backbone = config.vision_config.backbone_config
    differing = {
        f.name: getattr(backbone, f.name)
        for f in fields(backbone)
        if getattr(backbone, f.name) != getattr(Sam2HieraDetConfig(), f.name)
    }
    assert differing == SIZES[size]
    channels = tuple(reversed(backbone.embed_dim_per_stage))
    assert config.vision_config == replace(
        tiny.vision_config, backbone_config=backbone, backbone_channel_list=channels
    )
    assert config == replace(tiny, vision_config=config.vision_config)


def test_all_four_sizes_of_both_versions_are_released() -> None:
    assert sorted(RELEASED_MODELS.values()) == sorted((v, s) for v in ("2.0", "2.1") for s in SIZES)


@pytest.mark.parametrize("size", SIZES)
def test_sam_2_0_lacks_two_things_of_2_1(size: str) -> None:
    new = released_video_config(f"facebook/sam2.1-hiera-{size}")
    old = released_video_config(f"facebook/sam2-hiera-{size}")
    assert old == replace(
        new,
        enable_occlusion_spatial_embedding=False,
        enable_temporal_pos_encoding_for_object_pointers=False,
    )
    assert old.image_config == new.image_config


def test_an_unknown_model_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"unknown model 'sam3'; the released models are facebook/sam2\.1-hiera-tiny"
    ):
        released_config("sam3")


TWO_STAGES = {
    "hidden_size": 16,
    "blocks_per_stage": [1, 1],
    "embed_dim_per_stage": [16, 32],
    "num_attention_heads_per_stage": [1, 2],
    "window_size_per_stage": [8, 4],
    "num_query_pool_stages": 1,
    "global_attention_blocks": [],
}
WRONG: list[tuple[type, dict[str, Any], str]] = [
    (Sam2HieraDetConfig, {"hidden_size": 0}, r"hidden_size must be a positive integer; got 0"),
    (Sam2HieraDetConfig, {"hidden_size": 96.0}, r"hidden_size must be a positive integer; got 96\.0"),
    (Sam2HieraDetConfig, {"hidden_size": True}, r"hidden_size must be a positive integer; got True"),
    (Sam2HieraDetConfig, {"hidden_size": 48}, r"hidden_size must be embed_dim_per_stage\[0\] \(96\); got 48"),
    (Sam2HieraDetConfig, {"num_channels": -3}, r"num_channels must be a positive integer; got -3"),
    (
        Sam2HieraDetConfig,
        {"patch_stride": [4]},
        r"patch_stride must be a sequence of 2 integers, each at least 1",
    ),
    (
        Sam2HieraDetConfig,
        {"patch_kernel_size": 7.0},
        r"patch_kernel_size must be a sequence of 2 integers.*got 7",
    ),
    (
        Sam2HieraDetConfig,
        {"patch_padding": [-1, 3]},
        r"patch_padding must be a sequence of 2 integers, each at least 0",
    ),
    (Sam2HieraDetConfig, {"image_size": ["a", "b"]}, r"image_size must be a sequence of 2 integers"),
    (Sam2HieraDetConfig, {"query_stride": [2, 4]}, r"query_stride must be \(2, 2\); got \(2, 4\)"),
    (
        Sam2HieraDetConfig,
        {"window_positional_embedding_background_size": [7, 7, 7]},
        r"background_size must be a sequence of 2 integers.*got \(7, 7, 7\)",
    ),
    (
        Sam2HieraDetConfig,
        {"blocks_per_stage": 12},
        r"blocks_per_stage must be a sequence of integers.*got 12",
    ),
    (Sam2HieraDetConfig, {"blocks_per_stage": [1, 2, 0, 2]}, r"blocks_per_stage must be .*each at least 1"),
    (
        Sam2HieraDetConfig,
        {"embed_dim_per_stage": [96, 192]},
        r"embed_dim_per_stage must be a sequence of 4 integers",
    ),
    (
        Sam2HieraDetConfig,
        {"num_attention_heads_per_stage": [1, 2, 4, 7]},
        r"embed_dim_per_stage must be divisible by num_attention_heads_per_stage \(1, 2, 4, 7\)",
    ),
    (
        Sam2HieraDetConfig,
        {"window_size_per_stage": [7, 4, 14, 7]},
        r"window_size_per_stage must be even in all",
    ),
    (
        Sam2HieraDetConfig,
        {"global_attention_blocks": [5, 12]},
        r"global_attention_blocks must be .* below 12",
    ),
    (Sam2HieraDetConfig, {"global_attention_blocks": [-1]}, r"global_attention_blocks must be .*at least 0"),
    (
        Sam2HieraDetConfig,
        {"num_query_pool_stages": 2},
        r"num_query_pool_stages must be 3: the network halves",
    ),
    (Sam2HieraDetConfig, {"mlp_ratio": 0}, r"mlp_ratio must be positive; got 0"),
    (Sam2HieraDetConfig, {"mlp_ratio": "4"}, r"mlp_ratio must be a number, at least 0; got '4'"),
    (
        Sam2HieraDetConfig,
        {"layer_norm_eps": float("nan")},
        r"layer_norm_eps must be a number, at least 0; got nan",
    ),
    (Sam2HieraDetConfig, {"initializer_range": None}, r"initializer_range must be a number"),
    (Sam2HieraDetConfig, {"hidden_act": "relu"}, r"hidden_act must be 'gelu'; got 'relu'"),
    (
        Sam2VisionConfig,
        {"backbone_config": 3},
        r"backbone_config must be a Sam2HieraDetConfig, a dictionary or None",
    ),
    (Sam2VisionConfig, {"fpn_hidden_size": 0}, r"fpn_hidden_size must be a positive integer"),
    (
        Sam2VisionConfig,
        {"backbone_channel_list": [96, 192, 384, 768]},
        r"deep to shallow, \(768, 384, 192, 96\)",
    ),
    (
        Sam2VisionConfig,
        {"backbone_config": TWO_STAGES, "backbone_channel_list": [32, 16]},
        r"backbone_channel_list must be of 3 stages at least",
    ),
    (Sam2VisionConfig, {"fpn_top_down_levels": [-1]}, r"fpn_top_down_levels must be a sequence of integers"),
    (
        Sam2VisionConfig,
        {"fpn_kernel_size": 3},
        r"fpn_kernel_size must be 1 with fpn_stride 1 and fpn_padding 0",
    ),
    (Sam2VisionConfig, {"fpn_padding": 1}, r"fpn_kernel_size must be 1 with fpn_stride 1 and fpn_padding 0"),
    (Sam2VisionConfig, {"num_feature_levels": 4}, r"num_feature_levels must be 3: the mask decoder reads"),
    (Sam2PromptEncoderConfig, {"hidden_size": 255}, r"hidden_size must be even"),
    (Sam2PromptEncoderConfig, {"image_size": 0}, r"image_size must be a positive integer"),
    (Sam2PromptEncoderConfig, {"image_size": (64, 64, 3)}, r"image_size must be a sequence of 2 integers"),
    (Sam2PromptEncoderConfig, {"patch_size": 0}, r"patch_size must be a positive integer"),
    (
        Sam2PromptEncoderConfig,
        {"mask_input_channels": 6},
        r"mask_input_channels must be divisible by 4; got 6",
    ),
    (
        Sam2PromptEncoderConfig,
        {"num_point_embeddings": 5},
        r"num_point_embeddings must be 4: negative, positive",
    ),
    (Sam2PromptEncoderConfig, {"scale": "1"}, r"scale must be a number"),
    (Sam2PromptEncoderConfig, {"hidden_act": "relu"}, r"hidden_act must be 'gelu'"),
    (Sam2MaskDecoderConfig, {"mlp_dim": 0}, r"mlp_dim must be a positive integer"),
    (Sam2MaskDecoderConfig, {"hidden_size": 100}, r"hidden_size must be divisible by 8"),
    (
        Sam2MaskDecoderConfig,
        {"num_attention_heads": 3},
        r"num_attention_heads must be a divisor of .* 128; got 3",
    ),
    (Sam2MaskDecoderConfig, {"num_hidden_layers": 1}, r"num_hidden_layers must be at least 2"),
    (Sam2MaskDecoderConfig, {"iou_head_depth": 1}, r"iou_head_depth must be at least 2"),
    (
        Sam2MaskDecoderConfig,
        {"num_multimask_outputs": 0},
        r"num_multimask_outputs must be a positive integer",
    ),
    (
        Sam2Config,
        {"vision_config": "tiny"},
        r"vision_config must be a Sam2VisionConfig, a dictionary or None",
    ),
    (Sam2Config, {"mask_decoder_config": {"hidden_size": 128}}, r"must be equal; got \[128, 256\]"),
    (
        Sam2Config,
        {"prompt_encoder_config": {"patch_size": 8}},
        r"patch_size must be the stride .*\(4, 4\); got 8",
    ),
    (
        Sam2Config,
        {"prompt_encoder_config": {"image_size": 1000}},
        r"divisible by .*\(32, 32\); got 1000x1000",
    ),
    (Sam2VideoConfig, {"num_maskmem": 0}, r"num_maskmem must be a positive integer"),
]


@pytest.mark.parametrize("size", [None, 128.0, "large", (1, 2, 3), True, 0, -32, 7, 100, (64, 48), 2**40])
def test_an_image_size_that_cannot_be_meant_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match="image_size must be a whole number or .*, multiples of 32 up to"):
        Sam2Config().with_image_size(size)


def test_numpy_integers_are_sizes_too() -> None:
    for size in (np.int64(128), np.array([128, 128])):
        assert Sam2Config().with_image_size(size) == Sam2Config().with_image_size(128)


def test_a_first_window_that_is_no_power_of_two_widens_the_stride() -> None:
    backbone = Sam2HieraDetConfig(window_size_per_stage=(6, 4, 14, 7))
    vision = Sam2VisionConfig(backbone)
    with pytest.raises(ValueError, match=r"divisible by the network's stride .96, 96.; got 1024x1024"):
        Sam2Config(vision)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patch_padding": (0, 0)}, "patch_padding must be such that"),
        ({"patch_padding": (9, 9)}, "patch_padding must be such that"),
        ({"embed_dim_per_stage": (96, 96, 384, 768)}, "embed_dim_per_stage must be other in each stage"),
    ],
)
def test_a_backbone_that_cannot_run_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sam2HieraDetConfig(**values)


def test_a_pyramid_level_beyond_the_stages_is_refused() -> None:
    with pytest.raises(ValueError, match="fpn_top_down_levels must be levels below 4"):
        Sam2VisionConfig(fpn_top_down_levels=(2, 4))


@pytest.mark.parametrize(("cls", "values", "message"), WRONG)
def test_a_wrong_value_is_refused_with_a_message(cls: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**values)


def write(folder: Path, values: Any) -> Path:
    path = folder / "config.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "config", [Sam2Config(), Sam2Config().with_image_size((512, 256)), Sam2VideoConfig()]
)
def test_config_json_comes_back(tmp_path: Path, config: Sam2Config | Sam2VideoConfig) -> None:
    assert read_config(write(tmp_path, config.to_dict())) == config


def test_general_purpose_keys_of_transformers_pass(tmp_path: Path) -> None:
    general = {
        "id2label": {"0": "LABEL_0"},
        "torch_dtype": "float32",
        "transformers_version": "5.23.0",
        "tie": 1,
    }
    values = Sam2Config().to_dict() | general
    values["vision_config"] |= general
    values["vision_config"]["backbone_config"] |= general
    assert read_config(write(tmp_path, values)) == Sam2Config()


def test_older_video_files_name_the_rotary_base_otherwise(tmp_path: Path) -> None:
    values = Sam2VideoConfig().to_dict() | {"memory_attention_rope_theta": 500.0}
    del values["rope_parameters"]
    config = read_config(write(tmp_path, values))
    assert config.rope_parameters == {"rope_theta": 500.0, "rope_type": "axial"}


def test_parts_without_a_model_type_are_read(tmp_path: Path) -> None:
    values = Sam2VideoConfig().to_dict()
    values["prompt_encoder_config"]["model_type"] = ""
    del values["mask_decoder_config"]["model_type"]
    assert read_config(write(tmp_path, values)) == Sam2VideoConfig()


def test_a_misspelt_key_is_not_passed_over(tmp_path: Path) -> None:
    values = Sam2Config().to_dict()
    values["vision_config"]["backbone_config"]["block_per_stage"] = [1, 2, 11, 2]
    path = write(tmp_path, values)
    with pytest.raises(
        ValueError, match=r"has no field 'block_per_stage'; did you mean 'blocks_per_stage'"
    ) as error:
        read_config(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "not json", "\ufeff{}"])
def test_what_is_not_json_is_refused_by_file_name(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON \(.*download it again"):
        read_config(path)


def test_what_is_not_text_is_refused_by_file_name(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        read_config(path)


@pytest.mark.parametrize("values", [{"model_type": "sam"}, {}, [], "text", {"model_type": ["sam2"]}])
def test_another_model_is_refused_with_what_is_expected(tmp_path: Path, values: Any) -> None:
    path = write(tmp_path, json.dumps(values))
    with pytest.raises(
        ValueError, match=r"config\.json: model_type must be one of \['sam2', 'sam2_video'\]; got"
    ):
        read_config(path)


@pytest.mark.parametrize("stated", ["sam_prompt_encoder", "sam2_mask_decoder", 3])
def test_a_part_of_another_model_is_refused(tmp_path: Path, stated: Any) -> None:
    values = Sam2Config().to_dict()
    values["prompt_encoder_config"]["model_type"] = stated
    with pytest.raises(ValueError, match=rf"expects model_type 'sam2_prompt_encoder'; got {stated!r}"):
        read_config(write(tmp_path, values))


def test_a_wrong_value_in_a_file_is_refused_by_file_name(tmp_path: Path) -> None:
    values = Sam2Config().to_dict()
    values["mask_decoder_config"]["mlp_dim"] = -1
    with pytest.raises(
        ValueError, match=r"config\.json: Sam2MaskDecoderConfig\.mlp_dim must be a positive integer"
    ):
        read_config(write(tmp_path, values))


@pytest.fixture(scope="module")
def transformers() -> Any:
    pytest.importorskip("torch", reason="transformers' configurations need torch")
    return pytest.importorskip("transformers", reason="compares with transformers' configurations")


OURS_AND_THEIRS = [
    (Sam2Config(), "Sam2Config"),
    (Sam2VideoConfig(), "Sam2VideoConfig"),
    (released_config("facebook/sam2.1-hiera-large"), "Sam2Config"),
    (released_video_config("facebook/sam2-hiera-base-plus"), "Sam2VideoConfig"),
    (Sam2Config().with_image_size((512, 256)), "Sam2Config"),
]


@pytest.mark.parametrize(("ours", "name"), OURS_AND_THEIRS)
def test_transformers_reads_ours(transformers: Any, ours: Any, name: str, tmp_path: Path) -> None:
    theirs = getattr(transformers, name)(**ours.to_dict()).to_dict()
    assert subset(theirs, ours.to_dict()) == ours.to_dict()
    write(tmp_path, ours.to_dict())
    read = transformers.AutoConfig.from_pretrained(tmp_path)
    assert type(read).__name__ == name
    assert subset(read.to_dict(), ours.to_dict()) == ours.to_dict()


@pytest.mark.parametrize(("ours", "name"), OURS_AND_THEIRS)
def test_we_read_what_transformers_saves(transformers: Any, ours: Any, name: str, tmp_path: Path) -> None:
    getattr(transformers, name)(**ours.to_dict()).save_pretrained(tmp_path)
    assert read_config(tmp_path / "config.json") == ours


@pytest.mark.parametrize(("cls"), [*DEFAULTS, Sam2VideoConfig])
def test_defaults_are_those_of_transformers(transformers: Any, cls: type) -> None:
    theirs = getattr(transformers, cls.__name__)().to_dict()
    assert cls.from_dict(theirs) == cls()
    assert subset(theirs, cls().to_dict()) == cls().to_dict()


def subset(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """The part of transformers' dictionary that we have fields for; its other keys are general-purpose."""
    return {
        name: subset(theirs[name], value) if name in PARTS else theirs[name]
        for name, value in ours.items()
        if name in theirs
    }
