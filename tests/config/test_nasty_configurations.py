"""Every field of every configuration with values that files and callers should not give, and sometimes do."""

import json
from dataclasses import fields, replace
from itertools import zip_longest
from typing import Any

import numpy as np
import pytest
from small_models import smallest_config

from sam2_jax import Sam2Config, Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig
from sam2_jax.checkpoint.parameters import parameter_shapes
from sam2_jax.config import (
    Sam2MaskDecoderConfig,
    Sam2PromptEncoderConfig,
    Sam2VideoMaskDecoderConfig,
    Sam2VideoPromptEncoderConfig,
)


def nested(depth: int) -> list[Any]:
    value: list[Any] = [1]
    for _ in range(depth):
        value = [value]
    return value


NASTY: list[Any] = [
    *(None, True, False, "x", "", b"x", {}, {"a": 1}, {1: 2}, set(), object(), len, int, 1j),
    *(-1, 0, 1, 2, 3, 512, 65536, 65537, 1_000_000, 2**31, 2**63, 10**40, 10**400),
    *(1e-320, 1e-8, 0.5, 1e300, -0.0, float("nan"), float("inf")),
    *(np.int64(4), np.float32(0.5), np.bool_(True), np.array(4), np.array([4, 4]), np.array([[1]])),
    *([], [[]], [1], [1, 2], [[1, 2]], [True] * 4, [1.0, 2.0], ["a", "b"], [None, None], [2] * 8, [1] * 1000),
    *([2**63, 7], [10**40] * 4, [65536] * 4, [4, 4], [1, 2, 1_000_000, 2], [96, 96, 96, 96]),
    *(nested(10), nested(100_000), [object()], [{}], [[4, 4], [2, 2], {}]),
]
KINDS = [
    Sam2HieraDetConfig,
    Sam2VisionConfig,
    Sam2PromptEncoderConfig,
    Sam2MaskDecoderConfig,
    Sam2Config,
    Sam2VideoConfig,
    Sam2VideoPromptEncoderConfig,
    Sam2VideoMaskDecoderConfig,
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_nasty_value_is_a_sentence_or_a_configuration(kind: type[Any]) -> None:
    for field in fields(kind):
        for value in NASTY:
            refusal = ""
            try:
                config = kind(**{field.name: value})
            except ValueError as error:
                refusal = str(error)
            if refusal:
                assert len(refusal) < 600, (field.name, value)
                assert kind.__name__ in refusal or "_config" in refusal
                continue
            assert hash(config) == hash(kind.from_dict(json.loads(config.to_json_string())))
            assert "NaN" not in config.to_json_string()


def legal_changes() -> dict[str, list[Any]]:
    """By part, configurations with one field changed to such a value, the largest that is legal."""
    whole = smallest_config()
    parts = {
        "backbone_config": whole.vision_config.backbone_config,
        "prompt_encoder_config": whole.prompt_encoder_config,
        "mask_decoder_config": whole.mask_decoder_config,
    }
    found: dict[str, list[Any]] = {name: [] for name in parts}
    for name, part in parts.items():
        for field in fields(part):
            if field.name.endswith(("_eps", "_act", "_range", "_size", "_stride", "window_size_per_stage")):
                continue  # nothing is built by them, or they must fit others
            legal = []
            for value in NASTY:
                try:
                    legal.append(type(part).from_dict(part.to_dict() | {field.name: value}))
                except ValueError:
                    continue
            found[name] += [config for config in legal[-1:] if config != part]
    return found


def test_what_is_legal_builds_a_network() -> None:
    """One change in each part at a time."""
    whole, changes = smallest_config(), legal_changes()
    assert sum(map(len, changes.values())) > 10
    for backbone, prompt, decoder in zip_longest(*changes.values()):
        vision = replace(whole.vision_config, backbone_config=backbone) if backbone else whole.vision_config
        config = Sam2Config(
            vision, prompt or whole.prompt_encoder_config, decoder or whole.mask_decoder_config
        )
        assert parameter_shapes(config), config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attention_downsample_rate", 1_000_000),
        ("attention_downsample_rate", 4096),
        ("num_hidden_layers", 10**6),
        ("iou_head_depth", 10**6),
        ("num_multimask_outputs", 10**6),
    ],
)
def test_a_decoder_without_end_or_width_is_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=field):
        Sam2MaskDecoderConfig(**{field: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"blocks_per_stage": [1, 2, 1_000_000, 2]}, "blocks_per_stage must be .*at most 128"),
        ({"blocks_per_stage": [100, 20, 7, 2]}, "blocks_per_stage must be at most 128 blocks together"),
        ({"blocks_per_stage": []}, "blocks_per_stage must be of 1 to 8 stages"),
        ({"layer_norm_eps": 2147483648}, "layer_norm_eps must be a number from 0 to 1"),
        (
            {"window_positional_embedding_background_size": [2**63, 7]},
            "size must be .*at most 512",
        ),
        ({"image_size": 10**9}, "image_size must be .*at most 65536"),
        ({"mlp_ratio": 1e-320}, "mlp_ratio must be such that"),
        ({"mlp_ratio": 60_000}, "mlp_ratio must be such that"),
    ],
)
def test_a_backbone_that_nothing_can_hold_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sam2HieraDetConfig(**values)


def test_a_pyramid_of_uneven_width_is_refused() -> None:
    with pytest.raises(ValueError, match="fpn_hidden_size must be even"):
        Sam2VisionConfig(fpn_hidden_size=255)
    with pytest.raises(ValueError, match="backbone_feature_sizes must be None, or"):
        Sam2VisionConfig(backbone_feature_sizes=[[4, 4], [2, 2], {}])


def test_numbers_of_numpy_are_numbers() -> None:
    config = Sam2HieraDetConfig(
        hidden_size=np.int64(96), image_size=np.array([64, 64]), mlp_ratio=np.float32(4)
    )
    assert config == Sam2HieraDetConfig(image_size=64)
    assert type(config.hidden_size) is int
    assert type(config.mlp_ratio) is float
