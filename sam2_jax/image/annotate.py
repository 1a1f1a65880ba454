"""All masks of many photos as files: overlays, label maps, COCO annotations; begun again where it stopped."""

import hashlib
import os
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam2_jax.atomic import check_writable, write_together
from sam2_jax.image.automatic import AutomaticMaskGenerator, GeneratedMask
from sam2_jax.image.batch import read_readers
from sam2_jax.image.coco import ANNOTATIONS_FILE, gather, read_head, read_record, write_record
from sam2_jax.image.made_of import made_of
from sam2_jax.processing.drawing import MAX_LABELS, palette_colour, palette_image, tint
from sam2_jax.processing.images import pictures_in, to_rgb
from sam2_jax.processing.read_ahead import Stopwatch, read_ahead
from sam2_jax.processing.rle import decode_rle
from sam2_jax.progress import progress_bar

_OVERLAY, _LABELS, _RECORD = "overlay.png", "labels.png", "json"


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


def find_photos(paths: Sequence[Path], of_one_name: bool = False) -> list[Path]:
    """The photos named, and those in the folders named, by name; what `annotate` wrote there is none.

    Warns of what is left out of a folder: folders in it, files of other types. Raises ValueError for what is
    not there and, unless of_one_name, for two of one name, whose results would be one file.
    """
    photos: list[Path] = []
    for path in paths:
        if path.is_dir():
            photos += _photos_in(path)
        elif path.exists():
            photos.append(path)
        else:
            raise ValueError(f"there is no picture {path}")
    if of_one_name:
        return list({os.path.realpath(photo): photo for photo in photos}.values())
    named: dict[str, Path] = {}
    for photo in photos:
        if f"{photo.name}.{_RECORD}" == ANNOTATIONS_FILE:
            raise ValueError(f"the results of {photo} would be named {ANNOTATIONS_FILE}: rename it")
        other = named.setdefault(photo.name, photo)
        if os.path.realpath(other) != os.path.realpath(photo):
            raise ValueError(f"{other} and {photo} have the same name: write them to different folders")
    return list(named.values())


def _photos_in(folder: Path) -> list[Path]:
    pictures = pictures_in(folder)
    names = {picture.name for picture in pictures}
    ours = [p for p in pictures if _photo_of(p.name) in names]
    photos = [p for p in pictures if p not in ours]
    known = {*pictures, folder / ANNOTATIONS_FILE, *(folder / f"{name}.{_RECORD}" for name in names)}
    others = [p for p in folder.iterdir() if p not in known and not p.name.startswith(".")]
    types = Counter(p.suffix.lower() or "no type" for p in others if not p.is_dir())
    folders = sum(p.is_dir() for p in others)
    left_out = [f"{n} folder{'s' * (n > 1)}, to be named as well if meant" for n in [folders] if n]
    if types:
        kinds = ", ".join(f"{n} of {kind}" for kind, n in types.most_common(5))
        left_out.append(f"{sum(types.values())} files of types that are not read: {kinds}")
    if not photos:
        raise ValueError(f"there is no picture in {folder}" + "".join(f"; {what}" for what in left_out))
    if left_out:
        warnings.warn(f"{folder}: left out: {'; '.join(left_out)}", stacklevel=3)
    return photos


def _photo_of(name: str) -> str | None:
    """Of which photo this is the name of an overlay or a label map, if it is one."""
    ends = (f".{_OVERLAY}", f".{_LABELS}")
    return next((name.removesuffix(end) for end in ends if name.endswith(end)), None)


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
    results = _Results(output, made, draw, max_pixels)
    summary = Summary()
    several = progress and len(photos) > 1
    with (
        summary.timed(generator.reading),
        progress_bar(total=len(photos), desc="photos", unit="photo", show=several) as bar,
        _Writer() as writer,
    ):

        def done(work: Callable[[], None] | None) -> None:
            if work is not None:
                writer.begin(work)
            bar.update()
            bar.set_postfix(masks=summary.masks, failed=len(summary.failed), refresh=False)

        searched: deque[_Photo] = deque()

        def to_search(looked: Iterable[_Photo]) -> Iterator[np.ndarray]:
            """The pictures whose masks are to be found; other photos are done with at once."""
            for photo in looked:
                try:
                    is_needed = _count(generator, photo, summary)
                except ValueError as error:  # unreadable, or too small for so many layers of crops
                    summary.failed[photo.path] = str(error)
                    done(partial(results.remove, photo) if photo.is_outdated else None)
                    continue
                if is_needed:
                    searched.append(photo)
                    assert photo.picture is not None
                    yield photo.picture
                else:
                    again = photo.record and partial(results.write, photo, photo.record["annotations"])
                    done(again or None)

        looked = read_ahead(generator.reading.times(results.look), photos, threads=read_readers(readers))
        found_each = generator.find_each(
            to_search(looked), batch_size=batch_size, readers=readers, progress=progress
        )
        for found in found_each:
            photo = searched.popleft()
            summary.photos += 1
            summary.renewed += photo.is_outdated
            summary.masks += len(found)
            annotations = [_annotation(each, number) for number, each in enumerate(found, 1)]
            done(partial(results.write, photo, annotations))
    if joined:
        summary.kinds = gather(output)
    return summary


