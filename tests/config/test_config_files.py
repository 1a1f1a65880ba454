"""Configurations into files and out, whole and in part, as transformers' classes do it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_models import smallest_config

from sam2_jax import Sam2Config, Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig
from sam2_jax.config import Sam2MaskDecoderConfig, Sam2PromptEncoderConfig

SMALL = smallest_config()
VIDEO = Sam2VideoConfig.from_dict(SMALL.to_dict() | {"model_type": "sam2_video"})
PARTS = [
    SMALL,
    SMALL.vision_config,
    SMALL.vision_config.backbone_config,
    SMALL.prompt_encoder_config,
    SMALL.mask_decoder_config,
    VIDEO,
]


@pytest.mark.parametrize("config", PARTS, ids=lambda config: type(config).__name__)
def test_what_was_saved_comes_back(config: Any, tmp_path: Path) -> None:
    kind = type(config)
    config.save_pretrained(tmp_path / "new")
    assert kind.from_pretrained(tmp_path / "new") == config
    assert kind.from_json_file(tmp_path / "new" / "config.json") == config
    assert json.loads(config.to_json_string()) == config.to_dict()
    config.to_json_file(tmp_path / "x.json")
    assert kind.from_json_file(tmp_path / "x.json") == config
    differing = json.loads(config.to_json_string(use_diff=True))
    assert kind.from_dict(differing) == config
    assert json.loads(kind().to_json_string(use_diff=True)) == {"model_type": kind.model_type}


@pytest.mark.parametrize("config", PARTS[:-1], ids=lambda config: type(config).__name__)
@pytest.mark.parametrize("whole", [SMALL, VIDEO], ids=["image", "video"])
def test_a_part_is_read_out_of_the_whole(config: Any, whole: Any, tmp_path: Path) -> None:
    whole.save_pretrained(tmp_path)
    assert type(config).from_pretrained(tmp_path) == config


def test_fields_given_replace_what_the_file_says(tmp_path: Path) -> None:
    SMALL.save_pretrained(tmp_path)
    found = Sam2MaskDecoderConfig.from_pretrained(tmp_path, mlp_dim=24, local_files_only=True)
    assert found == replace(SMALL.mask_decoder_config, mlp_dim=24)
    assert Sam2HieraDetConfig.from_pretrained("embedded").image_size == (384, 384)
    assert Sam2Config.from_pretrained(pretrained_model_name_or_path=tmp_path, trust_remote_code=True) == SMALL
    assert Sam2MaskDecoderConfig.from_dict(found.to_dict(), mlp_dim=8).mlp_dim == 8
    with pytest.raises(
        ValueError, match=r"'mlp_dims' of Sam2MaskDecoderConfig.from_dict: did you mean mlp_d"
    ):
        Sam2MaskDecoderConfig.from_dict(found.to_dict(), mlp_dims=8)
    with pytest.raises(ValueError, match="model must be given, once"):
        Sam2Config.from_pretrained()
    with pytest.raises(ValueError, match=r"'mlp_dims' of Sam2MaskDecoderConfig.*did you mean mlp_dim"):
        Sam2MaskDecoderConfig.from_pretrained("no/where", mlp_dims=24)  # before anything is fetched
    with pytest.raises(ValueError, match=r"model_type must be one of \['sam2_video'\]; got 'sam2'"):
        Sam2VideoConfig.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no file config.json"):
        Sam2Config.from_pretrained(tmp_path.parent)


def test_null_stands_for_the_default(tmp_path: Path) -> None:
    for kind in (Sam2Config, Sam2VideoConfig, Sam2HieraDetConfig, Sam2VisionConfig, Sam2PromptEncoderConfig):
        nothing = dict.fromkeys(kind.field_names())
        (tmp_path / "x.json").write_text(json.dumps(nothing | {"model_type": kind.model_type}))
        assert kind.from_json_file(tmp_path / "x.json") == kind()


def test_one_number_stands_for_height_and_width() -> None:
    numbers = {"patch_kernel_size": 7, "patch_stride": 4, "patch_padding": 3, "query_stride": 2}
    assert Sam2HieraDetConfig(**numbers, image_size=1024) == Sam2HieraDetConfig()
    assert Sam2PromptEncoderConfig(patch_size=[16, 16]) == Sam2PromptEncoderConfig()
    assert Sam2Config({"backbone_config": numbers}) == Sam2Config()


def test_a_size_in_one_place_only_is_refused_with_the_way_to_set_all() -> None:
    small, large = Sam2VisionConfig(Sam2HieraDetConfig(image_size=512)), Sam2VisionConfig()
    assert small.backbone_feature_sizes == ((128, 128), (64, 64), (32, 32))
    assert large.backbone_feature_sizes == ((256, 256), (128, 128), (64, 64))
    for parts in (
        {"prompt_encoder_config": {"image_size": 512}},
        {"vision_config": small},
        {"vision_config": {"backbone_feature_sizes": small.backbone_feature_sizes}},
    ):
        with pytest.raises(ValueError, match=r"vision_config\.backbone_.* must be .*with_image_size"):
            Sam2Config(**parts)
    assert Sam2Config(small, {"image_size": 512}) == Sam2Config().with_image_size(512)
