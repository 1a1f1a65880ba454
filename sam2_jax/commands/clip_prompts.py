"""Prompts for clips on the command line: each with the frame that it is for."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_jax.checkpoint.embedded import SAMPLE_POINTS
from sam2_jax.commands.common import whole
from sam2_jax.commands.prompts import numbers, read_mask_file
from sam2_jax.processing.images import MAX_PIXELS
from sam2_jax.processing.photo_prompts import read_box, read_points

if TYPE_CHECKING:
    from sam2_jax.clips.clip import Clip
    from sam2_jax.clips.tracking import Prompt


@dataclass
class Given:
    """What was said of one object: points with their labels, a box and a mask, each with its frame."""

    points: list[tuple[tuple[float, float], int, int | None]] = field(default_factory=list)
    boxes: list[tuple[tuple[float, float, float, float], int | None]] = field(default_factory=list)
    masks: list[tuple[Path, int | None]] = field(default_factory=list)

    def on(self, frame: int, usual: int) -> "Given":
        """Those for a frame. usual: the frame of those without one."""

        def here(values: Any) -> Any:
            return [each for each in values if (usual if each[-1] is None else each[-1]) == frame]

        return Given(here(self.points), here(self.boxes), here(self.masks))


class _AddPrompt(argparse.Action):
    """Collects --point, --negative, --box and --mask into the object begun by the last --object."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        given = namespace.prompts = namespace.prompts or []
        if self.const == "object":
            namespace.begins_object = True
            return
        if not given or getattr(namespace, "begins_object", False):
            given.append(Given())
            namespace.begins_object = False
        if self.const == "box":
            given[-1].boxes.append(values)
        elif self.const == "mask":
            given[-1].masks.append(values)
        else:
            given[-1].points.append((values[0], 1 if self.const == "point" else 0, values[1]))


def _on_frame(kind: Any) -> Any:
    """What reads a value and, behind an @, the number of a frame."""

    def parse(text: str) -> tuple[Any, int | None]:
        value, at, frame = text.rpartition("@")
        # os.path's `exists`, for a Path's raises for what can be no path.
        if at and frame.isdecimal() and not (kind is Path and os.path.exists(text)):
            return kind(value), whole(frame)
        return kind(text), None

    return parse


def add_prompts(command: argparse.ArgumentParser) -> None:
    """The options that collect prompts: a list of `Given`, one for each object."""
    prompt: dict[str, Any] = {"action": _AddPrompt, "dest": "prompts"}
    point, box = _on_frame(numbers(2, "x,y")), _on_frame(numbers(4, "x0,y0,x1,y1"))
    for name, kind, metavar, meaning in (
        ("point", point, "X,Y[@FRAME]", "a point on the object"),
        ("negative", point, "X,Y[@FRAME]", "a point off it"),
        ("box", box, "X0,Y0,X1,Y1[@FRAME]", "a box around it"),
        ("mask", _on_frame(Path), "FILE[@FRAME]", "the object itself: a picture, white inside"),
    ):
        command.add_argument(f"--{name}", const=name, type=kind, metavar=metavar, help=meaning, **prompt)
    command.add_argument("--object", const="object", nargs=0, help="begin the next object", **prompt)


def sample_prompts(frame: int) -> list[Given]:
    """A click on each of three things of the sample, on one of its frames."""
    from sam2_jax.clips.sample import on_frame

    return [Given(points=[(on_frame(point, frame), 1, frame)]) for point in SAMPLE_POINTS]


def read_prompts(given: Sequence[Given], clip: "Clip", usual: int) -> "list[Prompt]":
    """Prompts on frames of the clip, one for each object and frame.

    usual: the frame of those without one. Raises ValueError for frames that are not taken, and for points,
    boxes and masks that are not on the clip.
    """
    found = []
    for object_id, each in enumerate(given, 1):
        named: list[Any] = [*each.masks, *each.boxes, *each.points]
        for frame in dict.fromkeys(usual if frame is None else frame for *_, frame in named):
            try:
                found.append(_prompt(object_id, each.on(frame, usual), frame, clip))
            except ValueError as error:
                raise ValueError(f"object {object_id}, frame {frame}: {error}") from error
    return found


def _prompt(object_id: int, given: Given, frame: int, clip: "Clip") -> "Prompt":
    from sam2_jax.clips.tracking import Prompt

    if frame not in clip.numbers:
        stride = f", every {clip.numbers.step}th" if clip.numbers.step > 1 else ""
        raise ValueError(
            f"the frame must be one of those taken, {clip.numbers[0]} to {clip.numbers[-1]}{stride}"
        )
    for name, values in (("box", given.boxes), ("mask", given.masks)):
        if len(values) > 1:
            raise ValueError(f"--{name} is given twice; begin the next object with --object")
    points = tuple(point for point, _, _ in given.points)
    read_points(points, clip.size)
    height, width = clip.size
    most = max(MAX_PIXELS, height * width)  # of a clip that is larger than usual a mask is, too
    return Prompt(
        clip.numbers.index(frame),
        object_id,
        points,
        tuple(label for _, label, _ in given.points),
        read_box(given.boxes[0][0] if given.boxes else None, clip.size),
        read_mask_file(given.masks[0][0], height, width, most, "the frames") if given.masks else None,
    )