def _count(generator: AutomaticMaskGenerator, photo: "_Photo", summary: Summary) -> bool:
    """Whether a photo's masks are to be found; if they were before, they are counted. Raises ValueError."""
    if photo.problem is not None:
        raise ValueError(photo.problem)
    if photo.picture is not None and photo.record is None:
        generator.search(photo.picture)
        return True
    summary.skipped += 1
    summary.masks += photo.masks
    return False


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


@dataclass(frozen=True)
class _Photo:
    """A photo and what the folder has of it.

    picture: uint8 [H, W, 3]; None if nothing is to be done. digest: of the file's bytes. record: the photo's
    own, where only pictures are missing beside it. is_outdated: whether there are results of another picture,
    model or settings. masks: how many there are in a result that is right. problem: what is wrong with it.
    """

    path: Path
    digest: str = ""
    picture: np.ndarray | None = None
    record: dict[str, Any] | None = None
    is_outdated: bool = False
    masks: int = 0
    problem: str | None = None


class _Results:
    """A folder of results: which of them are a photo's, and how they are written."""

    def __init__(self, output: Path, made_of: dict[str, Any], draw: bool, max_pixels: int) -> None:
        self.output, self.made_of, self.draw, self.max_pixels = output, made_of, draw, max_pixels

    def look(self, path: Path) -> _Photo:
        """See what is there of a photo, and read its picture if there is something to do."""
        photo = _Photo(path)
        try:
            photo = replace(photo, digest=_digest(path))
            masks = self._masks_of(photo)
            photo = replace(photo, masks=masks or 0)
            if masks is None:
                photo = replace(photo, is_outdated=self._path(photo, _RECORD).exists())
            else:
                wanted = (_OVERLAY, _LABELS) if self.draw else (_LABELS,)
                if all(self._path(photo, kind).exists() for kind in wanted):
                    return photo
                photo = replace(photo, record=read_record(self._path(photo, _RECORD)))
            return replace(photo, picture=to_rgb(path, max_pixels=self.max_pixels))
        except FileNotFoundError:
            return replace(photo, problem=f"there is no picture {path}")
        except OSError as error:
            return replace(photo, problem=error.strerror or str(error))
        except ValueError as error:
            return replace(photo, problem=str(error))

    def write(self, photo: _Photo, annotations: list[dict[str, Any]]) -> None:
        """Write all files of a photo's masks, the record last: where it is, the photo is done."""
        assert photo.picture is not None
        height, width = photo.picture.shape[:2]
        drawn, labels = _draw(photo.picture, annotations, self.draw)
        writers: dict[Path, Callable[[Path], object]] = {}
        if drawn is not None:
            writers[self._path(photo, _OVERLAY)] = lambda path: drawn.save(path, "PNG")
        writers[self._path(photo, _LABELS)] = lambda path: labels.save(path, "PNG")
        image = {"id": 1, "file_name": photo.path.name, "width": width, "height": height}
        image |= {"sha256": photo.digest, "masks": len(annotations)}
        record = partial(write_record, made_of=self.made_of, image=image, annotations=annotations)
        if photo.is_outdated:
            self.remove(photo)
        write_together(writers | {self._path(photo, _RECORD): record})

    def remove(self, photo: _Photo) -> None:
        """Take away a photo's results, the record first."""
        for path in (
            self.output / ANNOTATIONS_FILE,
            *(self._path(photo, k) for k in (_RECORD, _LABELS, _OVERLAY)),
        ):
            path.unlink(missing_ok=True)

    def _masks_of(self, photo: _Photo) -> int | None:
        """How many masks a record has that is of this photo's bytes, these weights and these settings."""
        if (head := read_head(self._path(photo, _RECORD))) is None:
            return None
        info, image = head
        same = all(info.get(name) == self.made_of[name] for name in ("weights", "settings"))
        masks = image.get("masks")
        return masks if same and image.get("sha256") == photo.digest and isinstance(masks, int) else None

    def _path(self, photo: _Photo, kind: str) -> Path:
        return self.output / f"{photo.path.name}.{kind}"


def _draw(
    picture: np.ndarray, annotations: list[dict[str, Any]], with_overlay: bool
) -> tuple[Image.Image | None, Image.Image]:
    """The overlay, if wanted, and the label map as `overlay` and `label_map` make them.

    One mask after the other is drawn, the largest first: all at once would fill the memory.
    """
    labels = np.zeros(picture.shape[:2], np.uint8 if len(annotations) <= MAX_LABELS else np.uint16)
    canvas = picture.astype(np.float32) if with_overlay else None
    for annotation in sorted(annotations, key=lambda annotation: -annotation["area"]):
        mask, label = decode_rle(annotation["segmentation"]), annotation["label"]
        labels[mask] = label
        if canvas is not None:
            tint(canvas, mask, palette_colour(label - 1))
    labelled = palette_image(labels) if len(annotations) <= MAX_LABELS else Image.fromarray(labels)
    return None if canvas is None else Image.fromarray(canvas.round().astype(np.uint8)), labelled


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _annotation(found: GeneratedMask, number: int) -> dict[str, Any]:
    """The generator's record as COCO's annotation, whose box has the last pixel inside."""
    of_coco = {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, "label": number}
    x, y, width, height = map(int, found.bbox)
    return found.record("coco_rle") | of_coco | {"bbox": [x, y, width + 1, height + 1]}
