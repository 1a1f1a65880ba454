"""The video configuration: sizes in all places, networks that cannot be, when several masks are asked for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_models import smallest_video_config

from sam2_jax import Sam2VideoConfig
from sam2_jax.config import RELEASED_MODELS, read_config, released_video_config


@pytest.mark.parametrize("model", RELEASED_MODELS)
def test_released_models_can_be_built(model: str) -> None:
    config = released_video_config(model)
    config.check_network()
    assert config.with_image_size(1024) == config
    assert config.memory_attention_head_size == 256


def test_another_image_size_is_said_in_all_places() -> None:
    config = Sam2VideoConfig().with_image_size((512, 768))
    config.check_network()
    assert config.image_size == config.prompt_encoder_config.image_size == (512, 768)
    assert config.vision_config.backbone_config.image_size == (512, 768)
    assert config.vision_config.backbone_feature_sizes == ((128, 192), (64, 96), (32, 48))
    assert config.memory_attention_rope_feat_sizes == (48, 32)  # of x, of y
    assert config.image_config == Sam2VideoConfig().image_config.with_image_size((512, 768))
    assert config.with_image_size(1024) == Sam2VideoConfig()


@pytest.mark.parametrize("name", ["pub20", "pub21"])
def test_files_of_transformers_are_read(reference_dir: Path, name: str) -> None:
    config = read_config(reference_dir / "reference" / "video" / "models" / name / "config.json")
    assert isinstance(config, Sam2VideoConfig)
    config.check_network()
    assert config.image_size == 128
    assert config.enable_occlusion_spatial_embedding == (name == "pub21")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_encoder_hidden_size": 32}, r"memory_encoder_hidden_size must be .*16; got 32"),
        (
            {"memory_encoder_output_channels": 6},
            r"memory_encoder_output_channels must be an even divisor of 16",
        ),
        ({"memory_attention_num_attention_heads": 8}, r"heads are a multiple of 4 wide"),
        ({"memory_attention_feed_forward_hidden_act": "gelu"}, r"hidden_act must be 'relu'; got 'gelu'"),
        ({"rope_parameters": {"rope_type": "linear"}}, r"rope_parameters must be of rope_type 'axial'"),
        ({"image_size": 128}, r"image_size must be prompt_encoder_config.image_size, \(64, 64\).*; got 128"),
        ({"mask_downsampler_total_stride": 8}, r"mask_downsampler_total_stride must be .*patch_size, 16"),
        ({"mask_downsampler_padding": 2}, r"mask_downsampler_padding must be such that kernels of 3 divide"),
        ({"memory_fuser_padding": 2}, r"memory_fuser_padding must be such that kernels of 7 leave"),
    ],
)
def test_what_fits_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(smallest_video_config(), **changes).check_network()


def test_several_masks_are_asked_for_where_one_click_may_mean_several_things() -> None:
    config = Sam2VideoConfig()
    assert [config.uses_multimask(points) for points in range(4)] == [True, True, False, False]
    trained_otherwise = replace(config, multimask_output_for_tracking=False)
    assert not trained_otherwise.uses_multimask(1)
    assert trained_otherwise.uses_multimask(1, is_first=True)
    assert not replace(config, multimask_output_in_sam=False).uses_multimask(1, is_first=True)
