"""`memory="motion"`: a steady motion chooses among the masks, and frames that break it are no memories.

Source: Yang et al. 2024, SAMURAI (arXiv:2411.11922), and its public code's constants; the filter is that of
Wojke et al. 2017, DeepSORT (arXiv:1703.07402). Different here: boxes are those of the logits at a quarter of
the network's size, an object is present above 0 and not above -1, and a prompt or a jump begins anew.
"""

import numpy as np

from sam2_jax.video.plan import Rules
from sam2_jax.video.policies.boxes import Box, box_of, overlap
from sam2_jax.video.policies.selected import SelectedMemory

STEADY = 15
"""So many frames in a row make a motion that is relied on."""
MIN_IOU = 0.3
"""Below, a mask's predicted IoU breaks the motion off."""
WEIGHT = 0.25
"""Of the motion, beside the predicted IoU, when a mask is chosen; SAMURAI's 0.15 for the large model is not
told apart."""


class BoxFilter:
    """A Kalman filter of a box: centre, aspect and height, the velocity of each; a frame is one step."""

    def __init__(self, box: Box) -> None:
        measured = _measure(box)
        height = measured[3]
        self._mean = np.concatenate([measured, np.zeros(4)])
        position, velocity = height / 20, height / 160
        spread = [2 * position, 2 * position, 1e-2, 2 * position]
        spread += [10 * velocity, 10 * velocity, 1e-5, 10 * velocity]
        self._covariance = np.diag(np.square(spread))

    def predict(self) -> Box:
        """Go on by a frame; returns where the box is expected."""
        step = np.eye(8) + np.eye(8, k=4)
        position, velocity = self._mean[3] / 20, self._mean[3] / 160
        noise = [position, position, 1e-2, position, velocity, velocity, 1e-5, velocity]
        self._mean = step @ self._mean
        self._covariance = step @ self._covariance @ step.T + np.diag(np.square(noise))
        x, y, aspect, height = self._mean[:4]
        width, height = max(aspect * height, 0.0), max(height, 0.0)
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2

    def update(self, box: Box) -> None:
        """Take in where the box was found."""
        position = self._mean[3] / 20
        noise = np.diag(np.square([position, position, 1e-1, position]))
        gain = np.linalg.solve(self._covariance[:4, :4] + noise, self._covariance[:4]).T
        self._mean = self._mean + gain @ (_measure(box) - self._mean[:4])
        self._covariance = self._covariance - gain @ self._covariance[:4]


def _measure(box: Box) -> np.ndarray:
    x0, y0, x1, y1 = box
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / (y1 - y0), y1 - y0])


class MotionMemory(SelectedMemory):
    """As selected memories, of frames where the object also is where its motion leads."""

    expects_motion = True

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self._begin_anew()

    def prompted(self, t: int) -> None:
        """Begin anew: the motion was another's."""
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._filter: BoxFilter | None = None
        self._steady = 0
        self._last: int | None = None
        self._predicted: Box | None = None

    def expect(self, t: int, direction: int) -> tuple[Box, float] | None:
        """Where the object is expected on frame t, and how much that counts; None without a motion."""
        if self._last != t - direction:
            self._begin_anew()
        self._last = t
        self._predicted = None if self._filter is None else self._filter.predict()
        if self._predicted is None:
            return None
        return self._predicted, WEIGHT if self._steady >= STEADY else 0.0

    def saw(self, t: int, low: np.ndarray, score: float, iou: float) -> None:
        """Follow the motion, and trust the frame or not."""
        super().saw(t, low, score, iou)
        box = box_of(low > 0)
        is_on_course = self._predicted is None or (box is not None and overlap(self._predicted, box) > 0)
        if not is_on_course:
            self.distrust(t)
        if box is None or (self._filter is not None and iou <= MIN_IOU):
            self._filter, self._steady = None, 0
        elif self._filter is None:
            self._filter, self._steady = BoxFilter(box), 1
        else:
            self._filter.update(box)
            self._steady += 1
