"""Meta's checkpoints: their tensor names, and which released network they hold.

Source: state dicts of github.com/facebookresearch/sam2 (sam2/modeling) and of transformers' Sam2VideoModel.
"""

import re
from collections.abc import Mapping

from sam2_jax.checkpoint.names import FOURIER, FOURIER_COPY, is_video_only
from sam2_jax.checkpoint.tensors import Header, Headers
from sam2_jax.checks import cut
from sam2_jax.config import RELEASED_MODELS, Sam2Config, Sam2VideoConfig, released_video_config

_PARTS = {
    "image_encoder.trunk": "vision_encoder.backbone",
    "image_encoder.neck": "vision_encoder.neck",
    "sam_prompt_encoder": "prompt_encoder",
    "sam_mask_decoder": "mask_decoder",
    "obj_ptr_proj": "object_pointer_proj",
    "obj_ptr_tpos_proj": "temporal_positional_encoding_projection_layer",
    "no_mem_embed": "no_memory_embedding",
    "no_mem_pos_enc": "no_memory_positional_encoding",
    "no_obj_ptr": "no_object_pointer",
    "no_obj_embed_spatial": "occlusion_spatial_embedding_parameter",
    "maskmem_tpos_enc": "memory_temporal_positional_encoding",
}
_LAYERS = {
    "patch_embed.proj": "patch_embed.projection",
    "norm": "layer_norm",
    **{f"norm{k}": f"layer_norm{k}" for k in (1, 2, 3, 4)},
    "norm_final_attn": "layer_norm_final_attn",
    "out_proj": "o_proj",
    **{f"convs.{k}.conv": f"convs.{k}" for k in range(4)},
    "memory_encoder.out_proj": "memory_encoder.projection",
    "pix_feat_proj": "feature_projection",
    "fuser": "memory_fuser",
    "dwconv": "depthwise_conv",
    "pwconv1": "pointwise_conv1",
    "pwconv2": "pointwise_conv2",
    "gamma": "scale",
}
# Meta numbers the layers of a sequence, activations included; transformers names them.
_SEQUENCES = {
    **{f"mask_downscaling.{3 * k}": f"mask_embed.conv{k + 1}" for k in range(3)},
    **{f"mask_downscaling.{3 * k + 1}": f"mask_embed.layer_norm{k + 1}" for k in range(2)},
    "output_upscaling.0": "upscale_conv1",
    "output_upscaling.1": "upscale_layer_norm",
    "output_upscaling.3": "upscale_conv2",
    **{f"mask_downsampler.encoder.{3 * k}": f"mask_downsampler.layers.{k}.conv" for k in range(4)},
    **{f"mask_downsampler.encoder.{3 * k + 1}": f"mask_downsampler.layers.{k}.layer_norm" for k in range(4)},
    "mask_downsampler.encoder.12": "mask_downsampler.final_conv",
}
# Meta numbers an MLP's layers from its first, transformers from its second: layers.0 is Meta's layers.1.
_MLP_LAYERS = {2: ("proj_in", "proj_out"), 3: ("proj_in", "layers.0", "proj_out")}
_MLP_DEPTHS = {
    "mlp": 2,
    "iou_prediction_head": 3,
    "pred_obj_score_head": 3,
    "obj_ptr_proj": 3,
    **{f"output_hypernetworks_mlps.{k}": 3 for k in range(4)},
}
_MLPS = {
    f"{owner}.layers.{i}": f"{_PARTS.get(owner, owner)}.{layer}"
    for owner, depth in _MLP_DEPTHS.items()
    for i, layer in enumerate(_MLP_LAYERS[depth])
}
FRAGMENTS = _PARTS | _LAYERS | _SEQUENCES | _MLPS
"""Fragment of a Meta name -> of a transformers name; both are whole components between dots."""

_FOURIER = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_POINTS = [f"sam_prompt_encoder.point_embeddings.{k}.weight" for k in range(4)]
_POINT_EMBED = "prompt_encoder.point_embed.weight"


def _either(fragments: Mapping[str, str]) -> re.Pattern[str]:
    longest_first = sorted(fragments, key=len, reverse=True)
    return re.compile(rf"(?<![^.])({'|'.join(map(re.escape, longest_first))})(?![^.])")


_FRAGMENT = _either(FRAGMENTS)


def transformers_names(name: str) -> tuple[str, ...]:
    """Transformers names of a Meta tensor: one, or both copies' of the random Fourier matrix.

    Every fragment is replaced in a single pass, so that no rule sees what another has written.
    """
    if name == _FOURIER:
        return FOURIER, FOURIER_COPY
    if name in _POINTS:
        return (_POINT_EMBED,)
    return (_FRAGMENT.sub(lambda match: FRAGMENTS[match[0]], name),)


def to_transformers(tensors: Mapping[str, Header]) -> Headers:
    """Rename Meta tensors to transformers'; the four point embeddings become rows of one matrix.

    Raises ValueError if two tensors get one name.
    """
    renamed: Headers = {}
    points = [tensors[name] for name in _POINTS if name in tensors]
    are_rows = len(points) == len(_POINTS) and len({p.shape for p in points}) == 1 and points[0].ndim == 2
    if are_rows:
        renamed[_POINT_EMBED] = Header.rows(points)
    for name, tensor in tensors.items():
        if name in _POINTS and are_rows:
            continue
        for new in transformers_names(name) if name not in _POINTS else (name,):
            if new in renamed:
                raise ValueError(
                    f"tensor {cut(name)} becomes {cut(new)}, as another tensor does; rename one of them"
                )
            renamed[new] = tensor
    return renamed


def detect_config(shapes: Mapping[str, tuple[int, ...]]) -> Sam2Config | Sam2VideoConfig:
    """Configuration of the released network that tensors of these names and shapes, transformers', belong to.

    The size is told by the backbone's width and number of blocks; SAM 2.1 from 2.0 by tensors of the memory
    that 2.0 lacks. Without any memory the image model is meant, which is the same in both.
    Raises ValueError if the size is none of the released ones.
    """
    size = _detect_size(shapes)
    memory = {name.partition(".")[0] for name in shapes if is_video_only(name)}
    version = ".1" if memory & _MEMORY_OF_2_1 else ""
    video = released_video_config(f"facebook/sam2{version}-hiera-{size}")
    return video if memory else video.image_config


_MEMORY_OF_2_1 = {"occlusion_spatial_embedding_parameter", "temporal_positional_encoding_projection_layer"}


def _detect_size(shapes: Mapping[str, tuple[int, ...]]) -> str:
    patches = shapes.get("vision_encoder.backbone.patch_embed.projection.weight")
    width = patches[0] if patches else 0
    block = re.compile(r"vision_encoder\.backbone\.blocks\.(\d+)\.")
    blocks = len({match[1] for name in shapes if (match := block.match(name))})
    sizes = {}
    for model, (_, size) in RELEASED_MODELS.items():
        backbone = released_video_config(model).vision_config.backbone_config
        sizes[backbone.hidden_size, sum(backbone.blocks_per_stage)] = size
    if (width, blocks) not in sizes:
        known = ", ".join(f"{size} {shape}" for shape, size in sizes.items())
        raise ValueError(
            f"the backbone's (width, number of blocks) must be of a released size, {known}; got "
            f"{(width, blocks)}. Say what a network of another size is: config=, or --config of convert, or "
            "its config.json beside the file"
        )
    return sizes[width, blocks]
