"""How things and the camera of a synthetic clip move: places, turns and sizes as functions of time.

Time is counted in frames, lengths in picture sides. At time 0 everything is as it was painted.
"""

import math
from typing import NamedTuple

import numpy as np

from sam2_jax.training.synthetic.shapes import rotation

_FASTEST = 0.04  # of what sways, in picture sides a frame
# How far the camera strays at most, in picture sides: so much is painted around the picture.
CAMERA_MARGIN = 0.16


class Wave(NamedTuple):
    """A value that sways around another: 0 at time 0."""

    amplitude: float
    period: float
    phase: float

    def at(self, times: np.ndarray) -> np.ndarray:
        """Values at times [T]."""
        phases = 2 * math.pi * times / self.period + self.phase
        return self.amplitude * (np.sin(phases) - math.sin(self.phase))


def random_wave(rng: np.random.Generator, most: float, fastest: float = math.inf) -> Wave:
    """A wave that strays by up to `most`, by no more than `fastest` a frame."""
    period = math.exp(rng.uniform(math.log(14), math.log(60)))
    amplitude = min(rng.uniform(0, most), fastest * period / (2 * math.pi))
    return Wave(amplitude, period, rng.uniform(0, 2 * math.pi))


class Trip(NamedTuple):
    """Leaving the picture and coming back: by `way` [2], from `start` on, in so many frames each."""

    way: np.ndarray
    start: float
    out: float
    away: float
    back: float

    def at(self, times: np.ndarray) -> np.ndarray:
        """Offsets [T, 2] at times [T]."""
        leaving = _smooth((times - self.start) / self.out)
        returning = _smooth((times - self.start - self.out - self.away) / self.back)
        return (leaving - returning)[:, None] * self.way


def _smooth(x: np.ndarray) -> np.ndarray:
    x = x.clip(0, 1)
    return x * x * (3 - 2 * x)


class Motion(NamedTuple):
    """What a thing does: it sways, turns, grows, is seen from the side; it drifts by, or makes a trip.

    drift: [2] a frame.
    """

    x: Wave
    y: Wave
    turn: Wave
    growth: Wave
    squeeze: Wave
    drift: np.ndarray
    trip: Trip | None

    def offsets(self, times: np.ndarray) -> np.ndarray:
        """How far from its place, [T, 2]."""
        found = np.stack([self.x.at(times), self.y.at(times)], axis=-1) + times[:, None] * self.drift
        return found if self.trip is None else found + self.trip.at(times)

    def shapes(self, times: np.ndarray) -> np.ndarray:
        """By which matrices points (x, y) around its centre are multiplied, from the left: [T, 2, 2]."""
        turns, growths = self.turn.at(times), np.exp(self.growth.at(times))
        narrow = np.exp(-np.abs(self.squeeze.at(times)))
        return np.stack(
            [
                rotation(turn).T * (growth * np.array([squeeze, 1]))
                for turn, growth, squeeze in zip(turns, growths, narrow, strict=True)
            ]
        )


def random_motion(rng: np.random.Generator, place: np.ndarray, extent: float) -> Motion:
    """What a thing of a length at a place [2] does; every fifth stands still, every fourth makes a trip."""
    moves, grows, turns, squeezes = rng.uniform(size=4) < (0.8, 0.6, 0.7, 0.4)
    x, y = (random_wave(rng, 0.3 * moves, _FASTEST) for _ in range(2))
    return Motion(
        x=x,
        y=y,
        turn=random_wave(rng, 1.2 * turns, 0.15),
        growth=random_wave(rng, 0.35 * grows, 0.06),
        squeeze=random_wave(rng, 0.4 * squeezes, 0.06),
        drift=rng.normal(0, 0.01, 2) * (rng.uniform() < 0.15),
        trip=_random_trip(rng, place, extent) if rng.uniform() < 0.25 else None,
    )


def _random_trip(rng: np.random.Generator, place: np.ndarray, extent: float) -> Trip:
    """Over the nearest edge, mostly, and far enough to be gone."""
    gaps = np.concatenate([place, 1 - place]) * np.exp(rng.normal(0, 0.3, 4))
    side = int(gaps.argmin())
    axis, sign = side % 2, 1 if side >= 2 else -1
    way = np.empty(2)
    way[axis] = sign * ((1 - place[axis] if sign > 0 else place[axis]) + 0.6 * extent + 0.15)
    way[1 - axis] = rng.normal(0, 0.15)
    out, back = rng.uniform(3, 6, 2)
    return Trip(way, rng.uniform(2, 9), out, rng.uniform(2, 6), back)


def random_passage(rng: np.random.Generator, target: np.ndarray) -> tuple[np.ndarray, Motion]:
    """Where a thing is at time 0, and its motion, that passes in front of a place `target` [2] once."""
    angle, speed, when = rng.uniform(0, 2 * math.pi), rng.uniform(0.05, 0.13), rng.uniform(4, 14)
    drift = np.array([math.cos(angle), math.sin(angle)]) * speed
    still = Wave(0, 1, 0)
    turn = random_wave(rng, 0.6, 0.1)
    return target - drift * when, Motion(still, still, turn, still, still, drift, None)


class Camera(NamedTuple):
    """How a camera moves: it pans, turns and zooms, and shakes as a hand does."""

    x: Wave
    y: Wave
    turn: Wave
    zoom: Wave
    shake: tuple[Wave, ...]

    def views(self, times: np.ndarray) -> np.ndarray:
        """Matrices [T, 3, 3] from places in the scene (x, y, 1) to those in the picture, in picture sides."""
        shifts = np.stack([self.x.at(times), self.y.at(times)], axis=-1)
        for i, wave in enumerate(self.shake):
            shifts[:, i % 2] += wave.at(times)
        views = np.tile(np.eye(3), (len(times), 1, 1))
        turns, zooms = self.turn.at(times), np.exp(self.zoom.at(times))
        for view, turn, zoom, shift in zip(views, turns, zooms, shifts, strict=True):
            view[:2, :2] = rotation(turn).T * zoom
            view[:2, 2] = 0.5 + shift - view[:2, :2] @ (0.5, 0.5)
        return views


def random_camera(rng: np.random.Generator) -> Camera:
    """A camera at rest, or held by hand."""
    moves, shakes = rng.uniform(size=2) < (0.6, 0.5)
    shake = 0.006 * shakes * rng.uniform()
    return Camera(
        x=random_wave(rng, 0.04 * moves, 0.015),
        y=random_wave(rng, 0.04 * moves, 0.015),
        turn=random_wave(rng, 0.025 * moves),
        zoom=random_wave(rng, 0.02 * moves),
        shake=tuple(Wave(shake, rng.uniform(2.1, 5), rng.uniform(0, 2 * math.pi)) for _ in range(4)),
    )
