"""The `sam2-jax track` command: objects of a clip, from prompts on some frames or found by themselves."""

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_jax.atomic import check_writable, remove_left_behind
from sam2_jax.checkpoint.embedded import SAMPLE_PICTURE
from sam2_jax.checks import read_whole
from sam2_jax.clips.kinds import DIRECTIONS, KINDS, USUAL
from sam2_jax.commands.clip_prompts import add_prompts, read_prompts, sample_prompts
from sam2_jax.commands.common import (
    add_max_pixels,
    add_model,
    add_quiet,
    check_model,
    count,
    load_model,
    load_video_model,
    step,
    whole,
)

if TYPE_CHECKING:
    from sam2_jax.clips.clip import Clip
    from sam2_jax.clips.record import Record
    from sam2_jax.clips.tracking import Everything, Passes, Prompt
    from sam2_jax.video.model import Sam2VideoModel

_EXAMPLES = """examples, an object clicked on and corrected in frame 40, and another by a box:
  sam2-jax track clip.mp4 --point 500,375 --negative 520,90@40 --object --box 425,600,700,875
  sam2-jax track frames --everything --every 24 --output found
"""
_MOST_OBJECTS = 255
_USUAL_MOST = 20


def add_track(commands: Any) -> None:
    """Add the command's arguments."""
    track = commands.add_parser(
        "track",
        help="track objects through a clip",
        description="Track objects through a clip from prompts on any of its frames; on frames behind an "
        "object's first they correct it. Frames are numbered from 0 and @FRAME follows a prompt, the first "
        "frame without it. Given again, the command goes on where it stopped. Without a clip, a sample shows "
        "what comes out.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    track.add_argument(
        "clip",
        type=Path,
        nargs="?",
        default=SAMPLE_PICTURE,
        metavar="VIDEO",
        help="video file (with PyAV: pip install 'sam2_jax[video]'), folder of pictures, GIF or WebP",
    )
    add_prompts(track)
    track.add_argument(
        "--everything", action="store_true", help="instead of prompts: all that is found on the first frame"
    )
    for name, meaning in (
        ("every", "look for new things every N frames (default: on the first alone)"),
        ("max-objects", f"so many objects at most (default: {_USUAL_MOST})"),
        ("points-per-side", "points on a side of the grid of clicks (default: 32)"),
    ):
        track.add_argument(f"--{name}", type=whole, metavar="N", help=f"with --everything, {meaning}")
    ways = track.add_mutually_exclusive_group()
    ways.add_argument(
        "--reverse",
        action="store_const",
        const="reverse",
        dest="direction",
        help="backwards, from the last frame with prompts, or from the last of all for those without @FRAME",
    )
    ways.add_argument(
        "--both",
        action="store_const",
        const="both",
        dest="direction",
        help="forwards, and backwards for what came before an object's first prompt",
    )
    track.set_defaults(direction=DIRECTIONS[0])
    for name, default, meaning in (
        ("start", 0, "first frame that is taken (default: 0)"),
        ("end", None, "first frame that is not taken any more (default: all are)"),
        ("stride", 1, "take every Nth frame (default: 1)"),
    ):
        track.add_argument(f"--{name}", type=whole, default=default, metavar="N", help=meaning)
    add_model(track)
    track.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where results go (default: VIDEO_tracked, here)"
    )
    track.add_argument(
        "--write",
        nargs="+",
        choices=KINDS,
        default=list(USUAL),
        metavar="KIND",
        help=f"what is written, of {', '.join(KINDS)} (default: {' '.join(USUAL)}): label maps as DAVIS has "
        "them, masks of each object as SA-V, YouTube-VIS JSON, a table, the clip with its objects drawn (GIF "
        "without PyAV), a sheet of some frames",
    )
    add_max_pixels(track)
    add_quiet(track)
    track.set_defaults(run=track_objects)


