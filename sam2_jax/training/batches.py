"""Examples to batches: pictures resized and normalised, some of their objects as shares of cells."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache, partial
from itertools import cycle, islice
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image

from sam2_jax.checks import read_whole
from sam2_jax.processing.image_processor import Sam2ImageProcessor
from sam2_jax.processing.read_ahead import read_ahead
from sam2_jax.training.examples import Dataset, Example, at_first
from sam2_jax.training.step import Batch
from sam2_jax.training.synthetic.scenes import make_scene

Loaded = TypeVar("Loaded")


class Source(Protocol):
    """Where examples come from. The same step always gets the same ones, so that training can go on."""

    def examples(self, step: int, count: int) -> list[Example]:
        """The examples of one step."""


class Scenes:
    """Synthetic scenes of the stream `seed`, each seen once, from number `first` on."""

    def __init__(self, seed: int, size: int, first: int = 0) -> None:
        self.seed, self.size = read_whole("seed", seed, 0), read_whole("size", size, 1)
        self.first = read_whole("first", first, 0)

    def examples(self, step: int, count: int) -> list[Example]:
        """The scenes of one step."""
        start = self.first + step * count
        return [self.example(index) for index in range(start, start + count)]

    def example(self, index: int) -> Example:
        """One scene as an example."""
        scene = make_scene(self.seed, index, self.size)
        return Example(f"scene {index} of stream {self.seed}", scene.image, scene.masks)


class Shuffled:
    """A dataset's examples, each once an epoch, every epoch in another order; damaged ones are left out.

    What takes the place of a damaged one is the next in order. Raises ValueError if there is no other.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def examples(self, step: int, count: int) -> list[Example]:
        """The examples of one step."""
        return [self._example(number) for number in range(step * count, (step + 1) * count)]

    def _example(self, number: int) -> Example:
        size = len(self.dataset)
        epoch, first = divmod(number, size)
        order = _shuffled(self.seed, epoch, size)
        for example in self.dataset.readable(int(order[(first + i) % size]) for i in range(size)):
            return example
        raise ValueError(f"no picture of the dataset can be used{at_first(self.dataset.problems)}")


@lru_cache(maxsize=2)  # an epoch may end within a batch
def _shuffled(seed: int, epoch: int, size: int) -> np.ndarray:
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
    processes: int = 0,
) -> Iterator[tuple[Batch, int]]:
    """What `make_batch` makes of `count` examples for each of these steps, ahead: in a thread, or processes.

    Raises ValueError if the processes cannot start or end early.
    """
    return loaded_ahead(partial(_load_batch, source, processor, count, objects, seed), steps, processes)


def loaded_ahead(load: Callable[[int], Loaded], steps: Sequence[int], processes: int = 0) -> Iterator[Loaded]:
    """What load makes of each step, ahead: in a thread, or in processes, which may end early: ValueError."""
    try:
        yield from read_ahead(load, steps, processes)
    except BrokenProcessPool as error:
        raise ValueError(
            f"processes={processes} ended before they were done. Each of them runs the program's file again: "
            'what trains must stand under `if __name__ == "__main__":`. If it does, they may have been short '
            "of memory; processes=0 needs none"
        ) from error


def _load_batch(
    source: Source, processor: Sam2ImageProcessor, count: int, objects: int, seed: int, step: int
) -> tuple[Batch, int]:
    return make_batch(source.examples(step, count), processor, objects, np.random.default_rng((seed, step)))
