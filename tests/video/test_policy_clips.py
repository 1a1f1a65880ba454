"""Policies of memory in sessions on clips made for them: a look-alike that crosses, a bar that hides.

In the network's place stands one that sees colours, and so can be told what to mistake: its masks are right,
and its predicted IoUs are what the test is about. Pictures, sessions and policies are those of every clip.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from small_video import small_video_model

from sam2_jax import VideoTracker
from sam2_jax.model.memory_bank import FrameOutput, Plan, TrackedFrame, VideoState
from sam2_jax.model.sam2_video import overlaps
from sam2_jax.video import tracker

SIDE, LOW = 256, 64
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
WIDTH = 48
AREA = (WIDTH * LOW // SIDE) ** 2
Colour = tuple[int, int, int]
OBJECT, ALIKE, BAR = (250, 60, 40), (250, 120, 40), (90, 90, 90)
# A look-alike whose middle is so near to the object's, in pixels of the logits, is taken for it.
NEAR = 18


def picture(*squares: tuple[int, int, Colour], bar: tuple[int, int] | None = None) -> np.ndarray:
    """Squares (x, y, colour) on black, behind a bar from x to x."""
    found = np.zeros((SIDE, SIDE, 3), np.uint8)
    for x, y, colour in squares:
        found[y : y + WIDTH, max(x, 0) : max(x + WIDTH, 0)] = colour
    if bar is not None:
        found[:, slice(*bar)] = BAR
    return found


def crossing() -> np.ndarray:
    """The object goes right; from frame 8 on a look-alike comes towards it, and they pass on frame 22."""
    return np.stack([picture((10 + 6 * t, 60, OBJECT), (142 + 8 * (22 - t), 112, ALIKE)) for t in range(30)])


def occlusion() -> np.ndarray:
    """The object goes right, behind a bar of which it comes out again from frame 20 on."""
    return np.stack([picture((10 + 6 * t, 60, OBJECT), bar=(100, 172)) for t in range(30)])


class ByColour(NamedTuple):
    """Instead of the compiled steps: masks by colour, of the object, of both squares and of its look-alike.

    The predicted IoU of the object is 0.9 of what is seen of it; of a look-alike that is near, `mistaken`.
    """

    module: Any
    params: Any
    mesh: Any = None
    mistaken: float = 0.2

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        colours = (pixels[:, 2::4, 2::4] * STD + MEAN) * 255
        return np.stack([np.abs(colours - colour).max(axis=-1) < 20 for colour in (OBJECT, ALIKE)], axis=1)

    def frame_of(self, features: np.ndarray, index: int) -> np.ndarray:
        return features[index : index + 1]

    def prompt(self, features: np.ndarray, *prompt: Any, multimask: bool) -> FrameOutput:
        return jax.tree.map(lambda leaf: leaf[None], self._output(features[0, 0], 0.9))

    def remember(self, features: np.ndarray, *mask: Any) -> np.ndarray:
        return np.zeros((1, (SIDE // 16) ** 2, 8), np.float32)

    def track(
        self, features: np.ndarray, state: VideoState, plans: Plan, *, with_candidates: bool
    ) -> tuple[VideoState, TrackedFrame]:
        found = [self._track(frame, plans, i) for i, frame in enumerate(features)]
        output, candidates = jax.tree.map(lambda *leaves: np.stack(leaves)[:, None], *found)
        memory = np.zeros((len(found), *state.memory[:, 0].shape), state.memory.dtype)
        return state, TrackedFrame(output, memory, candidates)

    def _track(self, frame: np.ndarray, plans: Plan, i: int) -> tuple[FrameOutput, np.ndarray]:
        own, alike = frame
        masks = np.stack([own, own | alike, alike])
        ious = np.float32([0.9 * own.sum() / AREA, 0.1, self.mistaken if _are_near(own, alike) else 0.1])
        merit = ious
        if plans.expected is not None:
            boxes, weight = (part[i] for part in plans.expected)
            merit = weight[0] * np.asarray(overlaps(masks[None], boxes))[0] + (1 - weight[0]) * ious
        best = int(merit.argmax())
        return self._output(masks[best], float(ious[best])), np.where(masks, 5, -5).astype(np.float32)

    def _output(self, mask: np.ndarray, iou: float) -> FrameOutput:
        low = np.where(mask, 5, -5) if mask.any() else np.full(mask.shape, -1024)
        score = np.float32(5 if mask.any() else -5)
        return FrameOutput(low.astype(np.float32), np.zeros(16, np.float32), score, np.float32(iou))


def _are_near(own: np.ndarray, alike: np.ndarray) -> bool:
    if not (own.any() and alike.any()):
        return False
    return float(np.linalg.norm(np.argwhere(own).mean(axis=0) - np.argwhere(alike).mean(axis=0))) < NEAR


def session(monkeypatch: pytest.MonkeyPatch, clip: np.ndarray, memory: str, mistaken: float) -> VideoTracker:
    """A session on a clip, its object clicked on frame 0."""
    monkeypatch.setattr(tracker, "Steps", lambda *network: ByColour(*network, mistaken=mistaken))
    one = small_video_model().with_image_size(SIDE).video(clip, memory=memory)
    one.prompt(0, 1, [(30, 80)])
    return one


def wrong_frames(one: VideoTracker, clip: np.ndarray) -> list[int]:
    """Frames whose mask is not where the object is, if it is seen."""
    truth = ByColour(None, None).encode((clip / np.float32(255) - MEAN) / STD)[:, 0]
    return [each.frame for each in one.propagate() if ((each.logits[0] > 0) != truth[each.frame]).any()]


def attended(one: VideoTracker, t: int) -> list[int]:
    """Frames whose memories frame t attends to, the prompted one first."""
    return [f for f, _ in one._objects[1].roles(t, 1).spatial]


def test_a_look_alike_that_crosses_takes_the_mask_unless_the_motion_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip = crossing()
    near = [19, 20, 21, 22, 23, 24, 25]
    for memory, expected in (("released", near), ("selected", near), ("motion", [])):
        assert wrong_frames(session(monkeypatch, clip, memory, mistaken=0.95), clip) == expected


def test_frames_that_tell_a_look_alike_from_the_object_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one on which it comes into the picture, 8, and each that comes six later; three are attended to."""
    clip = crossing()
    one = session(monkeypatch, clip, "distractor", mistaken=0.7)
    assert wrong_frames(one, clip) == []
    assert list(one._objects[1].kept) == [14, 20, 26]
    # Besides, the frame right before, and of those behind it every fifth, of which 20 is there already.
    assert attended(one, 30) == [0, 26, 20, 14, 29, 25]
    released = session(monkeypatch, clip, "released", mistaken=0.7)
    assert wrong_frames(released, clip) == []
    assert attended(released, 30) == [0, 29, 28, 27, 26, 25, 24]


def test_frames_on_which_a_bar_hides_the_object_are_no_memories(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = occlusion()
    found = {}
    for memory in ("released", "selected", "motion", "distractor"):
        one = session(monkeypatch, clip, memory, mistaken=0.2)
        assert wrong_frames(one, clip) == []
        assert [t for t in range(30) if one.output(1, t).score < 0] == [15, 16, 17, 18, 19]
        found[memory] = attended(one, 26)
    # On 11 to 23 the predicted IoU is at most a half.
    assert found == {
        "released": [0, 25, 24, 23, 22, 21, 20],
        "selected": [0, 25, 24, 10, 9, 8, 7],
        "motion": [0, 25, 24, 10, 9, 8, 7],
        "distractor": [0, 25, 20, 10, 5],
    }
