"""Ray Data as the engine of a fleet: classes for `map_batches`, and `sam2-jax generate --engine ray`.

Ray brings reading, back-pressure, retries and machines that come and go; what is here loads a model once
for each worker and makes rows. The classes take and give tables of PyArrow (batch_format="pyarrow") and need
no Ray themselves:

    photos.map_batches(AutomaticMasks, fn_constructor_kwargs={"model": "facebook/sam2.1-hiera-tiny"},
                       batch_format="pyarrow", batch_size=16, compute=ActorPoolStrategy(size=8))
"""

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_jax.checks import read_whole, shown
from sam2_jax.clips.tables import import_pyarrow
from sam2_jax.image.annotate import Summary
from sam2_jax.image.automatic import AutomaticMaskGenerator
from sam2_jax.image.batch import Task, predict_batch
from sam2_jax.image.generation_options import MaskGenerationOptions
from sam2_jax.image.model import Sam2Model
from sam2_jax.processing.images import MAX_PIXELS, open_image, to_rgb
from sam2_jax.progress import progress_bar
from sam2_jax.scale.inputs import Item, content_of, find_pictures, with_bytes
from sam2_jax.scale.pictures import made_by, made_by_prompts, row_of_result
from sam2_jax.scale.rows import (
    Row,
    RowWriter,
    generated_mask,
    row_of,
    row_schema,
    shared_columns,
    write_rows,
)
from sam2_jax.scale.storage import check_folder, place_of

if TYPE_CHECKING:
    from sam2_jax.clips.tracking import Prompt

_SECONDS_TO_ANSWER = 10.0
# Photos of one task, and rows of one file: what is done again if a machine is lost.
_LEAST_IN_A_BLOCK, _MOST_IN_A_BLOCK, _BLOCKS = 8, 64, 32


class AutomaticMasks:
    """All masks of pictures: a table with id, path or bytes (of a picture file) to rows: see `row_schema`.

    Without id the path is it. model: hub id or folder that all machines can read. options: those of
    `MaskGenerationOptions`. Pictures at fault have rows that say why.
    """

    def __init__(
        self,
        model: str,
        preset: str | None = None,
        *,
        image_size: int | Sequence[int] | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        max_pixels: int = MAX_PIXELS,
        **options: Any,
    ) -> None:
        """Load the model."""
        loaded = _load(model, image_size, dtype, revision)
        processor = loaded.processor
        processor.image_processor = processor.image_processor.replace(max_pixels=max_pixels)
        self.generator = AutomaticMaskGenerator(loaded, preset, **options)
        self.made = made_by(self.generator, model)

    def __call__(self, batch: Any) -> Any:
        return _table([self.row(item) for item in batch.to_pylist()], self.made)

    def row(self, item: Mapping[str, Any]) -> Row:
        """The row of one picture."""
        begun, key, path = time.perf_counter(), _key(item), item.get("path")
        try:
            picture = _picture(item, self.generator.processor.image_processor.max_pixels)
            masks = [generated_mask(found) for found in self.generator.find(picture)]
        except ValueError as error:
            return row_of(key, path, None, [], time.perf_counter() - begun, str(error))
        size = picture.shape[0], picture.shape[1]
        return row_of(key, path, size, masks, time.perf_counter() - begun)


class PromptedMasks:
    """Masks of prompted objects: a table as of `AutomaticMasks` with points, labels and boxes to rows.

    Prompts are those of `Task`. A row has as many masks for each object, in their order. options: those of
    `predict_batch`.
    """

    def __init__(
        self,
        model: str,
        *,
        image_size: int | Sequence[int] | None = None,
        dtype: str = "float32",
        **options: Any,
    ) -> None:
        """Load the model."""
        self.model, self.options = _load(model, image_size, dtype), options
        self.made = made_by_prompts(self.model, options, model)
        processor = options.get("processor") or self.model.processor
        self.max_pixels = processor.image_processor.max_pixels

    def __call__(self, batch: Any) -> Any:
        items = batch.to_pylist()
        rows: dict[int, Row] = {}  # by place: two rows may be of one picture
        tasks: dict[int, Task] = {}
        for place, item in enumerate(items):
            key, prompts = _key(item), {name: item.get(name) for name in ("points", "labels", "boxes")}
            try:
                photo = _picture(item, self.max_pixels)
                tasks[place] = Task(photo, **prompts, name=key)
            except ValueError as error:
                rows[place] = row_of(key, item.get("path"), None, [], 0.0, str(error))
        begun = time.perf_counter()
        options = self.options | {"progress": False, "on_error": "report"}
        found = predict_batch(self.model, list(tasks.values()), **options)
        for place, result in zip(tasks, found, strict=True):
            now = time.perf_counter()
            rows[place] = row_of_result(result, items[place].get("path"), now - begun)
            begun = now
        return _table([rows[place] for place in range(len(items))], self.made)


