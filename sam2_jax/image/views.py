"""The crops of photos on their way through the network, in batches that are made ready ahead."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np

from sam2_jax.processing.candidates import Candidate
from sam2_jax.processing.crops import Box
from sam2_jax.processing.read_ahead import read_ahead


class View:
    """A crop of a photo, of a layer of crops, and the candidates found in it."""

    def __init__(self, search: "Search", box: Box, layer: int) -> None:
        self.search, self.box, self.layer = search, box, layer
        self.found: list[Candidate] = []


class Search:
    """A photo, uint8 [H, W, 3], whose masks are looked for: crops by layer, and what was chosen so far.

    left: how many crops are still to be looked at. is_begun: whether anything was.
    """

    def __init__(self, picture: np.ndarray, layers: Sequence[Sequence[Box]]) -> None:
        self.picture, self.layers = picture, layers
        self.left = sum(map(len, layers))
        self.is_begun = False
        self.chosen: list[Any] = []


def batches_of_views(
    searches: Iterable[Search], size: int, pixels: Callable[[View], np.ndarray], threads: int
) -> Generator[tuple[list[View], np.ndarray]]:
    """Views of one layer, and their pixels [size, H, W, 3]; of too few, the last fills the places left.

    The views of so many photos are mixed; of one photo they come in order. pixels makes those of a view, in
    threads.
    """

    def load(placed: tuple[View, bool]) -> tuple[View, bool, np.ndarray]:
        return *placed, pixels(placed[0])

    views: list[View] = []
    arrays: list[np.ndarray] = []
    with closing(read_ahead(load, _in_order(searches, size), threads=threads, ahead=size)) as loaded:
        for view, is_last, array in loaded:
            views.append(view)
            arrays.append(array)
            if is_last:
                arrays += arrays[-1:] * (size - len(arrays))
                yield views, np.stack(arrays)
                views, arrays = [], []


def _in_order(searches: Iterable[Search], size: int) -> Iterator[tuple[View, bool]]:
    """The views of so many photos by layer, and whether a batch ends with this one."""
    coming = iter(searches)
    while together := list(islice(coming, size)):
        for layer in range(len(together[0].layers)):
            boxes = [[(search, box) for box in search.layers[layer]] for search in together]
            places = zip(*boxes, strict=True)
            views = [View(search, box, layer) for place in places for search, box in place]
            for i, view in enumerate(views, 1):
                yield view, i % size == 0 or i == len(views)
