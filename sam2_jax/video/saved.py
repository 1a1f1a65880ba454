"""Sessions in files: all that tracking on depends on. It goes on as if it had never stopped, to the bit.

Frames are not in the file; whoever loads it opens the same clip.
"""

import json
from collections.abc import Hashable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from sam2_jax.atomic import write_together
from sam2_jax.video.frames import Frames
from sam2_jax.video.objects import FramePrompts, Output, VideoObject
from sam2_jax.video.plan import Rules, Slots
from sam2_jax.video.policies.released import ReleasedMemory
from sam2_jax.video.state import Memories

_KINDS = ("conditioning", "ordinary", "pending", "kept")
_PARTS = ("low", "pointer", "memory")


def save_objects(
    path: Path,
    objects: Mapping[Hashable, VideoObject],
    memories: Memories,
    made_of: Mapping[str, Any],
    frames: int,
) -> None:
    """Write objects and what the device remembers of them, whole or not at all.

    made_of: all else on which that depends, as JSON has it. frames: how many there are so far. Raises
    ValueError if the file cannot be written, and for objects whose policy of memory keeps notes of its own,
    which the file has no place for.
    """
    arrays: dict[str, np.ndarray] = {}
    described = []
    for number, each in enumerate(objects.values()):
        if type(each.policy) is not ReleasedMemory:
            raise ValueError('only a session with memory="released" can be saved')
        outputs = {
            kind: [
                _put(arrays, f"{number}/{kind}/{t}", t, output) for t, output in getattr(each, kind).items()
            ]
            for kind in _KINDS
        }
        described.append(
            {
                "id": each.id if isinstance(each.id, str) else int(each.id),  # type: ignore[call-overload]
                "index": each.index,
                "slots": asdict(each.slots),
                "fixed": sorted(each.fixed),
                "prompts": [[t, asdict(prompts)] for t, prompts in each.prompts.items()],
                "outputs": outputs,
            }
        )
    for name, array in memories.to_arrays().items():
        arrays[f"state/{name}"] = _plain(array)
    about = {"made_of": made_of, "frames": frames, "objects": described}
    arrays["about"] = np.array(json.dumps(about))

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    write_together({path: write})


def load_objects(
    path: Path,
    memories: Memories,
    made_of: Mapping[str, Any],
    frames: Frames,
    rules: Rules,
    keep: int | None,
) -> dict[Hashable, VideoObject]:
    """Read objects back, and into empty memories what the device had of them.

    made_of: see `save_objects`. frames: those of the clip, as many as there were at least. keep: see
    `VideoObject`. Raises ValueError for what is no such file, or of another model, other options, a clip of
    another length or a stream of more frames than have come.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: _typed(file[name]) for name in file.files}
        about = json.loads(str(arrays.pop("about")[()]))
        if about["made_of"] != made_of:
            other = [name for name, value in made_of.items() if about["made_of"].get(name) != value]
            raise ValueError(f"it is of {' and '.join(f'other {name}' for name in other)}")
        if (count := about["frames"]) and not frames.has(count - 1):
            raise ValueError(f"it is of a stream of which {count} frames had come: add them again first")
        state = {name.removeprefix("state/"): a for name, a in arrays.items() if name.startswith("state/")}
        objects = {
            each["id"]: _object(number, each, arrays, rules, keep)
            for number, each in enumerate(about["objects"])
        }
        memories.from_arrays(state, objects.values())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # of every kind: what reads arrays meets broken files with all of them
        raise ValueError(f"{path} is no session of this model on this clip ({error})") from error
    return objects


def _put(arrays: dict[str, np.ndarray], name: str, t: int, output: Output) -> list[Any]:
    """Collect an output's arrays; returns its numbers: the frame, presence, IoU, direction."""
    for part in _PARTS:
        if (array := getattr(output, part)) is not None:
            arrays[f"{name}/{part}"] = _plain(array)
    return [t, output.score, output.iou, output.direction]


def _object(
    number: int,
    values: dict[str, Any],
    arrays: dict[str, np.ndarray],
    rules: Rules,
    keep: int | None,
) -> VideoObject:
    def output(kind: str, t: int, score: float, iou: float, direction: int | None) -> Output:
        low, pointer, memory = (arrays.get(f"{number}/{kind}/{t}/{part}") for part in _PARTS)
        if low is None or pointer is None:
            raise ValueError(f"frame {t} is not there")
        return Output(low, pointer, score, iou, memory, direction)

    prompts = {
        t: FramePrompts(
            tuple(map(tuple, each["points"])),
            tuple(each["labels"]),
            None if each["box"] is None else tuple(each["box"]),
        )
        for t, each in values["prompts"]
    }
    outputs: dict[str, Any] = {
        kind: {row[0]: output(kind, *row) for row in values["outputs"][kind]} for kind in _KINDS
    }
    return VideoObject(
        values["id"],
        values["index"],
        Slots(**values["slots"]),
        ReleasedMemory(rules),
        keep,
        fixed=set(values["fixed"]),
        prompts=prompts,
        **outputs,
    )


def _plain(array: Any) -> np.ndarray:
    """An array of a type that NumPy's files have: bfloat16 as its bits."""
    array = np.asarray(array)
    return array.view(np.uint16) if array.dtype == jnp.bfloat16 else array


def _typed(array: np.ndarray) -> np.ndarray:
    """The inverse of `_plain`: nothing else in a session is of 16 bits."""
    return array.view(jnp.bfloat16) if array.dtype == np.uint16 else array
