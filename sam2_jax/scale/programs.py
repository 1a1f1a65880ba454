"""The programs of a network that an export holds, each a function of weights and named arrays.

Numbers of images, objects, points and slots are left open. Everything else is fixed by the configuration.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from sam2_jax.config import Sam2VideoConfig
from sam2_jax.model.mask_decoder import MaskPrediction
from sam2_jax.model.memory_bank import Plan, VideoState
from sam2_jax.model.sam2 import Sam2
from sam2_jax.model.sam2_video import FrameFeatures, Sam2Video

Arrays = dict[str, Any]


class ExportedProgram(NamedTuple):
    """What is to be exported: call(params, inputs) gives outputs by name; inputs: shapes and types by name.

    parts: how the names of weights begin that the program reads, beside those of no part of the network.
    """

    says: str
    call: Callable[[Any, Arrays], Arrays]
    inputs: Mapping[str, jax.ShapeDtypeStruct]
    parts: tuple[str, ...]

    def reads(self, weight: str) -> bool:
        """Whether the program reads a weight."""
        return "." not in weight or weight.startswith(self.parts)


_EMBEDDINGS = ("fine", "middle", "coarse")
_PLAN = ("row", "valid", "offset", "pointer_valid", "tracked", "slot", "pointer_slot")
LARGEST_LOGIT = 32.0
_ENCODER = ("vision_encoder.", "mask_decoder.conv_s")
_DECODER = ("prompt_encoder.", "mask_decoder.", "shared_image_embedding.")
_MEMORY = ("memory_attention.", "memory_encoder.", "mask_downsample.", "object_pointer_proj.")
_FRAME = (*_DECODER, *_MEMORY, "temporal_positional_encoding_projection_layer.")


def programs_of(module: Sam2) -> dict[str, ExportedProgram]:
    """The programs of a network by name: of the image network, and for clips the steps of a frame."""
    found = _image_programs(module)
    return found | (_video_programs(module) if isinstance(module, Sam2Video) else {})


def _image_programs(module: Sam2) -> dict[str, ExportedProgram]:
    # One scope, so that numbers of one name are one number in all inputs of a program.
    batch, objects, points, clicks = export.symbolic_shape("batch, objects, points, clicks")
    pixels = {"pixel_values": _float(batch, *_image_size(module), 3)}

    def encode(params: Any, x: Arrays) -> Arrays:
        found = module.apply({"params": params}, x["pixel_values"], method="encode_image")
        return dict(zip(_EMBEDDINGS, found, strict=True))

    def decode(params: Any, x: Arrays, *, multimask: bool = True) -> Arrays:
        embeddings = tuple(x[name] for name in _EMBEDDINGS)
        found: Any = module.apply(
            {"params": params},
            embeddings,
            x["points"],
            x["labels"],
            x.get("masks"),
            min_score=x.get("min_score"),
            method="decode_masks",
            multimask_output=multimask,
        )
        return _of_prediction(found)

    def decode_one(params: Any, x: Arrays) -> Arrays:
        return decode(params, x, multimask=False)

    def decode_clicks(params: Any, x: Arrays) -> Arrays:
        """Each click an object of one point, of one image."""
        ones = jnp.ones((1, x["clicks"].shape[0], 1), jnp.int32)
        found = decode(params, x | {"points": x["clicks"][None, :, None], "labels": ones})
        return {name: found[name][0] for name in ("masks", "iou_scores")}

    def maps(count: Any) -> Arrays:
        height, width = _image_size(module)
        channels = module.config.prompt_encoder_config.hidden_size
        sizes = ((4, channels // 8), (8, channels // 4), (16, channels))
        dtype = jnp.dtype(module.dtype)
        return {
            name: jax.ShapeDtypeStruct((count, height // s, width // s, c), dtype)
            for name, (s, c) in zip(_EMBEDDINGS, sizes, strict=True)
        }

    prompts = {
        "points": _float(batch, objects, points, 2),
        "labels": jax.ShapeDtypeStruct((batch, objects, points), jnp.int32),
    }
    embeddings = maps(batch)
    height, width = (side // 4 for side in _image_size(module))
    refined = prompts | {"masks": _float(batch, objects, height, width)}
    of_clicks = {"clicks": _float(clicks, 2), "min_score": _float()}
    return {
        "encoder": ExportedProgram("pixels to embeddings, once for each image", encode, pixels, _ENCODER),
        "decoder": ExportedProgram("three masks for each object", decode, embeddings | prompts, _DECODER),
        "decoder_single": ExportedProgram(
            "one mask for each object", decode_one, embeddings | prompts, _DECODER
        ),
        "decoder_refine": ExportedProgram(
            f"one mask for each object from an earlier one, logits within {LARGEST_LOGIT:g} either way",
            decode_one,
            embeddings | refined,
            _DECODER,
        ),
        "decoder_automatic": ExportedProgram(
            "three masks for each click on an image; -1024 all over if no predicted IoU is above min_score",
            decode_clicks,
            maps(1) | of_clicks,
            _DECODER,
        ),
    }


def _video_programs(module: Sam2Video) -> dict[str, ExportedProgram]:
    config: Sam2VideoConfig = module.config
    height, width = _image_size(module)
    frames, objects, points, slots, pointers = export.symbolic_shape(
        "frames, objects, points, slots, pointers"
    )

    def encode(params: Any, x: Arrays) -> Arrays:
        found: Any = module.apply({"params": params}, x["pixel_values"], method="encode_frame")
        return _named("features", found)

    def prompt(params: Any, x: Arrays, *, multimask: bool) -> Arrays:
        given = _features(x), x["points"], x["labels"], x.get("mask"), x.get("conditioned")
        found: Any = module.apply({"params": params}, *given, method="prompt_step", multimask=multimask)
        return found._asdict()

    def prompt_several(params: Any, x: Arrays) -> Arrays:
        return prompt(params, x, multimask=True)

    def prompt_single(params: Any, x: Arrays) -> Arrays:
        return prompt(params, x, multimask=False)

    def take_mask(params: Any, x: Arrays) -> Arrays:
        found: Any = module.apply({"params": params}, _features(x), x["mask"], method="mask_step")
        return found._asdict()

    def condition(params: Any, x: Arrays) -> Arrays:
        state = VideoState(x["state.memory"], x["state.pointer"])
        found = module.apply({"params": params}, _features(x), state, _plan(x), method="condition")
        return {"conditioned": found}

    def remember(params: Any, x: Arrays) -> Arrays:
        given = _features(x), x["low"], x["score"], x["is_binary"]
        return {"memory": module.apply({"params": params}, *given, method="remember")}

    def track(params: Any, x: Arrays) -> Arrays:
        state = VideoState(x["state.memory"], x["state.pointer"])
        found: Any = module.apply({"params": params}, _features(x), state, _plan(x), method="track_step")
        state, frame = found
        return _named("state", state) | frame.output._asdict() | {"memory": frame.memory}

    features = {f"features.{name}": x for name, x in _features_of(module, 1).items()}
    prompts = {
        "points": _float(objects, points, 2),
        "labels": jax.ShapeDtypeStruct((objects, points), jnp.int32),
    }
    channels, width_of_pointer = config.memory_encoder_output_channels, config.vision_config.fpn_hidden_size
    patch = config.prompt_encoder_config.patch_size
    grid = height // patch, width // patch
    low = _float(objects, height // 4, width // 4)
    conditioned = jax.ShapeDtypeStruct((objects, *grid, width_of_pointer), jnp.dtype(module.dtype))
    state = {
        "state.memory": jax.ShapeDtypeStruct((objects, slots, grid[0] * grid[1], channels), jnp.bfloat16),
        "state.pointer": _float(objects, pointers, width_of_pointer),
    }
    whole, flag = jnp.int32, jnp.bool_
    plan = {
        "plan.row": jax.ShapeDtypeStruct((objects, slots), whole),
        "plan.valid": jax.ShapeDtypeStruct((objects, slots), flag),
        "plan.offset": _float(objects, pointers),
        "plan.pointer_valid": jax.ShapeDtypeStruct((objects, pointers), flag),
        "plan.tracked": jax.ShapeDtypeStruct((objects,), flag),
        "plan.slot": jax.ShapeDtypeStruct((objects,), whole),
        "plan.pointer_slot": jax.ShapeDtypeStruct((objects,), whole),
    }
    memories = {"low": low, "score": _float(objects), "is_binary": jax.ShapeDtypeStruct((objects,), flag)}
    return {
        "frame_encoder": ExportedProgram(
            "frames to features; the other steps take one frame",
            encode,
            {"pixel_values": _float(frames, height, width, 3)},
            (*_ENCODER, *_MEMORY),
        ),
        "frame_prompt": ExportedProgram(
            "objects by clicks and boxes, the best of several masks of each",
            prompt_several,
            features | prompts,
            _FRAME,
        ),
        "frame_prompt_single": ExportedProgram(
            "the same, one mask", prompt_single, features | prompts, _FRAME
        ),
        "frame_correct": ExportedProgram(
            f"a tracked object by clicks; mask: its logits, within {LARGEST_LOGIT:g} either way",
            prompt_single,
            features | prompts | {"mask": low, "conditioned": conditioned},
            _FRAME,
        ),
        "frame_mask": ExportedProgram(
            "objects by masks of 0 and 1",
            take_mask,
            features | {"mask": _float(objects, height, width)},
            _FRAME,
        ),
        "frame_condition": ExportedProgram(
            "features in view of what is remembered", condition, features | state | plan, _FRAME
        ),
        "frame_remember": ExportedProgram(
            "masks of a frame as memories", remember, features | memories, _FRAME
        ),
        "frame_track": ExportedProgram(
            "objects by what is remembered of them, and the frame remembered",
            track,
            features | state | plan,
            _FRAME,
        ),
    }


def _image_size(module: Sam2) -> tuple[int, int]:
    config = module.config
    if isinstance(config, Sam2VideoConfig):
        config = config.image_config
    height, width = config.image_size
    return height, width


def _float(*shape: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _of_prediction(found: MaskPrediction) -> Arrays:
    names = ("masks", "iou_scores", "object_score_logits")
    return {name: getattr(found, name) for name in names}


def _named(owner: str, values: Any) -> Arrays:
    return {f"{owner}.{name}": x for name, x in values._asdict().items()}


def _features(x: Arrays) -> FrameFeatures:
    return FrameFeatures(*(x[f"features.{name}"] for name in FrameFeatures._fields))


def _plan(x: Arrays) -> Plan:
    return Plan(*(x[f"plan.{name}"] for name in _PLAN))


def _features_of(module: Sam2Video, frames: int) -> Arrays:
    """Shapes and types of what encoded frames are."""
    pixels = _float(frames, *_image_size(module), 3)

    def encode(pixels: Any) -> Any:
        return module.init_with_output(jax.random.key(0), pixels, method="encode_frame")[0]

    found: Any = jax.eval_shape(encode, pixels)
    return found._asdict()
