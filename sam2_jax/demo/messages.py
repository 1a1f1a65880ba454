"""What requests say, read and checked: JSON, prompts, masks."""

import json
from typing import Any

from sam2_jax.checks import read_flag, read_whole, shown
from sam2_jax.demo.media import Medium
from sam2_jax.processing.photo_prompts import read_box, read_labels, read_points

MOST_POINTS = 64
"""Of one object on one frame; more would be compiled for, and nobody clicks so often."""


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


def read_frame(values: dict[str, Any], medium: Medium, name: str = "frame") -> int:
    """The number of a frame, the first if none is given."""
    return read_whole(name, values.get(name, 0), 0, len(medium.source) - 1)


def read_prompts(values: dict[str, Any], medium: Medium) -> dict[str, Any]:
    """Points, labels and a box of an object, in pixels of the medium; {} of each that is not there."""
    points = read_points(values.get("points"), medium.size)
    if len(points) > MOST_POINTS:
        raise ValueError(f"points must be {MOST_POINTS} at most; got {len(points)}: begin another object")
    labels = read_labels(values.get("labels"), len(points))
    return {"points": points, "labels": labels, "box": read_box(values.get("box"), medium.size)}


def read_multimask(values: dict[str, Any], prompts: dict[str, Any]) -> bool:
    """Whether three candidates are wanted: after one click on the object, or as the message says."""
    given = values.get("multimask")
    if given is not None:
        return read_flag("multimask", given)
    return prompts["labels"] == (1,) and prompts["box"] is None
