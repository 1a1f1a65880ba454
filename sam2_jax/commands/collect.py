"""The `sam2-jax collect` command: rows of masks to JSON in the layouts that others read, and back."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sam2_jax.commands.common import add_quiet, count, step


def add_collect(commands: Any) -> None:
    """Add the command's arguments."""
    collect = commands.add_parser(
        "collect",
        help="turn rows of masks into COCO or YouTube-VIS JSON, and back",
        description="Turn what `generate --rows` has written into one COCO file, and tables of tracks "
        "(`track --write parquet`) into one YouTube-VIS file; or such files into rows. One item after the "
        "other is read: the memory needed does not grow with their number.",
        epilog="examples, rows to COCO and back:\n"
        "  sam2-jax collect rows annotations.json\n"
        "  sam2-jax collect annotations.json rows\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    collect.add_argument(
        "source", type=Path, metavar="SOURCE", help="folder of Parquet files or one of them; or a JSON file"
    )
    collect.add_argument(
        "target", type=Path, metavar="TARGET", help="JSON file to write; or, from JSON, a new folder of rows"
    )
    add_quiet(collect)
    collect.set_defaults(run=collect_rows)


def collect_rows(arguments: argparse.Namespace) -> None:
    """The `collect` command."""
    from sam2_jax.atomic import check_writable
    from sam2_jax.clips.tables import import_pyarrow
    from sam2_jax.scale.coco_rows import coco_to_rows, rows_to_coco
    from sam2_jax.scale.track_tables import (
        is_of_tracks,
        is_youtube_vis,
        tables_to_youtube_vis,
        youtube_vis_to_table,
    )

    source, target = arguments.source, arguments.target
    is_json = source.suffix.lower() == ".json"
    if not is_json and target.suffix.lower() != ".json":
        raise ValueError(f"one of SOURCE and TARGET must end in .json; got {source} and {target}")
    if is_json and target.suffix:
        raise ValueError(f"TARGET must be a folder of rows, without an ending, for {source}; got {target}")
    if not source.exists():
        raise ValueError(f"there is no file or folder {source}")
    check_writable(target, is_folder=is_json)
    import_pyarrow()
    is_clips = is_youtube_vis(source) if is_json else is_of_tracks(source)
    turn: Callable[[Path, Path], tuple[int, int]]
    if is_json:
        turn = youtube_vis_to_table if is_clips else coco_to_rows
    else:
        turn = tables_to_youtube_vis if is_clips else rows_to_coco
    with step(f"write {target}"):
        things, masks = turn(source, target)
    print(f"{target}: {count(masks, 'mask')} of {count(things, 'clip' if is_clips else 'picture')}")
