"""Memories of all objects on the device: a cache, in few sizes, of what the objects' results are on the host.

Slots on the device are few and never moved (see `Slots`); visited in order, frames find theirs there. After a
jump, a correction or a turn of direction, `load` brings back what is wanted and known.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from sam2_jax.config import Sam2VideoConfig
from sam2_jax.model.memory_bank import Plan, VideoState
from sam2_jax.video.objects import Output, VideoObject
from sam2_jax.video.plan import EMPTY, Layout, Roles, Rules, Slots, free_slot
from sam2_jax.video.policies.released import ReleasedMemory

T = TypeVar("T")


def bucket(count: int) -> int:
    """The next power of two: of objects and of conditioning slots."""
    return 1 << max(count - 1, 0).bit_length()


@partial(jax.jit, static_argnames=("slots", "objects", "conditioning"))
def _grown(state: VideoState, slots: int, objects: int, conditioning: int) -> VideoState:
    """A larger copy: objects behind those there are, conditioning slots behind the `slots` there are."""

    def grow(leaf: jax.Array) -> jax.Array:
        new = jnp.zeros((len(leaf), conditioning - slots, *leaf.shape[2:]), leaf.dtype)
        wide = jnp.concatenate([leaf[:, :slots], new, leaf[:, slots:]], axis=1)
        return jnp.pad(wide, [(0, objects - len(leaf))] + [(0, 0)] * (leaf.ndim - 1))

    return VideoState(*map(grow, state))


@partial(jax.jit, donate_argnames="state")
def _with_memory(state: VideoState, index: int, slot: int, memory: jax.Array) -> VideoState:
    return state._replace(memory=state.memory.at[index, slot].set(memory.astype(state.memory.dtype)))


@partial(jax.jit, donate_argnames="state")
def _with_pointer(state: VideoState, index: int, slot: int, pointer: jax.Array) -> VideoState:
    return state._replace(pointer=state.pointer.at[index, slot].set(pointer))


class Memories:
    """What the network remembers of objects, each with an index of its own on the device."""

    def __init__(self, config: Sam2VideoConfig, rules: Rules, memory_dtype: Any) -> None:
        self._config = config
        self._rules = rules
        self._memory_dtype = memory_dtype
        self._pointers = config.max_object_pointers_in_encoder - 1
        self._conditioning = 1
        self._objects: list[VideoObject | None] = [None]
        self._state = self._empty()

    def _empty(self) -> VideoState:
        return VideoState.empty(self._config, len(self._objects), self._conditioning, self._memory_dtype)

    @property
    def state(self) -> VideoState:
        """The arrays on the device."""
        return self._state

    @property
    def objects(self) -> int:
        """How many objects there is room for."""
        return len(self._objects)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What is on the device, by the names of `VideoState`."""
        return {name: np.asarray(leaf) for name, leaf in self._state._asdict().items()}

    def from_arrays(self, arrays: Mapping[str, np.ndarray], objects: Iterable[VideoObject]) -> None:
        """Take over what `to_arrays` gave, and the objects that it is of.

        Raises ValueError for memories of another network or type.
        """
        rows, slots = arrays["memory"].shape[:2]
        conditioning = slots - len(self._no_slots().memories)
        found: list[VideoObject | None] = [None] * rows
        for each in objects:
            found[each.index] = each
        state = VideoState.empty(self._config, rows, conditioning, self._memory_dtype)
        leaves = []
        for name, leaf in state._asdict().items():
            array = arrays[name]
            if (array.dtype, array.shape) != (leaf.dtype, leaf.shape):
                raise ValueError(f"{name} is {array.dtype} {array.shape}, not {leaf.dtype} {leaf.shape}")
            leaves.append(jnp.asarray(array))
        self._state, self._objects, self._conditioning = VideoState(*leaves), found, conditioning

    def add(self, id_: Any, policy: ReleasedMemory, keep: int | None) -> VideoObject:
        """Make room for an object."""
        if None not in self._objects:
            self._grow(2 * len(self._objects), self._conditioning)
        index = self._objects.index(None)
        found = VideoObject(id_, index, self._no_slots(), policy, keep)
        self._objects[index] = found
        return found

    def remove(self, object_: VideoObject) -> None:
        """Give the room of an object to others."""
        self._objects[object_.index] = None

    def _no_slots(self) -> Slots:
        return Slots.empty(self._conditioning, self._rules, self._pointers)

    def _grow(self, objects: int, conditioning: int) -> None:
        self._state = _grown(self._state, self._conditioning, objects, conditioning)
        for each in filter(None, self._objects):
            each.slots.conditioning += [EMPTY] * (conditioning - self._conditioning)
        self._objects += [None] * (objects - len(self._objects))
        self._conditioning = conditioning

    def load(self, object_: VideoObject, wanted: Roles) -> None:
        """Bring to the device what is wanted of an object, is not there and is known."""
        slots = object_.slots
        memories, pointers = slots.missing(wanted)
        needed = {f for f, _ in (*wanted.spatial, *wanted.pointers)}
        for f in dict.fromkeys([*memories, *pointers]):
            if f in object_.conditioning or f in object_.kept:
                self._load_conditioning(object_, f, needed)
        for kind, frames, part in (
            ("memory", memories, wanted.spatial),
            ("pointer", pointers, wanted.pointers),
        ):
            held = slots.memories if kind == "memory" else slots.pointers
            for f in frames:
                if f in object_.ordinary and f not in slots.conditioning:
                    slot = free_slot(held, dict(part))
                    self._put(object_, kind, self._conditioning + slot, object_.ordinary[f])
                    held[slot] = f

    def _load_conditioning(self, object_: VideoObject, f: int, needed: set[int]) -> None:
        """Bring a conditioning frame to a slot of those, more of them if all are needed."""
        slots = object_.slots.conditioning
        if needed.issuperset(slots):
            self._grow(len(self._objects), bucket(len(slots) + 1))
        slot = free_slot(slots, needed)
        output = object_.conditioning[f] if f in object_.conditioning else object_.kept[f]
        for kind in ("memory", "pointer"):
            self._put(object_, kind, slot, output)
        slots[slot] = f

    def _put(self, object_: VideoObject, kind: str, slot: int, output: Output) -> None:
        if kind == "memory":
            self._state = _with_memory(self._state, object_.index, slot, output.memory)
        else:
            self._state = _with_pointer(self._state, object_.index, slot, output.pointer)

    def plan(
        self,
        wanted: Sequence[tuple[VideoObject, Roles]],
        writes: Sequence[tuple[int, int]] | None = None,
        *,
        alone: bool = False,
    ) -> Plan:
        """What the objects, whose roles are loaded, attend to, as arrays.

        writes: the slots, behind those of conditioning frames, of memory and pointer that each is written
        to. alone: for one object by itself, at index 0, instead of all there is room for.
        """
        rows = 1 if alone else len(self._objects)
        empty = self._no_slots().lay_out(Roles((), ()))
        layouts: list[Layout] = [empty] * rows
        tracked = np.zeros(rows, bool)
        slot, pointer_slot = np.zeros((2, rows), np.int32)
        for i, (object_, roles) in enumerate(wanted):
            at = 0 if alone else object_.index
            layouts[at] = object_.slots.lay_out(roles)
            if writes is not None:
                tracked[at] = True
                slot[at], pointer_slot[at] = (self._conditioning + free for free in writes[i])
        row, valid, distance, pointer_valid = (np.stack(part) for part in zip(*layouts, strict=True))
        largest = np.float32(max(self._rules.max_pointers - 1, 1))
        return Plan(
            row=row,
            valid=valid,
            offset=distance.astype(np.float32) / largest,
            pointer_valid=pointer_valid,
            tracked=tracked,
            slot=slot,
            pointer_slot=pointer_slot,
        )

    def plan_run(self, frames: Sequence[int], direction: int, objects: Sequence[VideoObject]) -> list[Plan]:
        """Plan to track objects on frames one after the other, whose memories their slots then hold.

        The first, and as many behind it as need nothing to be loaded, and lose nothing that could not be
        loaded again if the run were broken off before them.
        """
        plans: list[Plan] = []
        for i, t in enumerate(frames):
            plan = self._plan_next(t, direction, objects, frames[:i])
            if plan is None:
                break
            plans.append(plan)
        return plans

    def _plan_next(
        self, t: int, direction: int, objects: Sequence[VideoObject], before: Sequence[int]
    ) -> Plan | None:
        """A plan for frame t, of a run of which some frames come before; None if it has to end there."""
        wanted = [(each, each.roles(t, direction)) for each in objects]
        if before and any(each.could_load(roles, before) for each, roles in wanted):
            return None
        if before and any(t in each.slots.frames and t not in each.ordinary for each in objects):
            return None
        for each, roles in wanted:
            each.forget(t)
            self.load(each, roles)
        writes = [self._slots_to_write(each, t, direction) for each in objects]
        for each, (memory, pointer) in zip(objects, writes, strict=True):
            lost = {each.slots.memories[memory], each.slots.pointers[pointer]} - {EMPTY}
            if before and not lost <= {*each.ordinary, *before}:
                return None
        plan = self.plan(wanted, writes)
        if any(each.policy.expects_motion for each in objects):
            plan = plan._replace(expected=self._expected(t, direction, objects))
        for each, (memory, pointer) in zip(objects, writes, strict=True):
            each.slots.memories[memory] = each.slots.pointers[pointer] = t
        return plan

    def update(self, step: Callable[[VideoState], tuple[VideoState, T]]) -> T:
        """Give the state away to a step, and keep what it makes of it; returns what else it gives."""
        self._state, found = step(self._state)
        return found

    def _expected(
        self, t: int, direction: int, objects: Sequence[VideoObject]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes in which the objects are expected, and how much each counts: see `Plan`."""
        boxes, weights = np.zeros((self.objects, 4), np.float32), np.zeros(self.objects, np.float32)
        for each in objects:
            if (expected := each.policy.expect(t, direction)) is not None:
                boxes[each.index], weights[each.index] = expected
        return boxes, weights

    def _slots_to_write(self, object_: VideoObject, t: int, direction: int) -> tuple[int, int]:
        """Slots for the memory and the pointer of frame t, which the frame after it does not need."""
        following = object_.roles(t + direction, direction, also=t)
        held = (object_.slots.memories, following.spatial), (object_.slots.pointers, following.pointers)
        memory, pointer = (free_slot(slots, dict(part)) for slots, part in held)
        return memory, pointer

    def start_again(self) -> None:
        """After a failure the state, given away to the step, is lost; what is known will be loaded again."""
        for each in filter(None, self._objects):
            each.slots = self._no_slots()
        self._state = self._empty()
