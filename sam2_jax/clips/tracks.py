"""What was found on a frame, as it is stored and written: masks as run lengths, scores."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sam2_jax.processing.rle import convert_rle, decode_rle, encode_rle, rle_area
from sam2_jax.video.results import FrameMasks


@dataclass(frozen=True)
class Track:
    """An object on a frame.

    object_id: from 1 on. rle: COCO's run lengths, compressed. iou: predicted IoU, 0 to 1. presence: logit,
    positive where the object is there. is_prompted: whether the mask is that of prompts.
    """

    object_id: int
    rle: dict[str, Any]
    iou: float
    presence: float
    is_prompted: bool = False

    @cached_property
    def mask(self) -> np.ndarray:
        """The mask, bool [H, W]."""
        return decode_rle(self.rle)

    @cached_property
    def area(self) -> int:
        """Its pixels."""
        return rle_area(self.rle)

    @property
    def score(self) -> float:
        """How sure it is: the predicted IoU times the probability that the object is there."""
        return self.iou / (1 + math.exp(-max(min(self.presence, 80.0), -80.0)))


@dataclass(frozen=True)
class TrackedFrame:
    """Frame t of a clip and its objects, by their ids; an object that is hidden has an empty mask."""

    t: int
    tracks: tuple[Track, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "t": self.t,
            "objects": [
                [
                    each.object_id,
                    each.rle["size"],
                    each.rle["counts"],
                    each.iou,
                    each.presence,
                    each.is_prompted,
                ]
                for each in self.tracks
            ],
        }

    @classmethod
    def from_json(cls, values: Any) -> "TrackedFrame":
        """The inverse. Raises ValueError, TypeError or LookupError for what is none."""
        tracks = [
            Track(
                int(object_id),
                convert_rle({"size": size, "counts": counts}, compressed=True),
                float(iou),
                float(presence),
                bool(is_prompted),
            )
            for object_id, size, counts, iou, presence, is_prompted in values["objects"]
        ]
        return cls(int(values["t"]), tuple(tracks))


Add = Callable[[TrackedFrame, np.ndarray], None]
"""Takes the next frame of a clip: what was tracked on it, and its picture uint8 [H, W, 3]."""


def tracked_frame(found: FrameMasks) -> TrackedFrame:
    """A session's result, whose ids are whole numbers, with masks at the clip's size."""
    tracks = [
        Track(
            int(str(object_id)),
            encode_rle(found.masks[i], compressed=True),
            round(float(found.scores[i]), 5),
            round(float(found.object_scores[i]), 4),
            bool(found.is_conditioning[i]),
        )
        for i, object_id in enumerate(found.object_ids)
    ]
    return TrackedFrame(found.frame, tuple(sorted(tracks, key=lambda track: track.object_id)))
