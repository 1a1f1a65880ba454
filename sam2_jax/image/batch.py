"""`predict_batch`: many photos with any number of prompted objects each, in bounded memory.

While the devices work on one batch, threads open and resize the photos of the next, and the caller looks at
the results of the one before.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import closing
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from sam2_jax.checks import cut, read_whole, shown
from sam2_jax.devices import even_batch, one_of_each
from sam2_jax.image.arguments import bucket, check_flag, check_processor, pad_prompts
from sam2_jax.image.prompt_masks import read_masks
from sam2_jax.image.promptable import PromptableModel
from sam2_jax.json_files import read_json
from sam2_jax.processing.images import pictures_in
from sam2_jax.processing.photo_prompts import Size, read_objects
from sam2_jax.processing.processor import Sam2Processor
from sam2_jax.processing.read_ahead import read_ahead

PROMPTS_FILE = "prompts.json"

# More objects than this, over all photos of a batch, are not decoded together, so that memory stays bounded.
_OBJECTS_TOGETHER = 64
# So many photos, ready for the network, no memory holds.
_MOST_PHOTOS = 4096
_MOST_READERS = 256
_LARGEST_PROMPTS = 2**28  # bytes


@dataclass(frozen=True, eq=False)
class Task:
    """A photo (path, PIL image or array) and the objects to segment in it, in the photo's pixels.

    points: object > point > (x, y). labels: object > point, 1 on the object and 0 off it, all 1 if None.
    boxes: object > (x0, y0, x1, y1). An object may have points (else None or []), a box (else None) or both.
    masks: object > logits [h, w] of an earlier prediction, for each object or for none.
    name: what results and messages call the photo; its file's name if None.
    """

    photo: Any
    points: Any = None
    labels: Any = None
    boxes: Any = None
    name: str | None = None
    masks: Any = None


@dataclass(frozen=True, eq=False)
class BatchResult:
    """M masks for each of the P objects of one photo, or, if the photo or a prompt is at fault, the error.

    iou_scores: predicted IoU, float32 [P, M] in [0, 1]. object_score_logits: float32 [P, 1], positive where
    the object is present. logits: float32 [P, M, h, w], at a quarter of the network's input size. size: the
    photo's (height, width). error: what was wrong, a sentence; all else but name is then None.
    """

    name: str
    iou_scores: np.ndarray | None = None
    object_score_logits: np.ndarray | None = None
    logits: np.ndarray | None = None
    size: Size | None = None
    error: str | None = None
    processor: Sam2Processor | None = field(default=None, repr=False)
    post_processing: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def masks(self) -> np.ndarray | None:
        """Masks, bool [P, M, height, width], made when first asked for and kept with the result."""
        if self.logits is None or self.processor is None:
            return None
        return self.processor.post_process_masks(self.logits[None], [self.size], **self.post_processing)[0]


@dataclass(frozen=True)
class _Prepared:
    """A task as the network takes it: points [1, P, N, 2], labels [1, P, N], masks [P, h, w] if any.

    The pixels are the batch's.
    """

    name: str
    size: Size
    points: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None


@dataclass(frozen=True)
class Failed:
    """A task that cannot be done, and why; its results say so."""

    name: str
    error: str


_Embeddings = tuple[jax.Array, jax.Array, jax.Array]
# Of one photo: masks, predicted IoU and object scores of a run of the decoder, and the photo's row in them.
_Outputs = tuple[tuple[jax.Array, jax.Array, jax.Array], int]
_Photo = _Prepared | Failed


def predict_batch(
    model: PromptableModel,
    work: str | Path | Iterable["Task | Failed | Mapping[str, Any]"],
    *,
    processor: Sam2Processor | None = None,
    batch_size: int | None = None,
    devices: Any = None,
    readers: int | None = None,
    multimask_output: bool = False,
    progress: bool = True,
    total: int | None = None,
    on_error: str = "report",
    **post_processing: Any,
) -> Iterator[BatchResult]:
    """Segment prompted objects in many photos; yields one `BatchResult` for each, in order.

    work: tasks (`Task` or mappings with its fields) in a list, a generator or the like, taken as they are
    needed, at most three batches ahead; or a folder, whose pictures (not those of folders in it) are
    segmented by name as its prompts.json says: {"truck.jpg": {"points": ..., "labels": ..., "boxes": ...}},
    as in `Task`. A picture without an entry is an error of that picture, as is an entry without a picture.
    processor: the model's own if None. batch_size: photos encoded together, raised to a multiple of the
    devices; by default one on each. devices: among which a batch is divided, a number or a list of them; None
    for those of the model. readers: threads that open and resize photos, by default one for each core, of the
    photos of a batch. multimask_output: three masks for each object, or the one the network stands by.
    progress: draw a bar to stderr; total: number of photos, if work does not tell. post_processing: options
    of `Sam2Processor.post_process_masks`.

    on_error="report": a photo that cannot be read, or has prompts that cannot be meant, yields its error, the
    rest goes on, and a warning at the end counts them; on_error="raise": ValueError, naming the photo.
    Results equal those of each photo alone but for rounding. Raises ValueError for wrong arguments.
    """
    if not isinstance(on_error, str) or on_error not in ("report", "raise"):
        raise ValueError(f"on_error must be 'report' or 'raise'; got {shown(on_error)}")
    if devices is not None:
        model = model.on_devices(devices)
    batch_size = read_batch_size(batch_size, model.device_count)
    readers = min(read_readers(readers), batch_size)
    multimask_output = check_flag("multimask_output", multimask_output, False)
    progress = check_flag("progress", progress, True)
    total = None if total is None else read_whole("total", total, 0)
    tasks: Any = tasks_of_folder(Path(work)) if isinstance(work, (str, Path)) else work
    is_many = isinstance(tasks, Iterable) and getattr(tasks, "ndim", 1) > 0
    if isinstance(tasks, (Task, Mapping)) or not is_many:
        raise ValueError(
            f"work must be a folder or an iterable of tasks; got {type(work).__name__}: for one photo, [task]"
        )
    processor = model.processor if processor is None else check_processor(processor)
    # What is wrong with the options shows now, not with the first mask.
    processor.post_process_masks(np.zeros((1, 1, 1, 1, 1), np.float32), [(1, 1)], **post_processing)
    if total is None and isinstance(tasks, Sized):
        total = len(tasks)
    batches = _Batches(model, processor, batch_size, multimask_output, post_processing)
    return _run(batches, tasks, readers, total, progress, on_error)


def read_batch_size(batch_size: Any, devices: int) -> int:
    """Photos of a batch: a multiple of the devices, None for one on each. Raises ValueError."""
    size = devices if batch_size is None else read_whole("batch_size", batch_size, 1, _MOST_PHOTOS)
    return even_batch(size, devices)


def read_readers(readers: Any) -> int:
    """Threads that open and resize photos, by default one for each core. Raises ValueError."""
    if readers is not None:
        return read_whole("readers", readers, 1, _MOST_READERS)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, _MOST_READERS)


def _run(
    batches: "_Batches", tasks: Iterable[Any], readers: int, total: int | None, progress: bool, on_error: str
) -> Iterator[BatchResult]:
    failed: list[Failed] = []
    done = 0
    prepared = read_ahead(batches.prepare, enumerate(tasks), threads=readers, ahead=batches.size)
    with closing(prepared), tqdm(total=total, unit="photo", disable=not progress) as bar:
        for photo, outputs in _pipeline(batches, prepared):
            done += 1
            if isinstance(photo, Failed):
                if on_error == "raise":
                    raise ValueError(f"{cut(photo.name)}: {photo.error}")
                failed.append(photo)
                bar.set_postfix(failed=len(failed))
            bar.update()
            yield batches.result(photo, outputs)
    if failed:
        first = failed[0]
        warnings.warn(
            f"{len(failed)} of {done} photos failed; the first, {cut(first.name)}: {first.error}",
            stacklevel=2,
        )


def _pipeline(
    batches: "_Batches", prepared: Iterator[tuple[_Photo, list[np.ndarray]]]
) -> Iterator[tuple[_Photo, _Outputs | None]]:
    """Launch batches on the devices, hand on what is done: three batches at a time at most."""
    launched: list[tuple[_Photo, _Outputs | None]] = []
    while current := batches.launch(list(islice(prepared, batches.size))):
        # The devices are busy with the current batch from here on, while the last one's results are used.
        yield from launched
        launched = current
    yield from launched


@dataclass(frozen=True)
class _Batches:
    """How a batch goes through the model."""

    model: PromptableModel
    processor: Sam2Processor
    size: int
    multimask_output: bool
    post_processing: Mapping[str, Any]

    def prepare(self, numbered: tuple[int, Any]) -> tuple[_Photo, list[np.ndarray]]:
        """Read a task of a number, and return it with its pixels [H, W, 3], with none if it is at fault."""
        number, task = numbered
        if isinstance(task, Failed):
            return task, []
        name = f"photo {number}"
        try:
            task = read_task(task)
            name = _name(task, name)
            inputs = self.processor(images=task.photo)
            pixels = list(inputs["pixel_values"])
            if len(pixels) != 1:
                raise ValueError(f"a task is for one photo; got {len(pixels)}")
            height, width = (int(n) for n in inputs["original_sizes"][0])
            points, labels = read_objects(task.points, task.labels, task.boxes, (height, width), task.masks)
            masks = read_masks(task.masks)
            prompts = self.processor(
                original_sizes=[(height, width)], input_points=[points], input_labels=[labels]
            )
        except ValueError as error:
            return Failed(name, str(error)), []
        size = height, width
        return _Prepared(name, size, prompts["input_points"], prompts["input_labels"], masks), pixels

    def launch(self, prepared: list[tuple[_Photo, list[np.ndarray]]]) -> list[tuple[_Photo, _Outputs | None]]:
        """Set the devices to work on a batch, without waiting for them.

        The last photo fills the places that are left, so that every batch is as large and nothing is
        compiled again.
        """
        photos = [photo for photo, _ in prepared]
        pixels = [array for _, arrays in prepared for array in arrays]
        if not pixels:
            return [(photo, None) for photo in photos]
        good = [photo for photo in photos if isinstance(photo, _Prepared)]
        filled = good + good[-1:] * (self.size - len(good))
        pixels += pixels[-1:] * (self.size - len(pixels))
        outputs = iter(self._decode(self.model.get_image_embeddings(np.stack(pixels)), filled))
        return [(photo, next(outputs) if isinstance(photo, _Prepared) else None) for photo in photos]

    def _decode(self, embeddings: _Embeddings, photos: list[_Prepared]) -> list[_Outputs]:
        """Decode the photos together, or on each device one by one where that is clearly less work.

        Together, all have as many objects as the photo with the most, and compiled numbers of objects are
        few: that is worth while as long as it does not double the work.
        """
        devices = self.model.device_count
        each = len(photos) // devices
        counts = [bucket(photo.labels.shape[1], 2) for photo in photos]
        together = max(counts) * each
        apart = sum(max(counts[i::each]) for i in range(each))
        is_small = together <= min(2 * apart, _OBJECTS_TOGETHER)
        if each == 1 or (is_small and len({self._program(photo) for photo in photos}) == 1):
            return self._decode_alike(embeddings, photos)
        outputs: list[Any] = [None] * len(photos)
        for i in range(each):
            outputs[i::each] = self._decode_alike(
                one_of_each(self.model.mesh, embeddings, i), photos[i::each]
            )
        return outputs

    def _program(self, photo: _Prepared) -> tuple[Any, Any]:
        """What photos must have alike to be decoded together.

        With masks as prompts it is another program. And the reference's padding, which is not masked, would
        let photos change each other.
        """
        masks = None if photo.masks is None else photo.masks.shape[1:]
        return masks, None if self.model.padding == "masked" else photo.labels.shape[2]

    def _decode_alike(self, embeddings: _Embeddings, photos: list[_Prepared]) -> list[_Outputs]:
        """Decode the photos that the embeddings are of, in a run for each program that one of them needs."""
        programs = [self._program(photo) for photo in photos]
        runs = {}
        for program in dict.fromkeys(programs):
            # A photo of another program only fills its place.
            first = photos[programs.index(program)]
            filled = [photo if own == program else first for photo, own in zip(photos, programs, strict=True)]
            runs[program] = self._run_decoder(embeddings, filled)
        return [(runs[program], row) for row, program in enumerate(programs)]

    def _run_decoder(
        self, embeddings: _Embeddings, photos: list[_Prepared]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        objects, count = (max(photo.labels.shape[axis] for photo in photos) for axis in (1, 2))
        padded = [pad_prompts(photo.points, photo.labels, objects, count) for photo in photos]
        points, labels = (np.concatenate(arrays) for arrays in zip(*padded, strict=True))
        masks = [_pad_masks(photo.masks, objects) for photo in photos if photo.masks is not None]
        outputs = self.model(
            input_points=points,
            input_labels=labels,
            input_masks=np.stack(masks) if masks else None,
            image_embeddings=embeddings,
            multimask_output=self.multimask_output,
        )
        return outputs.pred_masks, outputs.iou_scores, outputs.object_score_logits

    def result(self, photo: _Photo, outputs: _Outputs | None) -> BatchResult:
        """Wait for the outputs of a photo and copy its part of them."""
        if isinstance(photo, Failed) or outputs is None:
            return BatchResult(photo.name, error=photo.error if isinstance(photo, Failed) else None)
        arrays, row = outputs
        objects = photo.labels.shape[1]
        logits, scores, object_scores = (np.array(np.asarray(x)[row, :objects]) for x in arrays)
        return BatchResult(
            photo.name,
            iou_scores=scores,
            object_score_logits=object_scores,
            logits=logits,
            size=photo.size,
            processor=self.processor,
            post_processing=self.post_processing,
        )


def _pad_masks(masks: np.ndarray, objects: int) -> np.ndarray:
    """Masks [P, h, w] and empty ones up to so many objects."""
    return np.pad(masks, ((0, objects - len(masks)), (0, 0), (0, 0)))


def decode_blank(
    model: PromptableModel,
    embeddings: _Embeddings,
    counts: list[int],
    points: int,
    masks: list[np.ndarray] | None,
) -> None:
    """Run the decoder as for a batch of photos with so many objects each, of so many points each."""
    photos = []
    for i, count in enumerate(counts):
        shape = 1, count, points
        prompts = np.zeros((*shape, 2), np.float32), np.ones(shape, np.int32)
        photos.append(_Prepared("", (1, 1), *prompts, None if masks is None else masks[i]))
    batches = _Batches(model, model.processor, len(counts), False, {})
    jax.block_until_ready(batches._decode(embeddings, photos))


def read_task(task: Any) -> Task:
    """A task of what a caller gave for one. Raises ValueError for what can be none."""
    if isinstance(task, Task):
        return task
    names = [field.name for field in fields(Task)]
    if not isinstance(task, Mapping):
        raise ValueError(f"a task must be a Task or a mapping with {', '.join(names)}; got {shown(task)}")
    if unknown := [key for key in task if key not in names]:
        raise ValueError(f"a task has {', '.join(names)}; got {shown(unknown[0])}")
    if "photo" not in task:
        raise ValueError(f"a task must have a photo; got {', '.join(task)} only")
    return Task(**task)


def _name(task: Task, default: str) -> str:
    if task.name is not None:
        return str(task.name)
    return Path(task.photo).name if isinstance(task.photo, (str, Path)) else default


def tasks_of_folder(folder: Path) -> list[Task | Failed]:
    """Tasks for the pictures of a folder and the entries of its prompts.json, by name.

    Raises ValueError if there is no folder, or no such file in it.
    """
    if not os.path.isdir(folder):  # of names that the system refuses it says no, too
        raise ValueError(
            f"work must be a folder or an iterable of tasks; there is no folder {shown(str(folder))}"
        )
    path = folder / PROMPTS_FILE
    if not path.is_file():
        raise ValueError(
            f"{path} is missing: it says what to segment, as in "
            '{"truck.jpg": {"points": [[[500, 375]]], "labels": [[1]]}}, or {"truck.jpg": {"boxes": '
            "[[75, 275, 1725, 850]]}}"
        )
    entries = read_json(path, "it has an entry for each picture", largest=_LARGEST_PROMPTS)
    if not isinstance(entries, dict):
        raise ValueError(f"{path} must be an object with an entry for each picture; got {shown(entries)}")
    pictures = {file.name for file in pictures_in(folder)}
    return [_task_of_file(folder, name, entries) for name in sorted(pictures | entries.keys())]


def _task_of_file(folder: Path, name: str, entries: Mapping[str, Any]) -> Task | Failed:
    if name not in entries:
        return Failed(name, f"{PROMPTS_FILE} has no entry for this picture")
    entry, keys = entries[name], ("points", "labels", "boxes")
    if not isinstance(entry, dict) or not entry.keys() <= set(keys):
        found = cut(", ".join(entry)) if isinstance(entry, dict) else shown(entry)
        return Failed(name, f"an entry of {PROMPTS_FILE} must have {', '.join(keys)} alone; got {found}")
    return Task(folder / name, **entry, name=name)
