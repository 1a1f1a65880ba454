"""The tensors of the video model's memory, which a video checkpoint holds beside the image model's.

Source: state dicts of transformers' Sam2VideoModel.
"""

from sam2_jax.config import Sam2VideoConfig

Shapes = dict[str, tuple[int, ...]]

# transformers has this number in its code and not in the configuration.
_MEMORY_CHANNELS = 64


def memory_shapes(config: Sam2VideoConfig) -> Shapes:
    """Names and shapes, in transformers' layout, of all that a video model has beside its image model."""
    width, channels = config.vision_config.fpn_hidden_size, config.memory_encoder_output_channels
    shapes: Shapes = {
        "memory_temporal_positional_encoding": (config.num_maskmem, 1, 1, channels),
        "no_memory_positional_encoding": (1, 1, width),
        "no_object_pointer": (1, width),
        **_convolution("mask_downsample", 1, 1, 4),
        **_linear("object_pointer_proj.proj_in", width, width),
        **_linear("object_pointer_proj.layers.0", width, width),
        **_linear("object_pointer_proj.proj_out", width, width),
        **_attention(config),
        **_encoder(config),
    }
    if config.enable_temporal_pos_encoding_for_object_pointers:
        shapes |= _linear("temporal_positional_encoding_projection_layer", width, channels)
    if config.enable_occlusion_spatial_embedding:
        shapes["occlusion_spatial_embedding_parameter"] = (1, channels)
    return shapes


def _attention(config: Sam2VideoConfig) -> Shapes:
    width, hidden = config.memory_attention_hidden_size, config.memory_attention_feed_forward_hidden_size
    inner = width // config.memory_attention_downsample_rate
    shapes = _norm("memory_attention.layer_norm", width)
    for i in range(config.memory_attention_num_layers):
        layer = f"memory_attention.layers.{i}"
        for name, keys in (("self_attn", width), ("cross_attn_image", _MEMORY_CHANNELS)):
            shapes |= _linear(f"{layer}.{name}.q_proj", width, inner)
            shapes |= _linear(f"{layer}.{name}.k_proj", keys, inner)
            shapes |= _linear(f"{layer}.{name}.v_proj", keys, inner)
            shapes |= _linear(f"{layer}.{name}.o_proj", inner, width)
        shapes |= _linear(f"{layer}.linear1", width, hidden) | _linear(f"{layer}.linear2", hidden, width)
        for k in (1, 2, 3):
            shapes |= _norm(f"{layer}.layer_norm{k}", width)
    return shapes


def _encoder(config: Sam2VideoConfig) -> Shapes:
    width, embed = config.memory_encoder_hidden_size, config.memory_fuser_embed_dim
    shapes: Shapes = {}
    channels = 1
    for i in range(config.mask_downsampler_layers):
        layer, wider = (
            f"memory_encoder.mask_downsampler.layers.{i}",
            channels * config.mask_downsampler_stride**2,
        )
        shapes |= _convolution(f"{layer}.conv", channels, wider, config.mask_downsampler_kernel_size)
        shapes |= _norm(f"{layer}.layer_norm", wider)
        channels = wider
    last = config.mask_downsampler_embed_dim
    shapes |= _convolution("memory_encoder.mask_downsampler.final_conv", channels, last, 1)
    shapes |= _convolution("memory_encoder.feature_projection", width, width, 1)
    shapes |= _convolution("memory_encoder.projection", width, config.memory_encoder_output_channels, 1)
    for i in range(config.memory_fuser_num_layers):
        layer = f"memory_encoder.memory_fuser.layers.{i}"
        shapes[f"{layer}.scale"] = (embed,)
        shapes |= _convolution(f"{layer}.depthwise_conv", 1, embed, config.memory_fuser_kernel_size)
        shapes |= _norm(f"{layer}.layer_norm", embed)
        shapes |= _linear(f"{layer}.pointwise_conv1", embed, config.memory_fuser_intermediate_dim)
        shapes |= _linear(f"{layer}.pointwise_conv2", config.memory_fuser_intermediate_dim, embed)
    return shapes


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _convolution(name: str, inputs: int, outputs: int, side: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, side, side), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
