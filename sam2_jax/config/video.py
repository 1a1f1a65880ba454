"""The video model's configurations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from sam2_jax.config.base import BaseConfig
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
    image_size: int = 1024
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
        if self.rope_parameters is None:
            object.__setattr__(self, "rope_parameters", {"rope_theta": 10000.0, "rope_type": "axial"})
        self._require_positive("num_maskmem", "image_size", "max_object_pointers_in_encoder")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """As for every configuration; also reads `memory_attention_rope_theta` of older transformers."""
        if "memory_attention_rope_theta" in values and "rope_parameters" not in values:
            theta = values["memory_attention_rope_theta"]
            values = {**values, "rope_parameters": {"rope_theta": theta, "rope_type": "axial"}}
        return super().from_dict({k: v for k, v in values.items() if k != "memory_attention_rope_theta"})

    @property
    def image_config(self) -> Sam2Config:
        """The configuration of the image model that this video model contains."""
        return Sam2Config.from_dict(self.to_dict())