class TrackedClips:
    """Objects tracked through clips: a table with id, path (see `open_clip`) and prompts to rows of tracks.

    prompts: a list of objects, each with points, labels or a box, on frame t (0 if None). A row is an object
    on a frame, as in the tables of `sam2-jax track`, with the clip's id before; a clip at fault has one row,
    with its error.
    """

    def __init__(self, model: str, *, dtype: str = "float32", **options: Any) -> None:
        """Load the model; options are those of `Sam2VideoModel.video`."""
        from sam2_jax.video.model import Sam2VideoModel

        self.model, self.options = Sam2VideoModel.from_pretrained(model, dtype=dtype), options

    def __call__(self, batch: Any) -> Any:
        from sam2_jax.clips.tables import track_schema

        pyarrow = import_pyarrow()
        text = pyarrow.string()
        schema = pyarrow.schema([("id", text), *track_schema(), ("error", text)])
        rows = [row for item in batch.to_pylist() for row in self._rows(item)]
        return pyarrow.Table.from_pylist(rows, schema)

    def _rows(self, item: Mapping[str, Any]) -> list[Row]:
        from sam2_jax.clips.reading import open_clip
        from sam2_jax.clips.tables import track_row
        from sam2_jax.clips.tracking import Passes, tracked

        key = _key(item)
        found: list[Row] = []
        try:
            with open_clip(Path(item["path"])) as clip:
                prompts = _clip_prompts(item["prompts"], len(clip))
                tracker = self.model.video(clip, **{"keep": "none"} | self.options)
                for _, frame, broken in tracked(tracker, clip, Passes(prompts, len(clip), "forward")):
                    if broken is not None:
                        raise ValueError(broken)
                    found += [
                        {"id": key, "error": None} | track_row(clip, frame, track) for track in frame.tracks
                    ]
        except ValueError as error:
            return [{"id": key, "error": str(error)}]
        return found


def _clip_prompts(objects: Sequence[Mapping[str, Any]] | None, frames: int) -> "list[Prompt]":
    """What is said of the objects of a clip of so many frames, numbered from 1."""
    from sam2_jax.clips.tracking import Prompt

    found = []
    for number, each in enumerate(objects or (), 1):
        points, labels, box = (each.get(name) or None for name in ("points", "labels", "box"))
        if points is None and box is None:
            raise ValueError(f"object {number} must have points or a box; got {shown(dict(each))}")
        t = read_whole("t", each.get("t") or 0, 0, frames - 1)
        found.append(Prompt(t, number, points or (), labels or (), box))
    if not found:
        raise ValueError("there is nothing to track: prompts must be of at least one object")
    return found


def _load(
    model: str, image_size: int | Sequence[int] | None, dtype: str, revision: str | None = None
) -> Sam2Model:
    loaded = Sam2Model.from_pretrained(model, dtype=dtype, revision=revision)
    return loaded if image_size is None else loaded.with_image_size(image_size)


def _key(item: Mapping[str, Any]) -> str:
    key = item.get("id") or item.get("path")
    if not isinstance(key, str):
        raise ValueError(f"a picture's row must have an id or a path; got {shown(dict(item))}")
    return key


def _picture(item: Mapping[str, Any], max_pixels: int) -> np.ndarray:
    """A picture uint8 [H, W, 3]: see `content_of`. Raises ValueError if it cannot be read."""
    content = content_of(item)
    name = _key(item) if isinstance(content, bytes) else None
    return to_rgb(open_image(content, max_pixels, name), max_pixels=max_pixels)


def _table(rows: list[Row], made: Mapping[str, Any]) -> Any:
    shared = shared_columns(made)
    return import_pyarrow().Table.from_pylist([row | shared for row in rows], row_schema(made))


