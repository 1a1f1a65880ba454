"""Clips to batches: frames resized and normalised, some objects as shares of cells, plans of memory."""

from collections.abc import Generator, Sequence
from functools import partial
from itertools import cycle, islice
from typing import NamedTuple, Protocol

import jax
import numpy as np

from sam2_jax.checks import read_whole
from sam2_jax.config import Sam2VideoConfig
from sam2_jax.processing.image_processor import Sam2ImageProcessor
from sam2_jax.training.batches import cell_shares, in_rows
from sam2_jax.training.clip_plan import clip_plan
from sam2_jax.training.clip_step import ClipBatch
from sam2_jax.training.loading import loaded_ahead
from sam2_jax.training.synthetic.clips import make_clip


class ClipExample(NamedTuple):
    """Pictures in a row and their objects. name: what errors and reports call it.

    images: uint8 [T, H, W, 3]. masks: bool [T, N, H, W], N >= 1, nothing where an object is not seen.
    """

    name: str
    images: np.ndarray
    masks: np.ndarray


class ClipSource(Protocol):
    """Where clips come from. A number always gets the same one, so that training can go on."""

    def example(self, number: int) -> ClipExample:
        """The one of this number, of as many frames as any: a step takes those of the next, from 0 on."""


class SyntheticClips:
    """Synthetic clips of the stream `seed`, each seen once, from number `first` on.

    strides: of each clip every so manieth frame is taken, one of these at random.
    """

    def __init__(
        self, seed: int, size: int, frames: int, strides: Sequence[int] = (1, 2, 3), first: int = 0
    ) -> None:
        self.seed, self.size = read_whole("seed", seed, 0), read_whole("size", size, 1)
        self.frames, self.first = read_whole("frames", frames, 1), read_whole("first", first, 0)
        self.strides = tuple(read_whole("strides", stride, 1) for stride in strides)

    def example(self, number: int) -> ClipExample:
        """One clip as an example."""
        index = self.first + number
        stride = int(np.random.default_rng((self.seed, index)).choice(self.strides))
        clip = make_clip(self.seed, index, self.frames, self.size, stride)
        return ClipExample(f"clip {index} of stream {self.seed}", clip.images, clip.masks)


def make_clip_batch(
    examples: Sequence[ClipExample],
    processor: Sam2ImageProcessor,
    config: Sam2VideoConfig,
    objects: int,
    corrected_frames: int,
    rng: np.random.Generator,
) -> tuple[ClipBatch, int]:
    """Bring clips to a network's input, forward or backward and left or right at random.

    objects: so many of each are chosen at random among those that are seen in the first frame, as half of any
    cell of the network's masks; where there are fewer they are taken again, to be prompted in another way; if
    there is none, all is padding. corrected_frames: at most so many frames behind the first are corrected.
    processor: resizes to the network's input, and does nothing else to a picture's shape. Returns numpy
    arrays as `ClipBatch` has them, and how many objects were too small.
    """
    height, width = processor.size["height"], processor.size["width"]
    pixels, masks, is_object, plans, too_small = [], [], [], [], 0
    for example in examples:
        flip = slice(None, None, -1 if rng.random() < 0.5 else 1)
        order = slice(None, None, -1 if rng.random() < 0.5 and example.masks[-1].any() else 1)
        chosen, passed_over = _choose(
            example.masks[order, :, :, flip], (height // 4, width // 4), objects, rng
        )
        images = [*example.images[order, :, flip]]
        pixels.append(np.asarray(processor(images)["pixel_values"], np.float32))
        masks.append(chosen)
        is_object.append(np.full(objects, chosen.any()))
        frames, count = len(images), int(rng.integers(corrected_frames + 1))
        corrected = 1 + rng.permutation(frames - 1)[:count]
        plans.append(clip_plan(config, frames, corrected.tolist(), corrected_frames, objects))
        too_small += passed_over
    plan = jax.tree.map(lambda *leaves: np.stack(leaves), *plans)
    return ClipBatch(np.stack(pixels), np.stack(masks), np.stack(is_object), plan), too_small


def _choose(
    masks: np.ndarray, size: tuple[int, int], count: int, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """`count` objects of masks [T, N, H, W], as shares of a coarser map's cells: [T, count, *size], or zeros.

    Also how many were passed over since what is seen of them in the first frame is too small.
    """
    chosen: list[np.ndarray] = []
    passed_over = 0
    for index in rng.permutation(masks.shape[1]):
        if len(chosen) == count:
            break
        if (cell_shares(masks[0, index], size) > 0.5).any():
            chosen.append(np.stack([cell_shares(mask, size) for mask in masks[:, index]]))
        elif masks[0, index].any():
            passed_over += 1
    if not chosen:
        return np.zeros((len(masks), count, *size), np.float32), passed_over
    return np.stack([*islice(cycle(chosen), count)], axis=1), passed_over


def clip_batches(
    source: ClipSource,
    processor: Sam2ImageProcessor,
    config: Sam2VideoConfig,
    count: int,
    objects: int,
    corrected_frames: int,
    seed: int,
    steps: Sequence[int],
    rows: Sequence[int] | None = None,
    workers: int = 0,
) -> Generator[tuple[ClipBatch, int]]:
    """Batches of `count` clips for each of these steps, by `make_clip_batch`, as `batches` does it."""
    load = partial(_load, source, processor, config, objects, corrected_frames, seed)
    return loaded_ahead(partial(in_rows, load, count, rows or range(count)), steps, workers)


def _load(
    source: ClipSource,
    processor: Sam2ImageProcessor,
    config: Sam2VideoConfig,
    objects: int,
    corrected_frames: int,
    seed: int,
    number: int,
) -> tuple[ClipBatch, int]:
    rng = np.random.default_rng((seed, number))
    return make_clip_batch([source.example(number)], processor, config, objects, corrected_frames, rng)
