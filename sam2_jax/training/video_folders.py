"""Datasets of videos in folders, as DAVIS and YouTube-VOS have them, read a few frames at a time.

JPEGImages/SEQUENCE/*.jpg and Annotations/SEQUENCE/*.png, or both with one folder between, a resolution's
(JPEGImages/480p/SEQUENCE). Annotations have a value for each object, 0 for the background, mostly by way of a
palette; a frame without an annotation is not used.
"""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sam2_jax.checks import read_flag, read_whole
from sam2_jax.processing.images import natural_order, open_image, pictures_in, to_rgb
from sam2_jax.training.batches import shuffled
from sam2_jax.training.clip_batches import ClipExample
from sam2_jax.training.examples import at_first, dimensions
from sam2_jax.training.label_maps import bright

PICTURES, ANNOTATIONS = "JPEGImages", "Annotations"
# A void of some annotations: neither object nor background.
_VOID = 255


class NothingAnnotatedError(ValueError):
    """Of frames in order, the first has no object: others of the video may."""


@dataclass(frozen=True)
class Video:
    """A video: its annotated frames in order, a picture and an annotation each."""

    name: str
    frames: tuple[tuple[Path, Path], ...]

    @property
    def source(self) -> str:
        """The video itself."""
        return self.name


@dataclass(frozen=True, eq=False)
class VideoDataset:
    """Videos by number: `len(dataset)`, `dataset.read(index, frames)`.

    problems: a sentence for each thing that is damaged or missing, and left out; those that only show when
    frames are read are added then. one_object: each annotation is of one object, bright on black, whatever
    its value.
    """

    entries: tuple[Video, ...] = field(repr=False)
    problems: list[str] = field(default_factory=list, repr=False)
    one_object: bool = False

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, index: int, frames: Sequence[int]) -> ClipExample:
        """Read some frames of a video, with the objects of the first of them that are seen there.

        Raises ValueError if its files are damaged, NothingAnnotatedError if nothing is seen in the first of
        these frames.
        """
        sequence = self.entries[index]
        images: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        for number in frames:
            photo, annotation = sequence.frames[number]
            images.append(to_rgb(open_image(photo)))
            labels.append(bright(open_image(annotation)) if self.one_object else read_labels(annotation))
            for found, path in ((images[-1], photo), (labels[-1], annotation)):
                if found.shape[:2] != images[0].shape[:2]:
                    raise ValueError(
                        f"{path} is {dimensions(found.shape)}, the video {dimensions(images[0].shape)}"
                    )
        values = np.setdiff1d(np.unique(labels[0]), (0, _VOID))
        if not len(values):
            raise NothingAnnotatedError(f"nothing is annotated in {sequence.frames[frames[0]][1]}")
        masks = np.stack(labels)[:, None] == values.reshape(1, -1, 1, 1)
        return ClipExample(f"{sequence.name}, frames {frames[0]} to {frames[-1]}", np.stack(images), masks)

    def fingerprint(self) -> str:
        """What tells this data from other data, wherever it lies: SHA-256 in hexadecimal.

        Of the videos' names, the names of their frames, the sizes of all files in bytes, and how masks are
        read.
        """
        found = hashlib.sha256(b"one object" * self.one_object)
        try:
            for sequence in self.entries:
                for path in (path for pair in sequence.frames for path in pair):
                    about = sequence.name, path.name, str(path.stat().st_size)
                    found.update("\0".join(about).encode(errors="surrogateescape") + b"\n")
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from error
        return found.hexdigest()

    def note(self, problem: str) -> None:
        """Keep a problem, and warn of it, once."""
        if problem not in self.problems:
            self.problems.append(problem)
            warnings.warn(problem, stacklevel=3)


def is_video_dataset(data: Path) -> bool:
    """Whether a folder has videos as this module reads them."""
    return (data / PICTURES).is_dir() and (data / ANNOTATIONS).is_dir()


