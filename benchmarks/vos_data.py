"""Benchmarks of video object segmentation as they lie on disk: frames, and true masks of some of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam2_jax.clips.clip import Clip
from sam2_jax.clips.reading import open_clip
from sam2_jax.processing.images import natural_order
from sam2_jax.training.video_folders import read_labels

Masks = dict[int, np.ndarray]
"""Masks bool [H, W] of a frame, by object."""


@dataclass(frozen=True)
class Video:
    """A video of a benchmark.

    frames: its folder of pictures; truth: that of its true masks. annotated: the names of the frames that
    have some, in order. read: the masks of a frame, of any folder laid out as the truth.
    """

    name: str
    frames: Path
    truth: Path
    annotated: Sequence[str]
    read: Callable[[Path, str], Masks]

    def open(self) -> Clip:
        """Its pictures."""
        return open_clip(self.frames)

    def true_masks(self, name: str) -> Masks:
        """The true masks of a frame."""
        return self.read(self.truth, name)


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark lies on disk, and how it is run.

    frames, truth: where they lie in its folder; lists: where the list of a split's videos may lie. overlaps:
    whether masks may overlap; if not, a pixel is that object's whose logit is highest.
    """

    frames: str
    truth: str
    lists: tuple[str, ...]
    overlaps: bool


BENCHMARKS = {
    "davis17": Benchmark("JPEGImages/480p", "Annotations/480p", ("ImageSets/2017/{}.txt",), False),
    "sav": Benchmark("JPEGImages_24fps", "Annotations_6fps", ("sav_{}.txt", "../sav_{}.txt"), True),
}


def videos(dataset: str, path: Path, split: str) -> list[Video]:
    """The videos of a split. Raises ValueError for a folder that is not laid out as the benchmark."""
    layout = BENCHMARKS[dataset]
    for part in (layout.frames, layout.truth):
        if not (path / part).is_dir():
            raise ValueError(f"{path} is not laid out as {dataset}: there is no folder {part} in it")
    lists = [path / name.format(split) for name in layout.lists]
    names = next((file.read_text().split() for file in lists if file.is_file()), None)
    if names is None:
        raise ValueError(f"{path} has no list of the videos of {split}: there is no {lists[0]}")
    return [_video(layout, path, name) for name in names]


def _video(layout: Benchmark, path: Path, name: str) -> Video:
    frames, truth = path / layout.frames / name, path / layout.truth / name
    for folder in (frames, truth):
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder} of the video {name}")
    files = truth.rglob("*.png") if layout.overlaps else truth.glob("*.png")
    annotated = sorted({file.stem for file in files}, key=natural_order)
    if not annotated:
        raise ValueError(f"there is no true mask in {truth}")
    return Video(name, frames, truth, annotated, _read_folders if layout.overlaps else _read_labels)


def _read_labels(folder: Path, name: str) -> Masks:
    """Masks of a label map: a PNG with a palette, or grey."""
    labels = _read(folder / f"{name}.png")
    return {int(value): labels == value for value in np.unique(labels) if value}


def _read_folders(folder: Path, name: str) -> Masks:
    """Masks of a folder for each object; where it has none of a frame, the object is not there."""
    places = sorted(each for each in folder.iterdir() if each.is_dir() and each.name.isdecimal())
    found = {int(place.name): place / f"{name}.png" for place in places}
    return {key: _read(file) > 0 for key, file in found.items() if file.exists()}


def _read(path: Path) -> np.ndarray:
    if not path.exists():
        raise ValueError(f"there are no masks {path}")
    return read_labels(path)
