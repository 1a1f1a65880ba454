"""How well a model tracks: J and F of objects prompted by one click on a clip's first frame, and presence.

The first frame, which was prompted, does not count. Source: the semi-supervised protocol of DAVIS, but with a
click for a mask.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from sam2_jax.processing.masks import depth_inside
from sam2_jax.processing.measures import contour_accuracy, region_similarity
from sam2_jax.progress import progress_bar
from sam2_jax.training.clip_batches import ClipExample
from sam2_jax.video.model import Sam2VideoModel

Point = tuple[float, float]
# Of an object that comes back: seen as so much of the picture, so many frames at a time.
_SEEN, _FRAMES = 0.001, 2


class ClipEvaluation(NamedTuple):
    """Means over objects of means over frames, 0 to 1. first: J of the first frame's masks.

    presence: of frames behind the first, the share on which presence was decided rightly; returning: the same
    of objects that go away for two frames or more and come back. clips, objects, returning_objects: how many.
    """

    region: float
    contour: float
    first: float
    presence: float
    returning: float
    clips: int
    objects: int
    returning_objects: int

    @property
    def both(self) -> float:
        """J&F, the mean of the two."""
        return (self.region + self.contour) / 2

    def __str__(self) -> str:
        return (
            f"{self.objects} objects of {self.clips} clips: J&F {self.both:.3f} (J {self.region:.3f}, F "
            f"{self.contour:.3f}), J of the first frame {self.first:.3f}; presence right {self.presence:.3f}"
            f", of {self.returning_objects} objects that come back {self.returning:.3f}"
        )


# Of a clip and a point on each object: for each frame, masks bool [N, H, W] and presence bool [N].
Tracker = Callable[[np.ndarray, list[Point]], Iterator[tuple[np.ndarray, np.ndarray]]]


def evaluate_clips(
    model: Sam2VideoModel, examples: Iterable[ClipExample], *, progress: bool = False, **options: Any
) -> ClipEvaluation:
    """Track every object of the examples that is seen in its first frame from a click deepest inside it.

    options: those of `Sam2VideoModel.video`, as memory. Raises ValueError if there are no examples.
    """

    def track(images: np.ndarray, points: list[Point]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        session = model.video(images, **options)
        for number, point in enumerate(points):
            session.prompt(0, number, points=[point])
        for found in session.propagate(start=0):
            yield found.masks, found.object_scores > 0

    return evaluate_tracker(track, examples, progress=progress)


def evaluate_tracker(
    track: Tracker, examples: Iterable[ClipExample], *, progress: bool = False
) -> ClipEvaluation:
    """The same of any way to track. Raises ValueError if there are no examples."""
    rows = [
        _evaluate_clip(track, example)
        for example in progress_bar(examples, desc="evaluating", unit="clip", show=progress)
    ]
    if not rows:
        raise ValueError("examples must not be empty: there is no clip to judge by that can be used")
    region, contour, first, presence, returns = (np.concatenate(part) for part in zip(*rows, strict=True))
    return ClipEvaluation(
        region=float(region.mean()),
        contour=float(contour.mean()),
        first=float(first.mean()),
        presence=float(presence.mean()),
        returning=float(presence[returns].mean()) if returns.any() else float("nan"),
        clips=len(rows),
        objects=len(region),
        returning_objects=int(returns.sum()),
    )


def _evaluate_clip(track: Tracker, example: ClipExample) -> tuple[np.ndarray, ...]:
    """J, F, J of the first frame, the share of right presence, and whether it comes back: [N] each."""
    truth = example.masks[:, example.masks[0].any(axis=(1, 2))]
    points = [_deepest(mask) for mask in truth[0]]
    regions, contours, right = [], [], []
    for t, (masks, presence) in enumerate(track(example.images, points)):
        pairs = list(zip(masks, truth[t], strict=True))
        regions.append([region_similarity(*pair) for pair in pairs])
        contours.append([contour_accuracy(*pair) for pair in pairs] if t else [0.0] * len(pairs))
        right.append(presence == np.any(truth[t], axis=(1, 2)))
    return (
        np.mean(regions[1:], axis=0),
        np.mean(contours[1:], axis=0),
        np.array(regions[0]),
        np.mean(right[1:], axis=0),
        comes_back(truth),
    )


def comes_back(truth: np.ndarray) -> np.ndarray:
    """Whether each object of masks [T, N, H, W] is gone for frames in a row, and then seen for some: [N]."""
    shares = truth.mean(axis=(2, 3))
    gone, seen = _in_a_row(shares == 0), _in_a_row(shares >= _SEEN)
    was_gone = np.logical_or.accumulate(gone, axis=0)
    found: np.ndarray = np.any(was_gone & seen, axis=0)
    return found


def _in_a_row(is_so: np.ndarray) -> np.ndarray:
    """Whether something is so, and was for frames before: bool [T, N]."""
    found = is_so.copy()
    for back in range(1, _FRAMES):
        found[back:] &= is_so[:-back]
        found[:back] = False
    return found


def _deepest(mask: np.ndarray) -> Point:
    y, x = np.unravel_index(depth_inside(mask).argmax(), mask.shape)
    return float(x), float(y)
