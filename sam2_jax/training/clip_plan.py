"""What each frame of a clip in training sees and writes of the memories: the tracker's rules, as arrays."""

from collections.abc import Collection

import jax
import numpy as np

from sam2_jax.config import Sam2VideoConfig
from sam2_jax.model.memory_bank import Plan
from sam2_jax.video.options import VideoOptions
from sam2_jax.video.plan import Slots, free_slot, roles


def clip_plan(
    config: Sam2VideoConfig, frames: int, corrected: Collection[int], most: int, objects: int
) -> Plan:
    """Plans of a clip's frames, in order, leaves [T, P, ...], for objects prompted on the same frames.

    corrected: frames that become conditioning frames beside the first. most: for so many of them there is
    room in the state, 1 + most conditioning slots. Of a conditioning frame `tracked` is False; row to
    pointer_valid say what it sees before it is corrected.
    """
    rules = VideoOptions().rules(config, frames)
    slots = Slots.empty(1 + most, rules, config.max_object_pointers_in_encoder - 1)
    conditioning: list[int] = []
    ordinary: list[int] = []
    plans = []
    for t in range(frames):
        layout = slots.lay_out(roles(t, 1, conditioning, ordinary, rules))
        is_conditioning = t == 0 or t in corrected
        if is_conditioning:
            slot = pointer_slot = len(conditioning)
            slots.conditioning[slot] = t
            conditioning.append(t)
        else:
            following = roles(t + 1, 1, conditioning, [*ordinary, t], rules)
            slot = free_slot(slots.memories, dict(following.spatial))
            pointer_slot = free_slot(slots.pointers, dict(following.pointers))
            slots.memories[slot] = slots.pointers[pointer_slot] = t
            slot, pointer_slot = 1 + most + slot, 1 + most + pointer_slot
            ordinary.append(t)
        plans.append(
            Plan(
                row=layout.row,
                valid=layout.valid,
                offset=layout.distance.astype(np.float32) / np.float32(max(rules.max_pointers - 1, 1)),
                pointer_valid=layout.pointer_valid,
                tracked=np.array(not is_conditioning),
                slot=np.int32(slot),
                pointer_slot=np.int32(pointer_slot),
            )
        )
    stacked: Plan = jax.tree.map(lambda *leaves: np.stack([np.stack(leaves)] * objects, axis=1), *plans)
    return stacked
