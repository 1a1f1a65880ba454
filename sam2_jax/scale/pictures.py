"""Masks of many pictures as rows: what a folder of rows has is not done again."""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from sam2_jax.checks import shown
from sam2_jax.image.annotate import Summary
from sam2_jax.image.automatic import AutomaticMaskGenerator
from sam2_jax.image.batch import (
    BatchResult,
    Failed,
    Task,
    predict_batch,
    read_readers,
    read_task,
    tasks_of_folder,
)
from sam2_jax.image.made_of import made_of
from sam2_jax.image.model import Sam2Model
from sam2_jax.processing.images import to_rgb
from sam2_jax.processing.read_ahead import read_ahead
from sam2_jax.progress import progress_bar
from sam2_jax.scale.rows import (
    ROWS_IN_A_FILE,
    RowWriter,
    as_text,
    generated_mask,
    prompted_mask,
    row_of,
)

_CHANGES_NO_MASK = {"batch_size", "devices", "readers", "progress", "total", "on_error", "processor"}


def made_by(generator: AutomaticMaskGenerator, model_name: str) -> dict[str, Any]:
    """What a generator's masks are made by: see `made_of`."""
    return made_of(generator.model, generator.processor, asdict(generator.options), model_name)


def made_by_prompts(model: Sam2Model, options: Mapping[str, Any], model_name: str) -> dict[str, Any]:
    """The same of masks of `predict_batch` with options."""
    settings = {name: value for name, value in options.items() if name not in _CHANGES_NO_MASK}
    processor = options.get("processor") or model.processor
    return made_of(model, processor, settings | {"prompted": True}, model_name)


def generate_rows(
    generator: AutomaticMaskGenerator,
    photos: Sequence[Path],
    output: Path,
    *,
    model_name: str = "",
    batch_size: int | None = None,
    readers: int | None = None,
    progress: bool = True,
    rows_in_a_file: int = ROWS_IN_A_FILE,
) -> Summary:
    """Find the masks of photos and add a row for each to a folder: see `row_schema` and `RowWriter`.

    Photos that the folder has a row of, by their absolute paths, are not looked at again; one that cannot be
    read has a row that says why. What can be wrong with the folder raises ValueError before the first photo.
    """
    summary = Summary()
    with RowWriter(output, made_by(generator, model_name), rows_in_a_file) as rows:
        waiting = [photo for photo in photos if as_text(os.path.abspath(photo)) not in rows.done]
        summary.skipped = len(photos) - len(waiting)
        max_pixels = generator.processor.image_processor.max_pixels

        def read(photo: Path) -> tuple[Path, np.ndarray | str]:
            try:
                picture = to_rgb(photo, max_pixels=max_pixels)
                generator.search(picture)
            except ValueError as error:  # unreadable, or too small for so many layers of crops
                return photo, str(error)
            return photo, picture

        several = progress and len(waiting) > 1
        with (
            summary.timed(generator.reading),
            progress_bar(total=len(waiting), desc="photos", unit="photo", show=several) as bar,
        ):

            def add(photo: Path, size: tuple[int, int] | None, masks: list[Any], seconds: float) -> None:
                error = summary.failed.get(photo)
                rows.add(row_of(os.path.abspath(photo), str(photo), size, masks, seconds, error))
                bar.update()

            searched: deque[tuple[Path, tuple[int, int]]] = deque()

            def pictures() -> Iterator[np.ndarray]:
                timed = generator.reading.times(read)
                for photo, picture in read_ahead(timed, waiting, threads=read_readers(readers)):
                    if isinstance(picture, str):
                        summary.failed[photo] = picture
                        add(photo, None, [], 0.0)
                    else:
                        searched.append((photo, (picture.shape[0], picture.shape[1])))
                        yield picture

            begun = time.perf_counter()
            for found in generator.find_each(
                pictures(), batch_size=batch_size, readers=readers, progress=progress
            ):
                seconds = time.perf_counter() - begun
                masks = [generated_mask(each) for each in found]
                add(*searched.popleft(), masks, seconds)
                summary.photos += 1
                summary.masks += len(masks)
                begun = time.perf_counter()
    return summary


def predict_rows(
    model: Sam2Model,
    work: str | Path | Iterable[Task | Mapping[str, Any]],
    output: str | Path,
    *,
    model_name: str = "",
    **options: Any,
) -> Summary:
    """Segment prompted objects in many photos, as `predict_batch` with its options, into rows of a folder.

    A row's id is its task's name or else the photo's absolute path, as of all photos of a folder: what has a
    row is not done again. The name stands for the photo and its prompts; other prompts need another name.
    Photos and prompts at fault have rows that say why. Returns what was done. Raises ValueError as
    `predict_batch` does, for tasks without a name and a path, for two of one id, and as `RowWriter`.
    """
    options.setdefault("progress", False)
    made = made_by_prompts(model, options, model_name)
    tasks = _tasks_by_path(Path(work)) if isinstance(work, (str, Path)) else work
    summary = Summary()
    with RowWriter(Path(output), made) as rows:
        paths: dict[str, str | None] = {}
        waiting = _waiting(tasks, rows.done, paths, summary)
        begun = time.perf_counter()
        for result in predict_batch(model, waiting, **options | {"on_error": "report"}):
            now = time.perf_counter()
            rows.add(row_of_result(result, paths.pop(result.name), now - begun))
            begun = now
            summary.photos += result.error is None
            summary.masks += 0 if result.iou_scores is None else result.iou_scores.size
            if result.error is not None:
                summary.failed[Path(result.name)] = result.error
    return summary


def _tasks_by_path(folder: Path) -> list[Task | Failed]:
    """A folder's tasks, named by absolute paths: other folders have pictures of the same names."""
    tasks = tasks_of_folder(folder)
    return [replace(task, name=os.path.abspath(folder / str(task.name))) for task in tasks]


def _waiting(
    tasks: Iterable[Any], done: set[str], paths: dict[str, str | None], summary: Summary
) -> Iterator[Task | Failed]:
    """Tasks that no row is of, named by their ids; paths of those that are under way."""
    taken: set[str] = set()
    for number, given in enumerate(tasks):
        task = given if isinstance(given, Failed) else read_task(given)
        photo = None if isinstance(task, Failed) else task.photo
        path = str(photo) if isinstance(photo, (str, Path)) else None
        named = isinstance(task, Failed) or task.name is not None
        key = str(task.name) if named else path and os.path.abspath(path)
        if not key:
            raise ValueError(
                f"task {number} must have a name, for its photo is no path: the name is its row's id; got "
                f"{shown(given)}"
            )
        if key in taken:
            raise ValueError(f"two tasks have the name {shown(key)}, which is the id of one row")
        taken.add(key)
        if as_text(key) in done:
            summary.skipped += 1
            continue
        paths[key] = path
        yield replace(task, name=key)


def row_of_result(result: BatchResult, path: str | None, seconds: float) -> dict[str, Any]:
    """The row of what `predict_batch` found in a photo."""
    masks = []
    if result.masks is not None and result.iou_scores is not None:
        size = result.masks.shape[2:]
        each = zip(result.masks.reshape(-1, *size), result.iou_scores.ravel(), strict=True)
        masks = [prompted_mask(mask, score) for mask, score in each]
    return row_of(result.name, path, result.size, masks, seconds, result.error)
