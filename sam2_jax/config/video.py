"""The video model's configurations."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

from sam2_jax.checks import read_number
from sam2_jax.config.base import LARGEST, MOST_LAYERS, BaseConfig
from sam2_jax.config.image import Sam2Config, Sam2MaskDecoderConfig, Sam2PromptEncoderConfig, Sam2VisionConfig


@dataclass(frozen=True)
class Sam2VideoPromptEncoderConfig(Sam2PromptEncoderConfig):
    """The prompt encoder inside a video checkpoint: the image model's, under another model type."""

    model_type: ClassVar[str] = "sam2_video_prompt_encoder"


@dataclass(frozen=True)
class Sam2VideoMaskDecoderConfig(Sam2MaskDecoderConfig):
    """The mask decoder inside a video checkpoint: the image model's, under another model type."""

    model_type: ClassVar[str] = "sam2_video_mask_decoder"


@dataclass(frozen=True)
class Sam2VideoConfig(BaseConfig):
    """The video model, as the released checkpoints carry it; `image_config` is the image model inside it."""

    vision_config: Any = None
    prompt_encoder_config: Any = None
    mask_decoder_config: Any = None
    initializer_range: float = 0.02
    num_maskmem: int = 7
    image_size: Any = 1024
    sigmoid_scale_for_mem_enc: float = 20.0
    sigmoid_bias_for_mem_enc: float = -10.0
    enable_occlusion_spatial_embedding: bool = True
    multimask_output_in_sam: bool = True
    multimask_min_pt_num: int = 0
    multimask_max_pt_num: int = 1
    multimask_output_for_tracking: bool = True
    max_object_pointers_in_encoder: int = 16
    max_cond_frame_num: int = -1
    enable_temporal_pos_encoding_for_object_pointers: bool = True
    memory_attention_hidden_size: int = 256
    memory_attention_num_layers: int = 4
    memory_attention_num_attention_heads: int = 1
    memory_attention_downsample_rate: int = 1
    memory_attention_feed_forward_hidden_size: int = 2048
    memory_attention_feed_forward_hidden_act: str = "relu"
    memory_attention_dropout: float = 0.1
    memory_attention_rope_feat_sizes: Sequence[int] = (64, 64)
    memory_attention_rope_dropout: float = 0.1
    memory_encoder_hidden_size: int = 256
    memory_encoder_output_channels: int = 64
    mask_downsampler_embed_dim: int = 256
    mask_downsampler_kernel_size: int = 3
    mask_downsampler_stride: int = 2
    mask_downsampler_padding: int = 1
    mask_downsampler_total_stride: int = 16
    mask_downsampler_hidden_act: str = "gelu"
    memory_fuser_num_layers: int = 2
    memory_fuser_embed_dim: int = 256
    memory_fuser_intermediate_dim: int = 1024
    memory_fuser_kernel_size: int = 7
    memory_fuser_padding: int = 3
    memory_fuser_layer_scale_init_value: float = 1e-6
    memory_fuser_hidden_act: str = "gelu"
    rope_parameters: Any = field(default=None, hash=False)

    model_type: ClassVar[str] = "sam2_video"
    nested: ClassVar[dict[str, type[BaseConfig]]] = {
        "vision_config": Sam2VisionConfig,
        "prompt_encoder_config": Sam2VideoPromptEncoderConfig,
        "mask_decoder_config": Sam2VideoMaskDecoderConfig,
    }

    def _check(self) -> None:
        self._check_kinds()
        heads = self.memory_attention_num_attention_heads
        inner = self.memory_attention_hidden_size // self.memory_attention_downsample_rate
        self._require(
            inner > 0 and inner % heads == 0,
            "memory_attention_num_attention_heads",
            f"a divisor of the attention width {inner}",
        )
        self._require(
            self.mask_downsampler_stride >= 2
            and self.mask_downsampler_stride ** (2 * self.mask_downsampler_layers) <= LARGEST,
            "mask_downsampler_stride",
            f"such that its layers, together of stride {self.mask_downsampler_total_stride}, stay below "
            f"{LARGEST} channels",
        )
        _ = self.image_config  # raises what is wrong with it

    def _check_kinds(self) -> None:
        """Each field by itself."""
        self._require_wholes(
            "num_maskmem",
            "max_object_pointers_in_encoder",
            "memory_attention_num_layers",
            "memory_fuser_num_layers",
            most=MOST_LAYERS,
        )
        self._require_wholes(
            "memory_attention_hidden_size",
            "memory_attention_num_attention_heads",
            "memory_attention_downsample_rate",
            "memory_attention_feed_forward_hidden_size",
            "memory_encoder_hidden_size",
            "memory_encoder_output_channels",
            "mask_downsampler_embed_dim",
            "mask_downsampler_kernel_size",
            "mask_downsampler_stride",
            "mask_downsampler_total_stride",
            "memory_fuser_embed_dim",
            "memory_fuser_intermediate_dim",
            "memory_fuser_kernel_size",
        )
        self._require_wholes(
            "multimask_min_pt_num",
            "multimask_max_pt_num",
            "mask_downsampler_padding",
            "memory_fuser_padding",
            least=0,
        )
        self._require_wholes("max_cond_frame_num", least=-1)
        if isinstance(self.image_size, tuple):
            self._require_sequence("image_size", 2)
        else:
            self._require_wholes("image_size")
        self._require_sequence("memory_attention_rope_feat_sizes", 2)
        self._require_numbers("initializer_range", "memory_fuser_layer_scale_init_value", most=LARGEST)
        self._require_numbers("memory_attention_dropout", "memory_attention_rope_dropout", most=1)
        for name in ("sigmoid_scale_for_mem_enc", "sigmoid_bias_for_mem_enc"):
            read_number(f"{type(self).__name__}.{name}", getattr(self, name), -LARGEST, LARGEST)
        self._require_flags(
            "enable_occlusion_spatial_embedding",
            "multimask_output_in_sam",
            "multimask_output_for_tracking",
            "enable_temporal_pos_encoding_for_object_pointers",
        )
        self._require_names(
            "memory_attention_feed_forward_hidden_act",
            "mask_downsampler_hidden_act",
            "memory_fuser_hidden_act",
        )
        self._check_rope()

    def _check_rope(self) -> None:
        given = self.rope_parameters
        usual = {"rope_theta": 10000.0, "rope_type": "axial"}
        self._put("rope_parameters", usual if given is None else given)
        self._require(
            isinstance(self.rope_parameters, Mapping)
            and all(isinstance(x, (str, int, float)) or x is None for x in self.rope_parameters.values())
            and all(isinstance(name, str) for name in self.rope_parameters),
            "rope_parameters",
            "None or a dictionary of numbers and text",
        )
        theta = self.rope_parameters.get("rope_theta", usual["rope_theta"])
        read_number(f"{type(self).__name__}.rope_parameters['rope_theta']", theta, most=2**53, above=0)
        self._put("rope_parameters", dict(self.rope_parameters))

    def check_network(self) -> None:
        """Raise ValueError where the memory fits neither the image model nor itself, and cannot be built.

        Files of image models inside a video model may say anything here: reading them does not ask.
        """
        width = self.vision_config.fpn_hidden_size
        for name in (
            "memory_attention_hidden_size",
            "memory_encoder_hidden_size",
            "mask_downsampler_embed_dim",
            "memory_fuser_embed_dim",
        ):
            self._require(getattr(self, name) == width, name, f"vision_config.fpn_hidden_size, {width}")
        channels = self.memory_encoder_output_channels
        self._require(
            width % channels == 0 and channels % 2 == 0,
            "memory_encoder_output_channels",
            f"an even divisor of {width}, the width of pointers, which are split into such tokens",
        )
        self._require(
            self.memory_attention_head_size % 4 == 0,
            "memory_attention_num_attention_heads",
            "such that heads are a multiple of 4 wide: sine and cosine of x and y",
        )
        self._check_kernels()
        for name, known in (
            ("memory_attention_feed_forward_hidden_act", "relu"),
            ("mask_downsampler_hidden_act", "gelu"),
            ("memory_fuser_hidden_act", "gelu"),
        ):
            self._require(getattr(self, name) == known, name, repr(known))
        rope_type = self.rope_parameters.get("rope_type", "axial")
        self._require(rope_type == "axial", "rope_parameters", "of rope_type 'axial'")
        size = self.image_config.image_size
        given = (self.image_size,) * 2 if isinstance(self.image_size, int) else tuple(self.image_size)
        self._require(
            given == size,
            "image_size",
            f"prompt_encoder_config.image_size, {size}; change all or none: config.with_image_size(512)",
        )

    def _check_kernels(self) -> None:
        """Convolutions that leave a map's size, or divide it by their stride."""
        patch = self.prompt_encoder_config.patch_size
        stride = self.mask_downsampler_stride
        self._require(
            stride**self.mask_downsampler_layers == patch == self.mask_downsampler_total_stride,
            "mask_downsampler_total_stride",
            f"prompt_encoder_config.patch_size, {patch}, and a power of mask_downsampler_stride, {stride}",
        )
        kernel, padding = self.mask_downsampler_kernel_size, self.mask_downsampler_padding
        self._require(
            0 <= 2 * padding + stride - kernel < stride,
            "mask_downsampler_padding",
            f"such that kernels of {kernel} divide a map by their stride, {stride}",
        )
        kernel = self.memory_fuser_kernel_size
        self._require(
            2 * self.memory_fuser_padding == kernel - 1,
            "memory_fuser_padding",
            f"such that kernels of {kernel} leave a map's size",
        )

    @property
    def memory_attention_head_size(self) -> int:
        """Channels of a head of the memory attention."""
        inner = self.memory_attention_hidden_size // self.memory_attention_downsample_rate
        return inner // self.memory_attention_num_attention_heads

    @property
    def rope_theta(self) -> float:
        """The base of the rotary frequencies."""
        return float(self.rope_parameters.get("rope_theta", 10000.0))

    def uses_multimask(self, points: int, is_first: bool = False) -> bool:
        """Whether the best of several masks is taken, and not the single one.

        points: how many there are, a box counts 2, padding not; none on a frame that is tracked. is_first:
        the first prompt of an object on a frame that was not tracked.
        """
        allowed = self.multimask_output_in_sam and (is_first or self.multimask_output_for_tracking)
        return allowed and self.multimask_min_pt_num <= points <= self.multimask_max_pt_num

    def with_image_size(self, image_size: int | Sequence[int]) -> Self:
        """Return the same network for another input size: one number, or (height, width), in pixels.

        Both multiples of the network's stride, 32 for the released models. Raises ValueError for others.
        """
        image = self.image_config.with_image_size(image_size)
        height, width = image.image_size
        size: Any = image.prompt_encoder_config.image_size
        patch = self.prompt_encoder_config.patch_size
        return replace(
            self,
            vision_config=image.vision_config,
            prompt_encoder_config=replace(self.prompt_encoder_config, image_size=size),
            image_size=size,
            memory_attention_rope_feat_sizes=(width // patch, height // patch),
        )

    @property
    def mask_downsampler_layers(self) -> int:
        """How many convolutions bring a mask to the size of the coarsest features."""
        return int(math.log2(self.mask_downsampler_total_stride) // math.log2(self.mask_downsampler_stride))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **changes: Any) -> Self:
        """As for every configuration; also reads `memory_attention_rope_theta` of older transformers."""
        if "memory_attention_rope_theta" in values and values.get("rope_parameters") is None:
            theta = values["memory_attention_rope_theta"]
            values = {**values, "rope_parameters": {"rope_theta": theta, "rope_type": "axial"}}
        values = {k: v for k, v in values.items() if k != "memory_attention_rope_theta"}
        return super().from_dict(values, **changes)

    @cached_property
    def image_config(self) -> Sam2Config:
        """The configuration of the image model that this video model contains."""
        parts = {name: getattr(self, name).to_dict() for name in self.nested}
        return Sam2Config.from_dict(parts | {"initializer_range": self.initializer_range})

    @classmethod
    def contains(cls, kind: type) -> bool:
        """Whether a configuration of this class is one of a kind or has a part that is."""
        return Sam2Config.contains(kind) or super().contains(kind)

    def part(self, kind: type) -> tuple[Any, str]:
        """As for every configuration; the image model is a part too, whose tensors go by the same names."""
        return self.image_config.part(kind) if Sam2Config.contains(kind) else super().part(kind)
