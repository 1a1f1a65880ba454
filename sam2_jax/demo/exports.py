"""What the page has found, as files: masks, overlays, label maps, COCO, and the outputs of `track`."""

import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sam2_jax.checks import read_number, shown
from sam2_jax.clips.results import targets, write_results
from sam2_jax.clips.tracks import Track, TrackedFrame
from sam2_jax.demo.media import Medium, stem_of
from sam2_jax.demo.messages import check_mask, read_objects
from sam2_jax.image.coco import coco_annotation
from sam2_jax.json_files import write_lists
from sam2_jax.processing.drawing import Drawn, overlay
from sam2_jax.processing.rle import decode_rle

# A logit that is as good as certain: the person says that the object is there.
_PRESENT = 80.0
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Exported:
    """An object: its masks by frame."""

    id: int
    name: str
    colour: tuple[int, int, int] | None
    masks: dict[int, Track]


def read_exported(values: dict[str, Any], medium: Medium) -> tuple[str, list[Exported]]:
    """The format that is wanted and the objects. Raises ValueError for what cannot be meant."""
    format_ = values.get("format")
    if format_ not in list(FORMATS):
        raise ValueError(f"format must be one of {', '.join(FORMATS)}; got {shown(format_)}")
    return format_, [_read_object(id_, each, medium) for id_, each in read_objects(values)]


def _read_object(id_: int, values: dict[str, Any], medium: Medium) -> Exported:
    name, colour = values.get("name", str(id_)), values.get("color")
    if not isinstance(name, str):
        raise ValueError(f"object {id_}: name must be text; got {shown(name)}")
    if colour is not None and not (isinstance(colour, str) and _COLOUR.fullmatch(colour)):
        raise ValueError(f'object {id_}: color must be as "#rrggbb"; got {shown(colour)}')
    by_frame: dict[str, dict[str, Any]] = {}
    for kind in ("masks", "scores"):
        by_frame[kind] = given = values.get(kind, {})
        if not isinstance(given, dict):
            raise ValueError(f"object {id_}: {kind} must be an object, by frame; got {shown(given)}")
    found = {}
    for frame, rle in by_frame["masks"].items():
        if not re.fullmatch(r"\d{1,9}", frame) or int(frame) >= len(medium.source):
            raise ValueError(f"object {id_}: a frame of masks must be one of the medium; got {shown(frame)}")
        score = read_number(f"object {id_}: a score", by_frame["scores"].get(frame, 1.0), 0, 1)
        found[int(frame)] = Track(id_, check_mask(f"object {id_}: a mask", rle, medium), score, _PRESENT)
    rgb = None if colour is None else tuple(bytes.fromhex(colour[1:]))
    return Exported(id_, name[:_LONGEST_NAME], rgb, found)  # type: ignore[arg-type]


def export(folder: Path, medium: Medium, format_: str, objects: list[Exported]) -> Path:
    """Write a format's file into a folder, several files in one zip. Raises ValueError if it cannot."""
    path = FORMATS[format_](folder, medium, objects)
    return path if path.is_file() else _zipped(path)


def _tracked(medium: Medium, objects: list[Exported]) -> Iterator[TrackedFrame]:
    """The objects frame by frame, as `track` has them: all frames of a clip."""
    ordered = sorted(objects, key=lambda each: each.id)
    for t in range(len(medium.source)):
        # Copies, for a track keeps its mask once that is drawn: all of a clip's would fill the memory.
        yield TrackedFrame(t, tuple(replace(each.masks[t]) for each in ordered if t in each.masks))


def _of_track(kind: str, called: str) -> Callable[[Path, Medium, list[Exported]], Path]:
    """One of the outputs of `sam2-jax track`."""

    def write(folder: Path, medium: Medium, objects: list[Exported]) -> Path:
        inner = folder / stem_of(medium.name)
        inner.mkdir()
        wanted = targets(inner, [kind])
        with medium.clip() as clip:
            write_results(clip, _tracked(medium, objects), wanted)
        (target,) = wanted
        return target.path.rename(folder / f"{stem_of(medium.name)}_{called}{target.path.suffix}")

    return write


def _overlay(folder: Path, medium: Medium, objects: list[Exported]) -> Path:
    """Each frame that has a mask, with the objects drawn in the page's colours and named."""
    target = folder / f"{stem_of(medium.name)}_overlay"
    target.mkdir()
    frames = sorted({t for each in objects for t in each.masks})
    with medium.clip() as clip:
        for t in frames:
            there = [each for each in objects if t in each.masks]
            drawn = [Drawn(decode_rle(each.masks[t].rle), each.name, colour=each.colour) for each in there]
            overlay(clip[t], drawn).save(target / f"{medium.source.name(t)}.png", "PNG")
    return target


def _coco(folder: Path, medium: Medium, objects: list[Exported]) -> Path:
    """COCO annotations: an image for each frame that has a mask, a category for each name."""
    height, width = medium.size
    frames = sorted({t for each in objects for t in each.masks})
    is_clip = medium.kind == "video"
    images = [
        {
            "id": t + 1,
            "width": width,
            "height": height,
            "file_name": f"{medium.source.name(t)}.png" if is_clip else medium.name,
        }
        for t in frames
    ]
    categories = {name: i for i, name in enumerate(dict.fromkeys(each.name for each in objects), 1)}
    annotations: list[dict[str, Any]] = []
    for each in objects:
        for t, track in sorted(each.masks.items()):
            about = coco_annotation(len(annotations) + 1, t + 1, track.rle, categories[each.name])
            annotations.append(about | {"object_id": each.id, "score": track.iou})
    target = folder / f"{stem_of(medium.name)}_coco.json"
    listed = [{"id": i, "name": name} for name, i in categories.items()]
    lists = {"images": images, "annotations": annotations, "categories": listed}
    write_lists(target, {"description": "masks found by sam2_jax"}, lists)
    return target


FORMATS: dict[str, Callable[[Path, Medium, list[Exported]], Path]] = {
    "masks": _of_track("objects", "masks"),
    "overlay": _overlay,
    "coco": _coco,
    "labels": _of_track("masks", "labels"),
    "vis": _of_track("json", "tracks"),
    "video": _of_track("video", "overlay"),
}
"""What writes each format; returns a file, or a folder of several."""


def _zipped(folder: Path) -> Path:
    """A folder's only file, or else a zip of all in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise ValueError("there is nothing to export: no object has a mask")
    if len(files) == 1:
        named = folder.parent / f"{folder.name}{files[0].suffix}"
        return files[0].rename(named)
    target = folder.parent / f"{folder.name}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:  # PNG and JPEG are packed already
        for path in files:
            archive.write(path, path.relative_to(folder))
    return target
