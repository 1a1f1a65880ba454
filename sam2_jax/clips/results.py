"""All that can be written of a tracked clip, by name, in one go through its frames."""

import warnings
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import NamedTuple

from sam2_jax.clips.clip import Clip
from sam2_jax.clips.drawn import Marks, has_av, overlay_video, sheet
from sam2_jax.clips.kinds import KINDS
from sam2_jax.clips.masks_out import label_maps, object_masks
from sam2_jax.clips.tables import import_pyarrow, parquet_rows, youtube_vis
from sam2_jax.clips.tracks import Add, TrackedFrame


class Target(NamedTuple):
    """A file or folder and what writes it."""

    path: Path
    write: Callable[[Path, Clip], AbstractContextManager[Add]]


def targets(folder: Path, kinds: Collection[str], marks: Marks | None = None) -> list[Target]:
    """Where what is written.

    masks: a folder of label maps; objects: a folder of masks for each object; json: tracks.json, in the
    layout of YouTube-VIS; parquet: tracks.parquet; video: overlay.mp4, or overlay.gif without PyAV; sheet:
    sheet.png. marks: prompts to be drawn. Raises ValueError for parquet without pyarrow.
    """
    if "parquet" in kinds:
        import_pyarrow()
    found = {
        "masks": Target(folder / "masks", label_maps),
        "objects": Target(folder / "objects", object_masks),
        "json": Target(folder / "tracks.json", youtube_vis),
        "parquet": Target(folder / "tracks.parquet", parquet_rows),
        "video": Target(
            folder / f"overlay.{'mp4' if has_av() else 'gif'}",
            lambda path, clip: overlay_video(path, clip, marks),
        ),
        "sheet": Target(folder / "sheet.png", lambda path, clip: sheet(path, clip, marks)),
    }
    return [found[kind] for kind in KINDS if kind in kinds]


def write_results(clip: Clip, frames: Iterable[TrackedFrame], wanted: Iterable[Target]) -> None:
    """Write what is wanted of a clip's frames, in order; each file or folder appears whole or not at all.

    One frame after the other is read and drawn. One that cannot be read is left out, with a warning, if
    nothing is tracked on it. Raises ValueError where another cannot be read, or a file cannot be written.
    """
    left_out: list[ValueError] = []
    with ExitStack() as stack:
        adds = [stack.enter_context(write(path, clip)) for path, write in wanted]
        for found in frames if adds else ():
            try:
                picture = clip[found.t]
            except ValueError as error:
                if found.tracks:
                    raise
                left_out.append(error)
                continue
            for add in adds:
                add(found, picture)
    if left_out:
        more = f"; {len(left_out) - 1} more" if len(left_out) > 1 else ""
        warnings.warn(f"left out of the results: {left_out[0]}{more}", stacklevel=2)