def track_objects(arguments: argparse.Namespace) -> int:
    """The `track` command; 1 if a frame could not be read, though those before it are done.

    What can be wrong with the input is found before the model is loaded.
    """
    from sam2_jax.clips.record import Record
    from sam2_jax.clips.results import targets, write_results
    from sam2_jax.clips.tracking import Passes, track

    check_model(arguments)
    _check_options(arguments)
    output = arguments.output or Path(f"{arguments.clip.stem}_tracked")
    _check_output(arguments.clip, output)
    targets(output, arguments.write)
    with _open(arguments) as clip:
        rate = "" if clip.rate is None else f", {clip.rate:.3g} a second"
        print(
            f"{arguments.clip}: {clip.size[1]} x {clip.size[0]} pixels, {count(len(clip), 'frame')}{rate}",
            flush=True,
        )
        usual = clip.numbers[-1 if arguments.direction == "reverse" else 0]
        given = arguments.prompts or ([] if arguments.everything else sample_prompts(usual))
        prompts = read_prompts(given, clip, usual)
        passes = Passes(prompts, len(clip), arguments.direction)
        model = load_video_model(arguments, arguments.dtype)
        everything, found_by = _everything(arguments)
        record = Record(output, _made_of(arguments, clip, model, prompts) | {"everything": found_by})
        _clear(output, record)
        tracker = model.video(clip, keep="none")
        track(tracker, clip, passes, record, everything, progress=not arguments.quiet)
        readable = _readable(record, passes, len(clip))
        marks = {(each.t, each.object_id): (each.points, each.labels, each.box) for each in prompts}
        missing = [each for each in targets(output, arguments.write, marks) if not each.path.exists()]
        if missing:
            with step(f"write {', '.join(str(each.path) for each in missing)}"):
                write_results(clip, record.frames(readable), missing)
        record.finish()
        _tell(record, clip, readable)
    return 1 if record.broken else 0


def _check_options(arguments: argparse.Namespace) -> None:
    given = arguments.prompts or []
    is_sample = arguments.clip == SAMPLE_PICTURE
    if arguments.everything and (given or arguments.direction != "forward"):
        raise ValueError(
            "--everything finds objects forwards by itself; leave out prompts, --reverse and --both"
        )
    if not arguments.everything and not given and not is_sample:
        raise ValueError("nothing to track: give at least one --point, --box or --mask, or --everything")
    if len(given) > _MOST_OBJECTS:
        raise ValueError(f"there may be {_MOST_OBJECTS} objects at most; got {len(given)}")
    of_everything = {
        "--every": (arguments.every, 0, 2**53),
        "--max-objects": (arguments.max_objects, 1, _MOST_OBJECTS),
        "--points-per-side": (arguments.points_per_side, 1, 2**53),
    }
    for name, (value, least, most) in of_everything.items():
        if value is not None:
            read_whole(name, value, least, most)
            if not arguments.everything:
                raise ValueError(f"{name} is for --everything, which is not given")
    if arguments.points_per_side is not None:
        from sam2_jax.image.generation_options import MaskGenerationOptions

        MaskGenerationOptions(points_per_side=arguments.points_per_side)


def _open(arguments: argparse.Namespace) -> "Clip":
    from sam2_jax.clips.reading import open_clip, part_of
    from sam2_jax.clips.sample import SampleFrames

    part = arguments.start, arguments.end, arguments.stride
    if arguments.clip == SAMPLE_PICTURE:
        return part_of(SampleFrames(SAMPLE_PICTURE), *part)
    return open_clip(arguments.clip, *part, max_pixels=arguments.max_pixels)


def _everything(arguments: argparse.Namespace) -> "tuple[Everything | None, Any]":
    """How objects are found, if they are, and the settings on which that depends."""
    if not arguments.everything:
        return None, None
    from dataclasses import asdict

    from sam2_jax.clips.tracking import Everything
    from sam2_jax.image.automatic import AutomaticMaskGenerator

    options = {} if arguments.points_per_side is None else {"points_per_side": arguments.points_per_side}
    generator = AutomaticMaskGenerator(load_model(arguments, arguments.dtype), **options)

    def find(picture: np.ndarray) -> list[np.ndarray]:
        found = generator.find(picture, False)
        return [each.mask for each in sorted(found, key=lambda each: -each.predicted_iou)]

    every, most = arguments.every or 0, arguments.max_objects or _USUAL_MOST
    settings = {"every": every, "most": most} | asdict(generator.options)
    return Everything(find, every, most), _as_json(settings)


