"""The state of a video: what is remembered of its objects, in arrays whose size does not grow with the clip.

P objects have K slots for conditioning frames (those with prompts) and R = num_maskmem - 1 slots for the
latest other frames; pointers have K slots and Q = max_object_pointers_in_encoder - 1. Which slot holds which
frame, and what a frame sees of them, is integers on the host: a `Plan` brings them, slot by slot. Attention
does not see the order of its keys, so nothing is ever moved or sorted.
"""

from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import export

from sam2_jax.config import Sam2VideoConfig


class VideoState(NamedTuple):
    """Slots of P objects; slots 0 ... K - 1 are those of conditioning frames, then the others follow.

    memory: [P, K + R, S, D], bfloat16 or float32, S = h w tokens of D channels. pointer: [P, K + Q, C],
    float32. What was never written is 0; what is no longer valid may stay.
    """

    memory: jax.Array
    pointer: jax.Array

    @classmethod
    def empty(
        cls, config: Sam2VideoConfig, objects: int, conditioning: int, memory_dtype: Any = jnp.bfloat16
    ) -> Self:
        """Slots for so many objects and conditioning frames of each."""
        patch = config.prompt_encoder_config.patch_size
        height, width = (side // patch for side in config.image_config.image_size)
        # A slot to write to, also where none is ever read.
        slots = conditioning + max(config.num_maskmem - 1, 1)
        pointers = conditioning + max(config.max_object_pointers_in_encoder - 1, 1)
        channels = config.memory_encoder_output_channels
        return cls(
            jnp.zeros((objects, slots, height * width, channels), memory_dtype),
            jnp.zeros((objects, pointers, config.vision_config.fpn_hidden_size), jnp.float32),
        )


class Plan(NamedTuple):
    """What a frame sees and writes of the slots of P objects. Arrays of NumPy or JAX.

    row: int32 [P, n], of each of the first n slots, its row of the temporal encoding; n is K + R, or fewer
    where those behind are not valid. valid: bool [P, n], whether the frame attends to the slot. offset:
    float32 [P, m] of each of the first m pointer slots, its signed distance in frames divided by the largest;
    pointer_valid: bool [P, m]. tracked: bool [P], objects to be computed and written, into slot and
    pointer_slot, int32 [P]. expected: None, or boxes float32 [P, 4], (x0, y0, x1, y1) in pixels of mask
    logits, in which objects are expected, and how much that counts beside the predicted IoU when a mask is
    chosen, float32 [P], 0 to 1.
    """

    row: Any
    valid: Any
    offset: Any
    pointer_valid: Any
    tracked: Any
    slot: Any
    pointer_slot: Any
    expected: tuple[Any, Any] | None = None

    @classmethod
    def blank(cls, state: VideoState) -> Self:
        """A plan for a frame that sees nothing of a state and is written into the first slots."""
        (objects, slots), pointers = state.memory.shape[:2], state.pointer.shape[1]
        first = jnp.zeros(objects, jnp.int32)
        return cls(
            row=jnp.zeros((objects, slots), jnp.int32),
            valid=jnp.zeros((objects, slots), bool),
            offset=jnp.zeros((objects, pointers), jnp.float32),
            pointer_valid=jnp.zeros((objects, pointers), bool),
            tracked=jnp.ones(objects, bool),
            slot=first,
            pointer_slot=first,
        )


class FrameOutput(NamedTuple):
    """What a frame says of P objects, float32.

    low: mask logits [P, 4 h, 4 w], NO_MASK all over where the object is absent; pointer: [P, C]; score:
    object score logit [P], positive where it is there; iou: the mask's predicted IoU [P].
    """

    low: jax.Array
    pointer: jax.Array
    score: jax.Array
    iou: jax.Array


class TrackedFrame(NamedTuple):
    """What tracking P objects on a frame gives: their output, and their memory [P, S, D] as it is stored.

    candidates: logits of all masks there were to choose from, float32 [P, M, 4 h, 4 w], if they are wanted.
    """

    output: FrameOutput
    memory: jax.Array
    candidates: jax.Array | None = None


for _tuple in (VideoState, Plan, FrameOutput, TrackedFrame):
    export.register_namedtuple_serialization(_tuple, serialized_name=f"sam2_jax.{_tuple.__name__}")


def store(
    state: VideoState,
    slot: jax.Array,
    pointer_slot: jax.Array,
    is_written: jax.Array,
    memory: jax.Array,
    pointer: jax.Array,
) -> VideoState:
    """Write memory [P, S, D] and pointer [P, C] of the objects for which is_written [P] is True.

    slot, pointer_slot: where to, int32 [P]. The memory is rounded to the state's type.
    """
    return VideoState(
        _put(state.memory, slot, is_written, memory), _put(state.pointer, pointer_slot, is_written, pointer)
    )


def _put(x: jax.Array, slot: jax.Array, is_written: jax.Array, new: jax.Array) -> jax.Array:
    """x [P, slots, ...] with new [P, ...] in each object's slot, in place where x is given away."""

    def put(own: jax.Array, slot: jax.Array, is_written: jax.Array, new: jax.Array) -> jax.Array:
        old = jax.lax.dynamic_index_in_dim(own, slot, keepdims=False)
        return jax.lax.dynamic_update_index_in_dim(
            own, jnp.where(is_written, new.astype(own.dtype), old), slot, 0
        )

    return jax.vmap(put)(x, jnp.asarray(slot), jnp.asarray(is_written), new)
