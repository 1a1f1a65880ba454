"""How well are objects tracked that are given on their first frame? J, F, J&F of semi-supervised benchmarks.

python -m benchmarks.vos --dataset davis17 DAVIS --model facebook/sam2.1-hiera-tiny --output results
python -m benchmarks.vos --dataset sav sav_val --predictions results

davis17: JPEGImages/480p, Annotations/480p, ImageSets/2017/val.txt. sav: JPEGImages_24fps, Annotations_6fps
with a folder for each object, sav_val.txt. An object's first true mask is its prompt; nothing else is. The
first and the last frame that is annotated do not count. Masks are written as the benchmark has them, and
scored as they are written; with --predictions those of a folder are scored. As Meta runs it: no holes filled;
of DAVIS a pixel is that object's whose logit is highest. In all this the numbers are those of the package
vos-benchmark.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.vos_data import BENCHMARKS, Masks, Video, videos
from sam2_jax.atomic import check_writable, write_text
from sam2_jax.checkpoint.fingerprint import fingerprint
from sam2_jax.clips.masks_out import label_maps, object_masks
from sam2_jax.clips.tracks import tracked_frame
from sam2_jax.json_files import read_json_object, write_json
from sam2_jax.processing.measures import ClipMeasures, Measures, mean
from sam2_jax.progress import progress_bar
from sam2_jax.video.model import Sam2VideoModel
from sam2_jax.video.policies import POLICIES
from sam2_jax.video.results import FrameMasks

_MADE_WITH = ("model", "dtype", "memory")


def track(model: Sam2VideoModel, video: Video, folder: Path, *, overlaps: bool, memory: str) -> int:
    """Track a video's objects, each from its first true mask on; write their masks, count its frames."""
    with closing(video.open()) as clip:
        tracker = model.video(
            clip, keep="none", memory=memory, apply_non_overlapping_constraints=not overlaps
        )
        write = object_masks if overlaps else label_maps
        begun: set[int] = set()
        annotated = set(video.annotated)
        with write(folder, clip) as add:
            for t in range(len(clip)):
                if clip.name(t) in annotated:
                    for key, mask in _first_masks(video, clip.name(t), begun).items():
                        tracker.prompt(t, key, mask=mask)
                        begun.add(key)
                if begun:
                    found: FrameMasks = tracker.step(frame=t)
                    add(tracked_frame(found), clip[t])
        return len(clip)


def _first_masks(video: Video, name: str, begun: set[int]) -> Masks:
    """True masks of objects that were on no frame before. DAVIS gives all of them on the first frame."""
    return {key: mask for key, mask in video.true_masks(name).items() if key not in begun and mask.any()}


def score(video: Video, folder: Path) -> dict[Any, Measures]:
    """J and F of each object of a video, of masks in a folder laid out as the truth."""
    measures = ClipMeasures()
    for name in video.annotated[1:-1]:
        measures.add(video.read(folder, name), video.true_masks(name))
    return measures.objects()


def table(scores: dict[str, dict[Any, Measures]]) -> str:
    """A line for each video, the mean of its objects, and one of all objects, in per cent."""
    objects = [each for of_video in scores.values() for each in of_video.values()]
    lines = ["| video | objects | J&F | J | F |", "|---|---|---|---|---|"]
    for name, found in [*((name, list(each.values())) for name, each in scores.items()), ("all", objects)]:
        if found:
            together = mean(found)
            numbers = " | ".join(f"{100 * x:.1f}" for x in (together.jf, together.j, together.f))
            lines.append(f"| {name} | {len(found)} | {numbers} |")
    return "\n".join(lines)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="the benchmark's folder")
    parser.add_argument("--dataset", choices=list(BENCHMARKS), required=True)
    parser.add_argument("--split", default="val", help="of which videos (default: val)")
    parser.add_argument("--model", help="hub id or folder of a model for clips")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--memory", choices=list(POLICIES), default="released", help="which frames are memories"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where masks and results.json go")
    parser.add_argument("--predictions", type=Path, metavar="FOLDER", help="score these masks; track nothing")
    return parser.parse_args(argv)


def evaluate(arguments: argparse.Namespace) -> Iterator[tuple[str, dict[Any, Measures]]]:
    """Videos and their scores, as they are done; what has masks in the output is not tracked again."""
    if (arguments.predictions is None) == (arguments.model is None or arguments.output is None):
        raise ValueError("give --model and --output to track, or --predictions to score what is there")
    folder: Path = arguments.predictions or arguments.output
    chosen = videos(arguments.dataset, arguments.path, arguments.split)
    model = None
    if arguments.predictions is None:
        check_writable(folder, is_folder=True)
        model = Sam2VideoModel.from_pretrained(arguments.model, dtype=arguments.dtype)
        options = {name: getattr(arguments, name) for name in _MADE_WITH}
        options |= {"weights": fingerprint(model.params), "data": str(arguments.path.resolve())}
        _check_same(folder, options)
    for video in progress_bar(chosen, desc="videos", unit="video"):
        if model is not None and not (folder / video.name).is_dir():
            start = time.perf_counter()
            overlaps = BENCHMARKS[arguments.dataset].overlaps
            frames = track(model, video, folder / video.name, overlaps=overlaps, memory=arguments.memory)
            print(f"{video.name}: {frames / (time.perf_counter() - start):.2f} frames a second", flush=True)
        if not (folder / video.name).is_dir():
            raise ValueError(f"there are no masks {folder / video.name}")
        yield video.name, score(video, folder / video.name)


def _check_same(folder: Path, options: dict[str, Any]) -> None:
    """Raise ValueError if masks in a folder are of other data or options; else write down of which."""
    path = folder / "made_with.json"
    if path.exists() and (before := read_json_object(path, "name another --output")) != options:
        raise ValueError(
            f"the masks in {folder} were made with {before}; got {options}: name another --output"
        )
    write_json(path, options)


def main(argv: list[str] | None = None) -> None:
    """Track and score, or score."""
    arguments = _parse(argv)
    try:
        scores = dict(evaluate(arguments))
    except ValueError as error:
        raise SystemExit(f"benchmarks.vos: error: {error}") from error
    objects = [each for of_video in scores.values() for each in of_video.values()]
    if not objects:
        raise SystemExit("benchmarks.vos: error: no object is on a frame that counts")
    print(table(scores))
    if arguments.output is not None:
        results = {
            "dataset": arguments.dataset,
            "split": arguments.split,
            **{name: getattr(arguments, name) for name in _MADE_WITH},
            "mean": mean(objects)._asdict(),
            "videos": {name: {str(k): m._asdict() for k, m in each.items()} for name, each in scores.items()},
        }
        write_text(arguments.output / "results.json", json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
