"""All masks of many photos as files: overlays, label maps, COCO annotations; begun again where it stopped."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sam2_jax.atomic import check_writable
from sam2_jax.image.automatic import AutomaticMaskGenerator, GeneratedMask
from sam2_jax.image.batch import read_readers
from sam2_jax.image.coco import coco_annotation, gather
from sam2_jax.image.made_of import made_of
from sam2_jax.image.photo_results import Photo, PhotoResults
from sam2_jax.processing.read_ahead import Stopwatch, read_ahead
from sam2_jax.progress import progress_bar


@dataclass
class Summary:
    """What has been done.

    photos: whose masks were found now; of these, renewed are those that had masks of another picture, model
    or settings. skipped: photos that were done before. masks: of all these. failed: what was wrong, by path
    of the photo, or by its name as another process gave it, which may be a URI. kinds: how many models or
    settings the folder's annotations are of, in all. seconds: how long it took; reading_seconds: how long
    threads were opening and resizing photos, all of them together.
    """

    photos: int = 0
    renewed: int = 0
    skipped: int = 0
    masks: int = 0
    failed: dict[Path | str, str] = field(default_factory=dict)
    kinds: int = 0
    seconds: float = 0.0
    reading_seconds: float = 0.0

    @contextmanager
    def timed(self, reading: Stopwatch) -> Iterator[None]:
        """Note how long something takes, and how much of reading it does."""
        begun, read = time.perf_counter(), reading.seconds
        yield
        self.seconds = time.perf_counter() - begun
        self.reading_seconds = reading.seconds - read

    def pace(self) -> str:
        """How fast photos were read and their masks found, as a sentence; nothing if none were."""
        if not self.photos or not self.reading_seconds:
            return ""
        read = (self.photos + len(self.failed)) / self.reading_seconds
        return (
            f"{self.photos / self.seconds:.3g} photos a second; one reader alone opens and resizes {read:.3g}"
        )

    def to_json(self) -> dict[str, Any]:
        """The same of JSON's types."""
        return asdict(self) | {"failed": {str(path): problem for path, problem in self.failed.items()}}

    def add(self, other: Mapping[str, Any]) -> None:
        """Count what another process did, as `to_json` gives it."""
        for name in ("photos", "renewed", "skipped", "masks", "reading_seconds"):
            setattr(self, name, getattr(self, name) + other[name])
        self.failed |= other["failed"]
        self.kinds = max(self.kinds, other["kinds"])
        self.seconds = max(self.seconds, other["seconds"])


def annotate(
    generator: AutomaticMaskGenerator,
    photos: Sequence[Path],
    output: Path,
    *,
    model_name: str = "",
    draw: bool = True,
    batch_size: int | None = None,
    readers: int | None = None,
    joined: bool = True,
    progress: bool = True,
) -> Summary:
    """Find the masks of photos and write them to a folder; what was done before is not done again.

    For PHOTO.jpg there are PHOTO.jpg.overlay.png, unless draw is False, PHOTO.jpg.labels.png (see
    `label_map`; a palette, or 16 bits for more than 255 masks) and PHOTO.jpg.json, which appears last; in the
    end ANNOTATIONS_FILE holds all that the folder has, in COCO's layout. An annotation's label is its value
    in the label map.

    What is there is a photo's result if it was made of the same bytes, by the same weights, with the same
    settings, wherever photo and model lie now and whatever the model is called; if not, it is made anew. A
    photo at fault is noted and does not stop the rest; what the folder has of another picture of its name is
    removed. model_name is recorded. batch_size, readers: as of `AutomaticMaskGenerator.find_each`. joined:
    whether to write ANNOTATIONS_FILE (`gather` does). progress shows bars. Raises ValueError if the folder
    cannot be written.
    """
    check_writable(output, is_folder=True)
    output.mkdir(parents=True, exist_ok=True)
    max_pixels = generator.processor.image_processor.max_pixels
    made = made_of(generator.model, generator.processor, asdict(generator.options), model_name)
    results = PhotoResults(output, made, draw, max_pixels)
    summary = Summary()
    several = progress and len(photos) > 1
    with (
        summary.timed(generator.reading),
        progress_bar(total=len(photos), desc="photos", unit="photo", show=several) as bar,
        _Writer() as writer,
    ):
        run = _Run(generator, results, summary, bar, writer)
        looked = read_ahead(generator.reading.times(results.look), photos, threads=read_readers(readers))
        for found in generator.find_each(
            run.to_search(looked), batch_size=batch_size, readers=readers, progress=progress
        ):
            run.add(found)
    if joined:
        summary.kinds = gather(output)
    return summary


@dataclass
class _Run:
    """Photos on their way: looked at, searched for masks, written, counted."""

    generator: AutomaticMaskGenerator
    results: PhotoResults
    summary: Summary
    bar: Any
    writer: "_Writer"
    searched: deque[Photo] = field(default_factory=deque)

    def to_search(self, looked: Iterable[Photo]) -> Iterator[np.ndarray]:
        """The pictures whose masks are to be found; other photos are done with at once."""
        for photo in looked:
            try:
                is_needed = self._count(photo)
            except ValueError as error:  # unreadable, or too small for so many layers of crops
                self.summary.failed[photo.path] = str(error)
                self._done(partial(self.results.remove, photo) if photo.is_outdated else None)
                continue
            if is_needed:
                self.searched.append(photo)
                assert photo.picture is not None
                yield photo.picture
            else:
                again = photo.record and partial(self.results.write, photo, photo.record["annotations"])
                self._done(again or None)

    def _count(self, photo: Photo) -> bool:
        """Whether masks are to be found; those that were before are counted. Raises ValueError."""
        if photo.problem is not None:
            raise ValueError(photo.problem)
        if photo.picture is not None and photo.record is None:
            self.generator.search(photo.picture)
            return True
        self.summary.skipped += 1
        self.summary.masks += photo.masks
        return False

    def add(self, found: Sequence[GeneratedMask]) -> None:
        """Have the masks of the photo that has waited longest written."""
        photo = self.searched.popleft()
        self.summary.photos += 1
        self.summary.renewed += photo.is_outdated
        self.summary.masks += len(found)
        annotations = [_annotation(each, number) for number, each in enumerate(found, 1)]
        self._done(partial(self.results.write, photo, annotations))

    def _done(self, work: Callable[[], None] | None) -> None:
        if work is not None:
            self.writer.begin(work)
        self.bar.update()
        self.bar.set_postfix(masks=self.summary.masks, failed=len(self.summary.failed), refresh=False)


class _Writer:
    """Writes in a thread, one photo while the next one's masks are looked for."""

    def __enter__(self) -> "_Writer":
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        return self

    def begin(self, work: Callable[[], None]) -> None:
        """Write, once the last is written."""
        if self._writing:
            self._writing.result()
        self._writing = self._thread.submit(work)

    def __exit__(self, kind: Any, *_: Any) -> None:
        with self._thread:
            if self._writing and kind is None:
                self._writing.result()


def _annotation(found: GeneratedMask, number: int) -> dict[str, Any]:
    """The generator's record as COCO's annotation, and its value in the label map."""
    return found.record("coco_rle") | coco_annotation(number, 1, found.rle) | {"label": number}