class WrittenBlocks:
    """Makes the rows of blocks of photos and writes each block as one file, which is named by its photos.

    So a block that is done twice, after a machine was lost, is one file in the end.
    """

    def __init__(self, output: str, **options: Any) -> None:
        """Load the model; options are those of `AutomaticMasks`."""
        self.output, self.masks = place_of(output), AutomaticMasks(**options)

    def __call__(self, block: Mapping[str, Any]) -> dict[str, Any]:
        """Write a block; returns how many masks there are, and what was wrong, by id, as JSON."""
        rows = [self.masks.row(item) for item in with_bytes(json.loads(block["wanted"]))]
        shared = shared_columns(self.masks.made)
        write_rows(self.output, [row | shared for row in rows], row_schema(self.masks.made))
        failed = {row["id"]: row["error"] for row in rows if row["error"] is not None}
        return {
            "photos": len(rows),
            "masks": sum(len(row["masks"]) for row in rows),
            "failed": json.dumps(failed),
        }


def generate_on_ray(
    photos: Sequence[str | Path],
    output: str | Path,
    *,
    model: str,
    address: str | None = None,
    workers: int | None = None,
    progress: bool = True,
    **options: Any,
) -> tuple[Summary, MaskGenerationOptions]:
    """Find the masks of photos on a cluster of Ray and write rows to a folder that all its machines see.

    photos: see `find_pictures`; they and output are paths, or URIs of what PyArrow opens. address: the
    cluster's; None for one that the environment names, or else this machine. workers: processes with a model
    each at most, by default as many as the cluster has CPUs. options: those of `AutomaticMasks`. What has a
    row is not done again; whatever is killed and given again, there is one row for each photo in the end.
    Returns what was done, and the options in use. Raises ValueError if Ray is not installed or not reached,
    or as `find_pictures` and `RowWriter` do.
    """
    ray = import_ray()
    check_address(address)
    place = place_of(output)
    check_folder(place)
    items = find_pictures(photos)
    masks = AutomaticMasks(model, **options)
    rows = RowWriter(place, masks.made)
    if isinstance(place, Path):
        place.mkdir(parents=True, exist_ok=True)
        output = os.path.abspath(place)
    blocks, skipped = _blocks(items, rows.done)
    summary = Summary(skipped=skipped)
    if not blocks:
        return summary, masks.generator.options
    connect(ray, address)
    try:
        cpus = int(ray.cluster_resources().get("CPU", 1))
        found = (
            ray.data.from_items(blocks, override_num_blocks=len(blocks))
            .map(
                WrittenBlocks,
                fn_constructor_kwargs={"output": str(output), "model": model, **options},
                compute=ray.data.ActorPoolStrategy(
                    min_size=1, max_size=max(1, min(workers or cpus, len(blocks)))
                ),
                num_cpus=1,
            )
            .iter_rows()
        )
        total = sum(len(json.loads(block["wanted"])) for block in blocks)
        with progress_bar(total=total, desc="photos", unit="photo", show=progress) as bar:
            for done in found:
                failed = json.loads(done["failed"])  # by id, as it is: a `Path` would spoil a URI
                summary.failed |= failed
                summary.photos += done["photos"] - len(failed)
                summary.masks += done["masks"]
                bar.update(done["photos"])
    except ray.exceptions.RayError as error:
        raise ValueError(
            f"Ray stopped: {str(error).strip().splitlines()[-1]}. Give the command again"
        ) from error
    finally:
        ray.shutdown()
    return summary, masks.generator.options


def _blocks(items: list[Item], done: set[str]) -> tuple[list[dict[str, str]], int]:
    """Blocks of photos, always cut alike, those that have no row yet; and how many have one."""
    size = min(max(len(items) // _BLOCKS, _LEAST_IN_A_BLOCK), _MOST_IN_A_BLOCK)
    blocks, skipped = [], 0
    for start in range(0, len(items), size):
        block = items[start : start + size]
        wanted = [item for item in block if item["id"] not in done]
        skipped += len(block) - len(wanted)
        if wanted:
            # Of a block that is there in part the file's name is another one: what is there stays.
            blocks.append({"wanted": json.dumps(wanted)})
    return blocks, skipped


def import_ray() -> ModuleType:
    """Ray with its data. Raises ValueError, naming the extra that brings it, if it is not installed."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError("this engine needs Ray: pip install 'sam2_jax[ray]'") from error
    return ray


def check_address(address: str | None) -> None:
    """Raise ValueError for an address that is none or where nothing listens: Ray would try for minutes."""
    if address in (None, "auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"address must be HOST:PORT, as `ray start` says it; got {shown(address)}")
    try:
        socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"no Ray cluster answers at {shown(address)}: {reason}") from error


def connect(ray: Any, address: str | None) -> None:
    """Join a cluster. Raises ValueError if there is none."""
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError, OSError, TimeoutError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"no Ray cluster answers at {shown(address)}: {reason}") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