def open_videos(data: str | Path, *, one_object: bool = False) -> VideoDataset:
    """Open a folder of videos. one_object: as of `VideoDataset`.

    Raises ValueError if it is none, or no video of it can be used.
    """
    data = Path(data)
    if not is_video_dataset(data):
        raise ValueError(f"data must be a folder with {PICTURES}/ and {ANNOTATIONS}/ in it; got {data}")
    try:
        photos, annotations = (_sequences_in(data / name) for name in (PICTURES, ANNOTATIONS))
        sequences, problems = [], []
        for name, folder in photos.items():
            if name not in annotations:
                problems.append(f"{name} was left out: it has no folder in {ANNOTATIONS}")
                continue
            labelled = [file for file in pictures_in(annotations[name]) if file.suffix.lower() == ".png"]
            maps = {file.stem: file for file in labelled}
            files = sorted(pictures_in(folder), key=lambda file: natural_order(file.stem))
            frames = tuple((file, maps[file.stem]) for file in files if file.stem in maps)
            if twice := _of_one_frame(labelled) or _of_one_frame([file for file, _ in frames]):
                problems.append(f"{name} was left out: {' and '.join(twice)} are of one frame")
            elif len(frames) < 2:
                problems.append(f"{name} was left out: {len(frames)} of its frames are annotated")
            else:
                sequences.append(Video(name, frames))
    except OSError as error:
        raise ValueError(f"the folder {error.filename} cannot be read: {error.strerror}") from error
    if not sequences:
        raise ValueError(
            f"{data} has no video to train on{at_first(problems)}. {PICTURES}/NAME/00000.jpg goes with "
            f"{ANNOTATIONS}/NAME/00000.png"
        )
    return VideoDataset(tuple(sequences), problems, read_flag("one_object", one_object))


def _sequences_in(folder: Path) -> dict[str, Path]:
    """Folders of pictures by name, in a folder or in the one folder that is in it."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(inner) == 1 and any(path.is_dir() for path in inner[0].iterdir()):
        return _sequences_in(inner[0])
    return {path.name: path for path in inner}


def _of_one_frame(files: Sequence[Path]) -> list[str]:
    """Names of files that differ in their endings alone: which of them is the frame nobody knows."""
    of_stem: dict[str, list[str]] = {}
    for file in files:
        of_stem.setdefault(file.stem, []).append(file.name)
    most = max(of_stem.values(), key=len, default=[])
    return most if len(most) > 1 else []


def read_labels(path: Path) -> np.ndarray:
    """An annotation's values, uint8 [H, W]: one for each object, 0 where there is none.

    Raises ValueError if it cannot be read or is in colour.
    """
    image = open_image(path)
    if image.mode not in ("P", "L", "1"):
        raise ValueError(f"annotation {path} must have a palette or be grey; got mode {image.mode}")
    return np.asarray(image).astype(np.uint8)


class ShuffledVideos:
    """Clips of a dataset's videos, one of each an epoch, every epoch in another order and from other frames.

    strides: of each video every so manieth frame is taken, one of these at random, as far as it is long
    enough; one that is too short goes forward and backward. What takes the place of a damaged one is the next
    in order. Raises ValueError if there is no other.
    """

    def __init__(
        self, dataset: VideoDataset, seed: int, frames: int, strides: Sequence[int] = (1, 2, 3)
    ) -> None:
        self.dataset, self.seed = dataset, seed
        self.frames, self.strides = read_whole("frames", frames, 2), tuple(strides)

    def example(self, number: int) -> ClipExample:
        """The one of this number; all epochs are numbered on."""
        size = len(self.dataset)
        epoch, first = divmod(number, size)
        order = shuffled(self.seed, epoch, size)
        rng = np.random.default_rng((self.seed, epoch, first))
        for i in range(size):
            index = int(order[(first + i) % size])
            problem = None
            for _ in range(3):  # frames on which nothing is seen are no beginning
                try:
                    return self.dataset.read(index, self._frames(rng, index))
                except ValueError as error:
                    problem = f"{self.dataset.entries[index].name} cannot be used: {error}"
            self.dataset.note(problem or "")
        raise ValueError(f"no video of the dataset can be used{at_first(self.dataset.problems)}")

    def _frames(self, rng: np.random.Generator, index: int) -> list[int]:
        length = len(self.dataset.entries[index].frames)
        fitting = [stride for stride in self.strides if stride * (self.frames - 1) < length]
        stride = int(rng.choice(fitting)) if fitting else 1
        start = int(rng.integers(max(length - stride * (self.frames - 1), 1)))
        numbers = start + stride * np.arange(self.frames)
        there_and_back = numbers % (2 * length - 2)
        return np.where(there_and_back < length, there_and_back, 2 * length - 2 - there_and_back).tolist()
