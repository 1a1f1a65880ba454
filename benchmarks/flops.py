"""How many floating-point operations the network needs: two for each multiply-add, none for padding."""

import math

from sam2_jax import Sam2Config, Sam2VideoConfig


def encoder_flops(config: Sam2Config) -> int:
    """FLOP of one image's embeddings: patches, blocks, pyramid, its finer levels narrowed for the decoder.

    A window's filling counts as keys, which it is, not as queries.
    """
    vision = config.vision_config
    backbone = vision.backbone_config
    rows, columns = (
        side // stride for side, stride in zip(config.image_size, backbone.patch_stride, strict=True)
    )
    adds = (
        rows * columns * math.prod(backbone.patch_kernel_size) * backbone.num_channels * backbone.hidden_size
    )
    width = backbone.hidden_size
    index = 0
    window = backbone.window_size_per_stage[0]
    for stage, depth in enumerate(backbone.blocks_per_stage):
        features = backbone.embed_dim_per_stage[stage]
        for i in range(depth):
            tokens = rows * columns
            side = 0 if index in backbone.global_attention_blocks else window
            keys = side**2 if side else tokens
            adds += tokens * width * 3 * features
            if width != features:
                adds += tokens * width * features
            if i == 0 and stage > 0:
                rows, columns = rows // 2, columns // 2
            queries = rows * columns
            adds += queries * keys * features * 2 + queries * features**2
            adds += int(queries * 2 * features**2 * backbone.mlp_ratio)
            width, index = features, index + 1
            window = backbone.window_size_per_stage[stage]
        narrow = {
            0: config.mask_decoder_config.hidden_size // 8,
            1: config.mask_decoder_config.hidden_size // 4,
        }
        adds += rows * columns * features * narrow.get(stage, vision.fpn_hidden_size)
    return 2 * adds


def decoder_flops(config: Sam2Config, points: int = 1) -> int:
    """FLOP of one object's masks as the reference computes them: every projection of the image for each."""
    decoder = config.mask_decoder_config
    patch = config.prompt_encoder_config.patch_size
    keys = math.prod(side // patch for side in config.image_size)
    width, inner = decoder.hidden_size, decoder.hidden_size // decoder.attention_downsample_rate
    masks = decoder.num_multimask_outputs + 1
    tokens = 2 + masks + points + 1
    across = keys * width * inner * 2 + 2 * tokens * width * inner + 2 * tokens * keys * inner
    among = 4 * tokens * width**2 + 2 * tokens**2 * width
    layer = among + 2 * across + 2 * tokens * width * decoder.mlp_dim
    upscale = keys * width * 4 * (width // 4) + 4 * keys * (width // 4) * 4 * (width // 8)
    products = 16 * keys * (width // 8) * masks
    return 2 * (decoder.num_hidden_layers * layer + across + upscale + products)


def tracking_flops(config: Sam2VideoConfig, slots: int, pointers: int) -> int:
    """FLOP of one object's memory: attention to so many slots and pointers, and the frame remembered.

    Values are mixed as they are remembered and projected then, which is the least it takes.
    """
    patch = config.prompt_encoder_config.patch_size
    sides = config.image_config.image_size
    tokens = math.prod(side // patch for side in sides)
    width, narrow = config.memory_attention_hidden_size, config.memory_encoder_output_channels
    keys = slots * tokens + pointers * width // narrow
    among = tokens * width * (4 * width + 2 * tokens)
    across = tokens * width * (width + narrow + keys) + keys * narrow * (width + tokens)
    forward = 2 * tokens * width * config.memory_attention_feed_forward_hidden_size
    adds = config.memory_attention_num_layers * (among + across + forward)
    side, channels = config.mask_downsampler_kernel_size, 1
    area = math.prod(sides)
    for _ in range(config.mask_downsampler_layers):
        area //= config.mask_downsampler_stride**2
        wider = channels * config.mask_downsampler_stride**2
        adds += area * side**2 * channels * wider
        channels = wider
    adds += tokens * (channels + width + narrow) * width
    block = config.memory_fuser_kernel_size**2 + 2 * config.memory_fuser_intermediate_dim
    adds += config.memory_fuser_num_layers * tokens * width * block
    return 2 * adds