def _made_of(
    arguments: argparse.Namespace, clip: "Clip", model: "Sam2VideoModel", prompts: list["Prompt"]
) -> dict[str, Any]:
    """All on which the masks depend: the clip, the weights, prompts and settings."""
    import hashlib

    from sam2_jax.checkpoint.fingerprint import fingerprint

    numbers = clip.numbers
    return {
        "clip": {
            "name": clip.path.name,
            "sha256": clip.source.digest(),
            "frames": [numbers[0], numbers[-1], numbers.step],
        },
        "weights": fingerprint(model.params),
        "prompts": [
            {
                "t": each.t,
                "object": each.object_id,
                "points": each.points,
                "labels": each.labels,
                "box": each.box,
                "mask": None if each.mask is None else hashlib.sha256(each.mask.tobytes()).hexdigest(),
            }
            for each in prompts
        ],
        "direction": arguments.direction,
        "settings": _as_json(
            {
                "dtype": arguments.dtype,
                "configuration": model.config.to_dict(),
                "image_processor": model.processor.image_processor.to_dict(),
            }
        ),
    }


def _as_json(values: Any) -> Any:
    import json

    return json.loads(json.dumps(values, default=lambda array: array.tolist()))


def _results(output: Path) -> list[Path]:
    """All that the command may write to a folder, with PyAV or without."""
    from sam2_jax.clips.results import targets

    kinds = [kind for kind in KINDS if kind != "parquet"]
    paths = [target.path for target in targets(output, kinds)]
    paths += [output / name for name in ("tracks.parquet", "overlay.mp4", "overlay.gif")]
    return list(dict.fromkeys(paths))


def _check_output(clip: Path, output: Path) -> None:
    """Raise ValueError for a folder that cannot be written, and one where results would be the clip's."""
    check_writable(output, is_folder=True)
    own = clip.resolve()
    if own == output.resolve() or any(path.resolve() in (own, *own.parents) for path in _results(output)):
        raise ValueError(f"results in {output} would be among the clip's own files: choose another --output")


def _clear(output: Path, record: "Record") -> None:
    """Take away results that are of something else, and what was being written when a process was killed.

    Raises ValueError for what this command has not made.
    """
    there = [path for path in _results(output) if path.exists()]
    if record.is_new and there:
        raise ValueError(f"{there[0]} is there, and is not of this command: choose another --output")
    if record.is_anew:
        print(
            f"note: {output} has results of another clip, model or prompts; they are made anew",
            file=sys.stderr,
            flush=True,
        )
        for path in there:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not record.is_new:
        for path in _results(output):
            remove_left_behind(path.parent, path.name)


def _readable(record: "Record", passes: "Passes", frames: int) -> range:
    """The frames of which results can be written: no pass ended before them."""
    first, last = 0, frames
    for which, t, _ in record.broken:
        if passes.ranges[which].step > 0:
            last = min(last, t)
        else:
            first = max(first, t + 1)
    return range(first, last)


def _tell(record: "Record", clip: "Clip", readable: range) -> None:
    """Say what was found, and what could not be read."""
    seen: dict[int, list[float]] = {}
    for found in record.frames(readable):
        for track in found.tracks:
            seen.setdefault(track.object_id, []).append(track.score if track.area else -1.0)
    for object_id, scores in sorted(seen.items()):
        there = [score for score in scores if score >= 0]
        score = f", score {np.mean(there):.3f}" if there else ""
        print(f"object {object_id}: there on {len(there)} of {count(len(scores), 'frame')}{score}")
    if not seen:
        print("no object was found")
    for _, t, why in record.broken:
        print(f"sam2-jax: {why}", file=sys.stderr)
        print(f"sam2-jax: tracking ended at frame {clip.numbers[t]}", file=sys.stderr)
