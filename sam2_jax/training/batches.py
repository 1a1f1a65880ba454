"""Examples to batches: pictures resized and normalised, some of their objects as shares of cells."""

from collections.abc import Callable, Generator, Sequence
from functools import lru_cache, partial
from itertools import cycle, islice
from typing import Protocol, TypeVar

import jax
import numpy as np
from PIL import Image

from sam2_jax.checks import read_whole
from sam2_jax.processing.image_processor import Sam2ImageProcessor
from sam2_jax.training.examples import Dataset, Example, at_first
from sam2_jax.training.loading import loaded_ahead
from sam2_jax.training.step import Batch
from sam2_jax.training.synthetic.scenes import make_scene

Made = TypeVar("Made")


class Source(Protocol):
    """Where examples come from. A number always gets the same one, so that training can go on."""

    def example(self, number: int) -> Example:
        """The one of this number: a step takes those of the next numbers, from 0 on."""


class Scenes:
    """Synthetic scenes of the stream `seed`, each seen once, from number `first` on."""

    def __init__(self, seed: int, size: int, first: int = 0) -> None:
        self.seed, self.size = read_whole("seed", seed, 0), read_whole("size", size, 1)
        self.first = read_whole("first", first, 0)

    def example(self, number: int) -> Example:
        """One scene as an example."""
        index = self.first + number
        scene = make_scene(self.seed, index, self.size)
        return Example(f"scene {index} of stream {self.seed}", scene.image, scene.masks)


class Shuffled:
    """A dataset's examples, each once an epoch, every epoch in another order; damaged ones are left out.

    What takes the place of a damaged one is the next in order. Raises ValueError if there is no other.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def example(self, number: int) -> Example:
        """The one of this number; all epochs are numbered on."""
        size = len(self.dataset)
        epoch, first = divmod(number, size)
        order = shuffled(self.seed, epoch, size)
        for example in self.dataset.readable(int(order[(first + i) % size]) for i in range(size)):
            return example
        raise ValueError(f"no picture of the dataset can be used{at_first(self.dataset.problems)}")


@lru_cache(maxsize=2)  # an epoch may end within a batch
def shuffled(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of so many examples in an epoch."""
    return np.random.default_rng((seed, epoch)).permutation(size)


def make_batch(
    examples: Sequence[Example], processor: Sam2ImageProcessor, objects: int, rng: np.random.Generator
) -> tuple[Batch, int]:
    """Bring examples to a network's input, `objects` of each chosen at random, left and right at random.

    processor: resizes to the network's input, and does nothing else to a picture's shape. Where there are
    fewer objects they are taken again, to be prompted in another way. One that covers no half of any cell has
    no mask at the network's resolution, and is not chosen; if none is left, all is padding. Returns numpy
    arrays as `Batch` has them, and how many objects were too small.
    """
    height, width = processor.size["height"], processor.size["width"]
    images, masks, is_object, too_small = [], [], [], 0
    for example in examples:
        flip = slice(None, None, -1 if rng.random() < 0.5 else 1)
        images.append(example.image[:, flip])
        chosen, passed_over = _choose(example.masks[:, :, flip], (height // 4, width // 4), objects, rng)
        masks.append(chosen)
        is_object.append(np.full(objects, chosen.any()))
        too_small += passed_over
    pixels = np.asarray(processor(images)["pixel_values"], np.float32)
    return Batch(pixels, np.stack(masks), np.stack(is_object)), too_small


def _choose(
    masks: np.ndarray, size: tuple[int, int], count: int, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """`count` of masks [N, H, W], as shares of a coarser map's cells: float32 [count, *size], or zeros.

    Also how many were passed over since they are too small.
    """
    chosen: list[np.ndarray] = []
    passed_over = 0
    for index in rng.permutation(len(masks)):
        share = cell_shares(masks[index], size)
        if (share > 0.5).any():
            chosen.append(share)
        else:
            passed_over += 1
        if len(chosen) == count:
            break
    repeated = np.stack([*islice(cycle(chosen), count)]) if chosen else np.zeros((count, *size), np.float32)
    return repeated, passed_over


def cell_shares(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """How much of each cell of a map of size (height, width) a bool mask [H, W] covers: float32, 0 to 1."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BOX), np.float32) / 255


def batches(
    source: Source,
    processor: Sam2ImageProcessor,
    count: int,
    objects: int,
    seed: int,
    steps: Sequence[int],
    rows: Sequence[int] | None = None,
    workers: int = 0,
) -> Generator[tuple[Batch, int]]:
    """Batches of `count` examples for each of these steps, ahead: in a thread, or by workers.

    Each example is made ready by `make_batch`, with random numbers of its own, so that it is the same whoever
    makes it. rows: which of a batch's examples are made, those of one process of several; by default all.
    Also how many objects were too small. Raises ValueError if the workers cannot start or end early.
    """
    load = partial(_load, source, processor, objects, seed)
    return loaded_ahead(partial(in_rows, load, count, rows or range(count)), steps, workers)


def in_rows(
    load: Callable[[int], tuple[Made, int]], count: int, rows: Sequence[int], step: int
) -> tuple[Made, int]:
    """A step's batch of `count`, of which these rows are loaded by their numbers, and what was too small."""
    made, too_small = zip(*(load(step * count + row) for row in rows), strict=True)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *made), sum(too_small)


def _load(
    source: Source, processor: Sam2ImageProcessor, objects: int, seed: int, number: int
) -> tuple[Batch, int]:
    return make_batch([source.example(number)], processor, objects, np.random.default_rng((seed, number)))
