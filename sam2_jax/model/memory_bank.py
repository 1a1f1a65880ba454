"""The state of a video: what is remembered of its objects, in arrays whose size does not grow with the clip.

P objects have K slots for conditioning frames (those with prompts) and a ring of R = num_maskmem - 1 slots
for the latest other frames, which frame t takes at t mod R; pointers have the same K slots and a ring of
Q = max_object_pointers_in_encoder - 1. Which slot holds which frame, and what a frame sees of them, is
integers on the host: a `Plan` brings them, slot by slot. Attention does not see the order of its keys, so
nothing is ever moved or sorted.
"""

from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import export

from sam2_jax.config import Sam2VideoConfig


class VideoState(NamedTuple):
    """Slots of P objects; slots 0 ... K - 1 are those of conditioning frames, then the ring's follow.

    memory: [P, K + R, S, D], bfloat16 or float32, S = h w tokens of D channels. pointer: [P, K + Q, C],
    float32. low: [P, K, 4 h, 4 w], float32, a conditioning frame's mask logits. score and iou: [P, K + R],
    float32. What was never written is 0; what is no longer valid may stay.
    """

    memory: jax.Array
    pointer: jax.Array
    low: jax.Array
    score: jax.Array
    iou: jax.Array

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
            jnp.zeros((objects, conditioning, 4 * height, 4 * width), jnp.float32),
            jnp.zeros((objects, slots), jnp.float32),
            jnp.zeros((objects, slots), jnp.float32),
        )


class Plan(NamedTuple):
    """What a frame sees and writes of the slots of P objects. Arrays of NumPy or JAX.

    row: int32 [P, n], of each of the first n slots, its row of the temporal encoding; n is K + R, or fewer
    where those behind are not valid. valid: bool [P, n], whether the frame attends to the slot. offset:
    float32 [P, m] of each of the first m pointer slots, its signed distance in frames divided by the largest;
    pointer_valid: bool [P, m]. tracked: bool [P], objects to be computed and written. conditioning: bool [P],
    objects of which this is a conditioning frame, in conditioning_slot, int32 [P], of 0 ... K - 1. ring and
    pointer_ring: int32 [] or [P], where the ring is written, of 0 ... R - 1 and 0 ... Q - 1. expected: None,
    or boxes float32 [P, 4], (x0, y0, x1, y1) in pixels of mask logits, in which objects are expected, and how
    much that counts beside the predicted IoU when a mask is chosen, float32 [P], 0 to 1.
    """

    row: Any
    valid: Any
    offset: Any
    pointer_valid: Any
    tracked: Any
    conditioning: Any
    conditioning_slot: Any
    ring: Any
    pointer_ring: Any
    expected: tuple[Any, Any] | None = None

    @classmethod
    def blank(cls, state: VideoState) -> Self:
        """A plan for a frame that sees nothing of a state and writes the first slots of its rings."""
        (objects, slots), pointers = state.score.shape, state.pointer.shape[1]
        nowhere, never = jnp.zeros((objects, slots), jnp.int32), jnp.zeros(objects, bool)
        return cls(
            row=nowhere,
            valid=nowhere > 0,
            offset=jnp.zeros((objects, pointers), jnp.float32),
            pointer_valid=jnp.zeros((objects, pointers), bool),
            tracked=~never,
            conditioning=never,
            conditioning_slot=jnp.zeros(objects, jnp.int32),
            ring=jnp.zeros((), jnp.int32),
            pointer_ring=jnp.zeros((), jnp.int32),
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


for _tuple in (VideoState, Plan, FrameOutput):
    export.register_namedtuple_serialization(_tuple, serialized_name=f"sam2_jax.{_tuple.__name__}")


def store_ring(
    state: VideoState,
    ring: jax.Array,
    pointer_ring: jax.Array,
    is_written: jax.Array,
    output: FrameOutput,
    memory: jax.Array,
) -> VideoState:
    """Write a frame into the rings, at ring and pointer_ring, of the objects where is_written [P] is True.

    memory: [P, S, D], rounded to the state's type.
    """
    conditioning = state.low.shape[1]
    slots = jnp.broadcast_to(conditioning + jnp.asarray(ring), is_written.shape)
    pointer_slots = jnp.broadcast_to(conditioning + jnp.asarray(pointer_ring), is_written.shape)
    return _store(state, slots, pointer_slots, is_written, output, memory)


def store_conditioning(
    state: VideoState, slot: jax.Array, is_written: jax.Array, output: FrameOutput, memory: jax.Array
) -> VideoState:
    """Write a frame into conditioning slots [P] of the objects for which is_written [P] is True.

    memory: [P, S, D], rounded to the state's type.
    """
    low = _put(state.low, slot, is_written, output.low)
    return _store(state, slot, slot, is_written, output, memory)._replace(low=low)


def conditioning_output(state: VideoState, slot: jax.Array) -> FrameOutput:
    """What the conditioning frames in slots [P] say of their objects."""
    slot = jnp.asarray(slot)

    def at(x: jax.Array) -> jax.Array:
        return jax.vmap(lambda own, i: jax.lax.dynamic_index_in_dim(own, i, keepdims=False))(x, slot)

    return FrameOutput(at(state.low), at(state.pointer), at(state.score), at(state.iou))


def _store(
    state: VideoState,
    slot: jax.Array,
    pointer_slot: jax.Array,
    is_written: jax.Array,
    output: FrameOutput,
    memory: jax.Array,
) -> VideoState:
    return state._replace(
        memory=_put(state.memory, slot, is_written, memory),
        pointer=_put(state.pointer, pointer_slot, is_written, output.pointer),
        score=_put(state.score, slot, is_written, output.score),
        iou=_put(state.iou, slot, is_written, output.iou),
    )


def _put(x: jax.Array, slot: jax.Array, is_written: jax.Array, new: jax.Array) -> jax.Array:
    """x [P, slots, ...] with new [P, ...] in each object's slot, in place where x is given away."""

    def put(own: jax.Array, slot: jax.Array, is_written: jax.Array, new: jax.Array) -> jax.Array:
        old = jax.lax.dynamic_index_in_dim(own, slot, keepdims=False)
        return jax.lax.dynamic_update_index_in_dim(
            own, jnp.where(is_written, new.astype(own.dtype), old), slot, 0
        )

    return jax.vmap(put)(x, jnp.asarray(slot), jnp.asarray(is_written), new)
