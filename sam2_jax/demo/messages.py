"""What requests say, read and checked: JSON, prompts, masks."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from sam2_jax.checks import read_flag, read_whole, shown
from sam2_jax.clips.tracking import Prompt
from sam2_jax.demo.media import Medium
from sam2_jax.processing.drawing import MAX_LABELS
from sam2_jax.processing.photo_prompts import read_box, read_labels, read_points
from sam2_jax.processing.rle import convert_rle, decode_rle

MOST_POINTS = 64
"""Of one object on one frame; more would be compiled for, and nobody clicks so often."""
MOST_POINTS_PER_SIDE = 64
"""Of the grid of clicks that finds everything."""
MOST_TRACKED = 64
"""Objects at once."""
MOST_MASK_PIXELS = 2**30
"""Of all masks that are prompts, which are drawn before the first is used; their run lengths are short."""

_DIRECTIONS = {"forward": "forward", "backward": "reverse", "both": "both"}


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises ValueError for anything else."""
    try:
        values = json.loads(body, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("the message must be a JSON object; got lists within lists without end") from error
    except ValueError as error:  # a UnicodeDecodeError too
        raise ValueError(f"the message must be a JSON object; got what is none: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"the message must be a JSON object; got {shown(values)}")
    return values


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def read_frame(values: dict[str, Any], medium: Medium) -> int:
    """The number of a frame, the first if none is given."""
    return read_whole("frame", values.get("frame", 0), 0, len(medium.source) - 1)


def read_prompts(values: dict[str, Any], medium: Medium) -> dict[str, Any]:
    """Points, labels and a box of an object, in pixels of the medium; {} of each that is not there."""
    points = read_points(values.get("points"), medium.size)
    if len(points) > MOST_POINTS:
        raise ValueError(f"points must be {MOST_POINTS} at most; got {len(points)}: begin another object")
    labels = read_labels(values.get("labels"), len(points))
    return {"points": points, "labels": labels, "box": read_box(values.get("box"), medium.size)}


def read_mask(name: str, rle: Any, medium: Medium) -> np.ndarray:
    """A mask of a frame, bool [H, W], from run lengths. Raises ValueError for those of another size, too."""
    check_mask(name, rle, medium)
    return decode_rle(rle)


def check_mask(name: str, rle: Any, medium: Medium) -> dict[str, Any]:
    """Compressed run lengths of a frame's mask. Raises ValueError for what is none."""
    found = convert_rle(rle, compressed=True)
    if found["size"] != list(medium.size):
        height, width = medium.size
        raise ValueError(f"{name} must be of [{height}, {width}] pixels; got {found['size']}")
    return found


def read_objects(values: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a message with their ids. Raises ValueError without any, and for two of one id."""
    found = values.get("objects")
    if not isinstance(found, list) or not found:
        raise ValueError(f"objects must be a list of at least one object; got {shown(found)}")
    read: dict[int, dict[str, Any]] = {}
    for each in found:
        if not isinstance(each, dict):
            raise ValueError(f"each of objects must be an object with an id; got {shown(each)}")
        id_ = read_whole("id", each.get("id"), 1, MAX_LABELS)
        if id_ in read:
            raise ValueError(f"each of objects must have an id of its own; got {id_} twice")
        read[id_] = each
    return list(read.items())


def read_track(values: dict[str, Any], medium: Medium) -> tuple[list[Prompt], str]:
    """What is to be tracked, and in which direction."""
    direction = values.get("direction", "forward")
    if direction not in list(_DIRECTIONS):
        raise ValueError(f"direction must be one of {', '.join(_DIRECTIONS)}; got {shown(direction)}")
    objects = read_objects(values)
    if len(objects) > MOST_TRACKED:
        raise ValueError(f"{MOST_TRACKED} objects at most are tracked at once; got {len(objects)}")
    found: dict[tuple[int, int], Prompt] = {}
    pixels = 0
    for id_, each in objects:
        prompts = each.get("prompts")
        if not isinstance(prompts, list) or not prompts:
            raise ValueError(f"object {id_} must have prompts on a frame; got {shown(prompts)}: click on it")
        for prompt in prompts:
            if not isinstance(prompt, dict):
                raise ValueError(f"object {id_}: a prompt must be an object; got {shown(prompt)}")
            read = _read_prompt(id_, prompt, medium)
            pixels += 0 if read.mask is None else read.mask.size
            if pixels > MOST_MASK_PIXELS:
                raise ValueError(f"masks may have {MOST_MASK_PIXELS:,} pixels in all: give fewer of them")
            if found.setdefault((id_, read.t), read) is not read:
                raise ValueError(f"object {id_} must have one prompt for each frame; got two for {read.t}")
    return list(found.values()), _DIRECTIONS[direction]


def _read_prompt(id_: int, values: dict[str, Any], medium: Medium) -> Prompt:
    t, mask = read_frame(values, medium), values.get("mask")
    read = read_prompts(values, medium)
    if mask is None and not read["points"] and read["box"] is None:
        raise ValueError(f"object {id_} must have points, a box or a mask on frame {t}; it has nothing there")
    return Prompt(t, id_, **read, mask=None if mask is None else read_mask("mask", mask, medium))


def read_previous(
    values: dict[str, Any], medium: Medium, is_kept: Callable[[str], bool]
) -> str | np.ndarray | None:
    """What is refined: the key of an earlier answer's mask, a mask of the medium, or nothing.

    Run lengths may have the key of the mask that they are: with it, if that is kept, it is refined itself.
    """
    previous = values.get("previous")
    if isinstance(previous, dict):
        key = previous.get("key")
        if isinstance(key, str) and is_kept(key):
            return key
        mask = read_mask("previous", previous, medium)
        return mask if mask.any() else None
    if previous is not None and not isinstance(previous, str):
        raise ValueError(f"previous must be a key, a mask's run lengths or null; got {shown(previous)}")
    return previous


def read_multimask(values: dict[str, Any], prompts: dict[str, Any]) -> bool:
    """Whether three candidates are wanted: after one click on the object, or as the message says."""
    given = values.get("multimask")
    if given is not None:
        return read_flag("multimask", given)
    return prompts["labels"] == (1,) and prompts["box"] is None
