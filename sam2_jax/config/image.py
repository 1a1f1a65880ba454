"""The image model's configurations: backbone, vision encoder, prompt encoder, mask decoder."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np

from sam2_jax.checks import shown
from sam2_jax.config.base import LARGEST, MOST_LAYERS, BaseConfig

_LARGEST_PATCH, _LARGEST_WINDOW, _MOST_STAGES = 256, 512, 8


@dataclass(frozen=True)
class Sam2HieraDetConfig(BaseConfig):
    """The Hiera backbone. Defaults are hiera-tiny's.

    `hidden_size` is the width after patch embedding, `*_per_stage` has one entry per stage, and
    `global_attention_blocks` counts blocks from 0 over all stages. Sizes, strides and padding are (height,
    width) or one number for both. `num_attention_heads` is kept because
    transformers has it; the network reads `num_attention_heads_per_stage`.
    """

    hidden_size: int = 96
    num_attention_heads: int = 1
    num_channels: int = 3
    image_size: Any = (1024, 1024)
    patch_kernel_size: Any = (7, 7)
    patch_stride: Any = (4, 4)
    patch_padding: Any = (3, 3)
    query_stride: Any = (2, 2)
    window_positional_embedding_background_size: Sequence[int] = (7, 7)
    num_query_pool_stages: int = 3
    blocks_per_stage: Sequence[int] = (1, 2, 7, 2)
    embed_dim_per_stage: Sequence[int] = (96, 192, 384, 768)
    num_attention_heads_per_stage: Sequence[int] = (1, 2, 4, 8)
    window_size_per_stage: Sequence[int] = (8, 4, 14, 7)
    global_attention_blocks: Sequence[int] = (5, 7, 9)
    mlp_ratio: float = 4.0
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    model_type: ClassVar[str] = "sam2_hiera_det_model"

    def _check(self) -> None:
        self._check_kinds()
        stages = len(self.blocks_per_stage)
        blocks = sum(self.blocks_per_stage)
        self._require(blocks <= MOST_LAYERS, "blocks_per_stage", f"at most {MOST_LAYERS} blocks together")
        self._require(
            all(i < blocks for i in self.global_attention_blocks),
            "global_attention_blocks",
            f"block numbers below {blocks}, the number of blocks",
        )
        self._require(
            self.embed_dim_per_stage[0] == self.hidden_size,
            "hidden_size",
            f"embed_dim_per_stage[0] ({self.embed_dim_per_stage[0]})",
        )
        self._require(
            all(
                d % h == 0
                for d, h in zip(self.embed_dim_per_stage, self.num_attention_heads_per_stage, strict=True)
            ),
            "embed_dim_per_stage",
            f"divisible by num_attention_heads_per_stage {self.num_attention_heads_per_stage}",
        )
        self._require(
            self.num_query_pool_stages == stages - 1,
            "num_query_pool_stages",
            f"{stages - 1}: the network halves the resolution at the start of every stage but the first",
        )
        self._require(
            all(w % 2 == 0 for w in self.window_size_per_stage[:-1]),
            "window_size_per_stage",
            "even in all stages but the last: the next stage's first block halves it",
        )
        self._require(
            all(a != b for a, b in pairwise(self.embed_dim_per_stage)),
            "embed_dim_per_stage",
            "other in each stage than in the one before: blocks tell by it where to pool",
        )
        self._require(
            all(
                s <= k and 2 * p <= k - 1 < 2 * p + s
                for k, s, p in zip(self.patch_kernel_size, self.patch_stride, self.patch_padding, strict=True)
            ),
            "patch_padding",
            f"such that an image gives size / {tuple(self.patch_stride)} patches of {self.patch_kernel_size}",
        )
        self._require(tuple(self.query_stride) == (2, 2), "query_stride", "(2, 2)")
        self._require(
            all(1 <= int(width * self.mlp_ratio) <= LARGEST for width in self.embed_dim_per_stage),
            "mlp_ratio",
            f"such that hidden layers of {self.embed_dim_per_stage} times it are 1 to {LARGEST} wide",
        )
        self._require(self.hidden_act == "gelu", "hidden_act", "'gelu'")

    def _check_kinds(self) -> None:
        """Each field by itself."""
        self._require_wholes("hidden_size", "num_attention_heads", "num_channels")
        self._require_wholes("num_query_pool_stages", least=0)
        self._require_pair("image_size")
        for name in ("patch_kernel_size", "patch_stride", "query_stride"):
            self._require_pair(name, most=_LARGEST_PATCH)
        self._require_pair("patch_padding", least=0, most=_LARGEST_PATCH)
        name = "window_positional_embedding_background_size"
        self._require_sequence(name, 2, most=_LARGEST_WINDOW)
        self._require_sequence("blocks_per_stage", most=MOST_LAYERS)
        stages = len(self.blocks_per_stage)
        self._require(1 <= stages <= _MOST_STAGES, "blocks_per_stage", f"of 1 to {_MOST_STAGES} stages")
        for name in ("embed_dim_per_stage", "num_attention_heads_per_stage"):
            self._require_sequence(name, stages)
        self._require_sequence("window_size_per_stage", stages, most=_LARGEST_WINDOW)
        self._require_sequence("global_attention_blocks", least=0)
        self._require_numbers("mlp_ratio", most=LARGEST)
        self._require(self.mlp_ratio > 0, "mlp_ratio", "positive")
        self._require_numbers("layer_norm_eps", most=1)
        self._require_numbers("initializer_range", most=LARGEST)

    @property
    def stride(self) -> tuple[int, int]:
        """What height and width must be divisible by: every halving, and whole windows of the first stage."""
        grid = math.lcm(2 ** (len(self.blocks_per_stage) - 1), self.window_size_per_stage[0])
        return grid * self.patch_stride[0], grid * self.patch_stride[1]

    def feature_sizes(self, levels: int) -> tuple[tuple[int, int], ...]:
        """(height, width) of the first stages' maps at the configured image size."""
        (height, width), (stride_y, stride_x) = self.image_size, self.patch_stride
        return tuple((height // stride_y // 2**i, width // stride_x // 2**i) for i in range(levels))

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """Index of the last block of each stage."""
        return tuple(sum(self.blocks_per_stage[: i + 1]) - 1 for i in range(len(self.blocks_per_stage)))


@dataclass(frozen=True)
class Sam2VisionConfig(BaseConfig):
    """Backbone and feature pyramid. `backbone_channel_list` runs from the deepest stage to the shallowest.

    `backbone_feature_sizes` is None for the sizes that the backbone's image size and patch stride give.
    """

    backbone_config: Any = None
    backbone_channel_list: Sequence[int] = (768, 384, 192, 96)
    backbone_feature_sizes: Any = None
    fpn_hidden_size: int = 256
    fpn_kernel_size: int = 1
    fpn_stride: int = 1
    fpn_padding: int = 0
    fpn_top_down_levels: Sequence[int] = (2, 3)
    num_feature_levels: int = 3
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    model_type: ClassVar[str] = "sam2_vision_model"
    nested: ClassVar[dict[str, type[BaseConfig]]] = {"backbone_config": Sam2HieraDetConfig}

    def _check(self) -> None:
        self._require_wholes("fpn_hidden_size", "num_feature_levels", "fpn_kernel_size", "fpn_stride")
        self._require_wholes("fpn_padding", least=0)
        self._require(self.fpn_hidden_size % 2 == 0, "fpn_hidden_size", "even: half sine, half cosine")
        self._require_sequence("backbone_channel_list")
        expected = tuple(reversed(self.backbone_config.embed_dim_per_stage))
        self._require(
            self.backbone_channel_list == expected,
            "backbone_channel_list",
            f"the backbone's stage widths from deep to shallow, {expected}",
        )
        self._require(
            len(expected) >= 3, "backbone_channel_list", "of 3 stages at least: strides 4, 8 and 16"
        )
        self._require_sequence("fpn_top_down_levels", least=0)
        self._require(
            all(level < len(expected) for level in self.fpn_top_down_levels),
            "fpn_top_down_levels",
            f"levels below {len(expected)}, the number of stages",
        )
        self._require_numbers("layer_norm_eps", most=1)
        self._require_numbers("initializer_range", most=LARGEST)
        self._require_names("hidden_act")
        self._require(
            (self.fpn_kernel_size, self.fpn_stride, self.fpn_padding) == (1, 1, 0),
            "fpn_kernel_size",
            "1 with fpn_stride 1 and fpn_padding 0, as in every SAM 2 model",
        )
        self._require(
            self.num_feature_levels == 3,
            "num_feature_levels",
            "3: the mask decoder reads strides 4, 8 and 16",
        )
        self._check_feature_sizes()

    def _check_feature_sizes(self) -> None:
        if self.backbone_feature_sizes is None:
            self._put("backbone_feature_sizes", self.backbone_config.feature_sizes(3))
        sizes = self.backbone_feature_sizes
        self._require(
            isinstance(sizes, tuple)
            and len(sizes) == 3
            and all(isinstance(size, tuple) and len(size) == 2 for size in sizes)
            and all(type(n) is int and 1 <= n <= LARGEST for size in sizes for n in size),
            "backbone_feature_sizes",
            "None, or (height, width) of the maps at strides 4, 8 and 16",
        )


@dataclass(frozen=True)
class Sam2PromptEncoderConfig(BaseConfig):
    """Points, boxes and masks. `image_size` is one number (square) or (height, width), in pixels."""

    hidden_size: int = 256
    image_size: int | Sequence[int] = 1024
    patch_size: Any = 16
    mask_input_channels: int = 16
    num_point_embeddings: int = 4
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    scale: float = 1

    model_type: ClassVar[str] = "sam2_prompt_encoder"

    def _check(self) -> None:
        self._require_wholes("hidden_size", "mask_input_channels", "num_point_embeddings")
        if isinstance(self.patch_size, tuple):
            self._require_pair("patch_size", most=LARGEST)
            self._require(len(set(self.patch_size)) == 1, "patch_size", "one number, or the same twice")
            self._put("patch_size", self.patch_size[0])
        self._require_wholes("patch_size")
        if isinstance(self.image_size, tuple):
            self._require_sequence("image_size", 2)
        else:
            self._require_wholes("image_size")
        self._require(self.hidden_size % 2 == 0, "hidden_size", "even: half sine, half cosine")
        self._require_numbers("layer_norm_eps", most=1)
        self._require_numbers("scale", most=LARGEST)
        self._require(self.mask_input_channels % 4 == 0, "mask_input_channels", "divisible by 4")
        self._require(
            self.num_point_embeddings == 4,
            "num_point_embeddings",
            "4: negative, positive, box top-left, box bottom-right",
        )
        self._require(self.hidden_act == "gelu", "hidden_act", "'gelu'")


@dataclass(frozen=True)
class Sam2MaskDecoderConfig(BaseConfig):
    """Two-way transformer and the heads for masks, their predicted IoU and the object score."""

    hidden_size: int = 256
    hidden_act: str = "gelu"
    mlp_dim: int = 2048
    num_hidden_layers: int = 2
    num_attention_heads: int = 8
    attention_downsample_rate: int = 2
    num_multimask_outputs: int = 3
    iou_head_depth: int = 3
    iou_head_hidden_dim: int = 256
    dynamic_multimask_via_stability: bool = True
    dynamic_multimask_stability_delta: float = 0.05
    dynamic_multimask_stability_thresh: float = 0.98

    model_type: ClassVar[str] = "sam2_mask_decoder"

    def _check(self) -> None:
        self._require_wholes("hidden_size", "mlp_dim", "num_attention_heads", "attention_downsample_rate")
        self._require_wholes("num_multimask_outputs", "iou_head_depth", most=MOST_LAYERS)
        self._require_wholes("num_hidden_layers", most=MOST_LAYERS)
        self._require_wholes("iou_head_hidden_dim")
        self._require_numbers(
            "dynamic_multimask_stability_delta", "dynamic_multimask_stability_thresh", most=LARGEST
        )
        self._require_flags("dynamic_multimask_via_stability")
        self._require_names("hidden_act")
        self._require(self.hidden_size % 8 == 0, "hidden_size", "divisible by 8")
        inner = self.hidden_size // self.attention_downsample_rate
        self._require(inner > 0, "attention_downsample_rate", f"at most hidden_size, {self.hidden_size}")
        self._require(
            inner % self.num_attention_heads == 0 and self.hidden_size % self.num_attention_heads == 0,
            "num_attention_heads",
            f"a divisor of hidden_size {self.hidden_size} and of the attention width {inner}",
        )
        self._require(self.num_hidden_layers >= 2, "num_hidden_layers", "at least 2")
        self._require(self.iou_head_depth >= 2, "iou_head_depth", "at least 2")


@dataclass(frozen=True)
class Sam2Config(BaseConfig):
    """The image model: vision encoder, prompt encoder, mask decoder. Defaults are hiera-tiny's.

    Each part may be a configuration, a dictionary or None for the default.
    """

    vision_config: Any = None
    prompt_encoder_config: Any = None
    mask_decoder_config: Any = None
    initializer_range: float = 0.02

    model_type: ClassVar[str] = "sam2"
    nested: ClassVar[dict[str, type[BaseConfig]]] = {
        "vision_config": Sam2VisionConfig,
        "prompt_encoder_config": Sam2PromptEncoderConfig,
        "mask_decoder_config": Sam2MaskDecoderConfig,
    }

    def _check(self) -> None:
        self._require_numbers("initializer_range", most=LARGEST)
        widths = {
            self.vision_config.fpn_hidden_size,
            self.prompt_encoder_config.hidden_size,
            self.mask_decoder_config.hidden_size,
        }
        if len(widths) != 1:
            raise ValueError(
                "vision_config.fpn_hidden_size, prompt_encoder_config.hidden_size and "
                f"mask_decoder_config.hidden_size must be equal; got {sorted(widths)}"
            )
        patch_stride = self.vision_config.backbone_config.patch_stride
        patch_size = self.prompt_encoder_config.patch_size
        if any(patch_size != 4 * stride for stride in patch_stride):
            raise ValueError(
                "prompt_encoder_config.patch_size must be the stride of the decoder's image embedding, "
                f"4 x patch_stride {tuple(patch_stride)}; got {patch_size}"
            )
        height, width = self.image_size
        stride_y, stride_x = self.stride
        if height % stride_y or width % stride_x:
            raise ValueError(
                f"prompt_encoder_config.image_size must be divisible by the network's stride "
                f"({stride_y}, {stride_x}); got {height}x{width}"
            )
        self._check_one_image_size()

    def _check_one_image_size(self) -> None:
        """Refuse a size that is changed in only some of the places that state it: which one is meant?"""
        backbone = self.vision_config.backbone_config
        fitting = replace(backbone, image_size=self.image_size).feature_sizes(3)
        for name, value, expected in (
            ("vision_config.backbone_config.image_size", backbone.image_size, self.image_size),
            ("vision_config.backbone_feature_sizes", self.vision_config.backbone_feature_sizes, fitting),
        ):
            if value != expected:
                raise ValueError(
                    f"{name} must be {expected}, since prompt_encoder_config.image_size is "
                    f"{self.image_size}; got {value}. Change all or none: config.with_image_size(512)"
                )

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the network's input, in pixels."""
        size = self.prompt_encoder_config.image_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def stride(self) -> tuple[int, int]:
        """What height and width must be divisible by: the backbone's stride."""
        return self.vision_config.backbone_config.stride

    def with_image_size(self, image_size: int | Sequence[int]) -> Self:
        """Return the same network for another input size: one number, or (height, width), in pixels.

        Both multiples of the network's stride, 32 for the released models. Raises ValueError for others.
        """
        height, width = _read_sides(image_size, self.vision_config.backbone_config.stride)
        backbone = replace(self.vision_config.backbone_config, image_size=(height, width))
        vision = replace(
            self.vision_config, backbone_config=backbone, backbone_feature_sizes=backbone.feature_sizes(3)
        )
        size: int | Sequence[int] = height if height == width else (height, width)
        prompt = replace(self.prompt_encoder_config, image_size=size)
        return replace(self, vision_config=vision, prompt_encoder_config=prompt)


def _read_sides(image_size: Any, strides: Sequence[int]) -> tuple[int, int]:
    """Height and width of a network's input."""
    try:
        sides = image_size if isinstance(image_size, (Sequence, np.ndarray)) else (image_size, image_size)
        height, width = map(operator.index, sides)
    except (TypeError, ValueError):
        height = width = 0
    if not all(0 < n <= LARGEST and n % s == 0 for n, s in zip((height, width), strides, strict=True)):
        stride = strides[0] if len(set(strides)) == 1 else tuple(strides)
        raise ValueError(
            f"image_size must be a whole number or (height, width), in pixels, multiples of {stride} up to "
            f"{LARGEST}; got {shown(image_size)}"
        )
    return height, width
