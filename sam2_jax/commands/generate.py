"""The `sam2-jax generate` command: all masks of photos, as files or as rows of a table."""

import argparse
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_jax.atomic import check_writable
from sam2_jax.commands.common import (
    add_hosts,
    add_max_pixels,
    add_model,
    add_quiet,
    check_model,
    count,
    end_at_sigterm,
    join_hosts,
    load_model,
    name_model,
    number,
    whole,
)

if TYPE_CHECKING:
    from sam2_jax.image.annotate import Summary

_GENERATE_OPTIONS: tuple[tuple[str, Any, str], ...] = (
    ("points_per_side", whole, "points on a side of the grid of clicks (default: 32)"),
    ("points_per_batch", whole, "clicks decoded together: more memory, the same masks (default: 64)"),
    ("pred_iou_thresh", number, "least predicted IoU of a mask (default: 0.8, transformers 0.88)"),
    ("stability_score_thresh", number, "least stability of a mask (default: 0.95)"),
    ("crop_n_layers", whole, "layers of crops looked at beside the photo (default: 0)"),
    ("crop_n_points_downscale_factor", number, "fewer points for each layer by this factor (default: 1)"),
    ("min_mask_region_area", number, "remove holes and islands of fewer pixels (default: 0)"),
    ("max_hole_area", number, "fill holes of up to so many pixels of the network's masks (default: 0)"),
)

# What changes how fast it goes, and how much memory it takes.
_MACHINE_OPTIONS = (
    ("batch_size", "photos, or crops, encoded together (default: one on each device)"),
    ("devices", "devices that share the work (default: all there are)"),
    ("readers", "threads that open and resize photos (default: one for each core)"),
)


def add_generate(commands: Any) -> None:
    """Add the command's arguments."""
    generate = commands.add_parser(
        "generate",
        help="segment everything in photos, without prompts",
        description="Find all masks of photos; write overlays, label maps and COCO annotations to a folder. "
        "Given again, the command goes on where it stopped; what was made of another picture, model or "
        "settings is made anew. With --rows a folder of Parquet files is written instead, a row for each "
        "photo, which `sam2-jax collect` turns into COCO annotations.",
        epilog="example, a folder of photos, small things looked for in crops as well:\n"
        "  sam2-jax generate photos --output masks --crop-n-layers 1\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    generate.add_argument(
        "photos",
        type=_path_or_uri,
        nargs="+",
        metavar="PHOTO",
        help="picture files or folders; with --engine ray Parquet with a column bytes or path (and id) and "
        "WebDataset tars as well, and all of them as URIs: s3://, gs://, abfs://, hdfs://, file://",
    )
    generate.add_argument(
        "--output",
        type=_path_or_uri,
        required=True,
        metavar="FOLDER",
        help="where results go; with --engine ray perhaps a URI",
    )
    generate.add_argument(
        "--overlay",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="draw the masks over the photo as well, a PNG of some megabytes (default: yes)",
    )
    generate.add_argument(
        "--rows",
        action="store_true",
        help="write rows of Parquet files (pip install 'sam2_jax[parquet]'): for very many photos; what has "
        "a row, by its path, is not looked at again",
    )
    generate.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: rows, found by all machines of a Ray cluster (pip install 'sam2_jax[ray]'), which must "
        "see photos, model and FOLDER (default: local, this process)",
    )
    generate.add_argument(
        "--address", help="the Ray cluster's (default: of the environment, else this machine)"
    )
    generate.add_argument(
        "--workers", type=whole, metavar="N", help="processes of the cluster (default: one for each CPU)"
    )
    add_model(generate)
    generate.add_argument(
        "--preset",
        choices=("meta", "transformers"),
        help="whose thresholds (default: the model's own if it brings some, else meta)",
    )
    for name, kind, meaning in _GENERATE_OPTIONS:
        option = f"--{name.replace('_', '-')}"
        generate.add_argument(option, type=kind, metavar="N", dest=name, help=meaning)
    for name, meaning in _MACHINE_OPTIONS:
        option = f"--{name.replace('_', '-')}"
        generate.add_argument(option, type=whole, metavar="N", dest=name, help=meaning)
    add_hosts(generate)
    add_max_pixels(generate)
    add_quiet(generate)
    generate.set_defaults(run=generate_masks)


def generate_masks(arguments: argparse.Namespace) -> int:
    """The `generate` command; 1 if a photo failed, though all others are done.

    What can be wrong with the input is found before the model is loaded.
    """
    from sam2_jax.image.annotate import Summary
    from sam2_jax.image.batch import read_batch_size, read_readers
    from sam2_jax.image.coco import gather
    from sam2_jax.image.generation_options import PRESETS, MaskGenerationOptions, merge_options
    from sam2_jax.scale.hosts import done_by_all
    from sam2_jax.scale.storage import without_keys

    given = {name: getattr(arguments, name) for name, _, _ in _GENERATE_OPTIONS}
    options = {name: value for name, value in given.items() if value is not None}
    MaskGenerationOptions(**merge_options(PRESETS[arguments.preset or "meta"], options))
    if arguments.batch_size is not None:
        read_batch_size(arguments.batch_size, 1)
    read_readers(arguments.readers)
    check_model(arguments)
    is_on_ray = arguments.engine == "ray"
    for place in () if is_on_ray else (*arguments.photos, arguments.output):
        if isinstance(place, str):
            raise ValueError(f"{without_keys(place)}: a URI is read and written by --engine ray alone")
    for name in ("address", "workers") if not is_on_ray else [name for name, _ in _MACHINE_OPTIONS]:
        if getattr(arguments, name) is not None:
            there = "leave it out with" if is_on_ray else "it is for"
            raise ValueError(f"--{name.replace('_', '-')}: {there} --engine ray")
    if is_on_ray and arguments.multihost:
        raise ValueError("--engine ray finds the machines itself: leave out --multihost")
    arguments.rows = arguments.rows or is_on_ray
    process, processes = join_hosts(arguments)
    if processes > 1:
        end_at_sigterm()

    start = time.perf_counter()
    arguments.quiet = arguments.quiet or process > 0
    done = Summary()
    generate = partial(_generate_on_ray if is_on_ray else _generate_share, arguments, options)
    for of_process in [generate()] if is_on_ray else done_by_all(generate):
        done.add(of_process)
    if process > 0:
        return 1 if done.failed else 0
    if processes > 1 and not arguments.rows:
        done.kinds = gather(arguments.output)
    where = without_keys(str(arguments.output))
    print(f"{where}: {_told(done, arguments.rows)}; {time.perf_counter() - start:.1f} s")
    if done.pace() and not arguments.quiet:
        print(done.pace())
    for photo, problem in done.failed.items():
        print(f"sam2-jax: {photo} failed: {problem}", file=sys.stderr)
    if not done.masks and done.photos:
        print(
            "note: no mask was good enough. Lower --pred-iou-thresh and --stability-score-thresh (now "
            f"{of_process['thresholds']}) for more, less certain ones",
            file=sys.stderr,
        )
    return 1 if done.failed else 0


def _generate_share(arguments: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    """Find the masks of this process's photos, and write them; returns what was done, and the thresholds."""
    import jax

    from sam2_jax.clips.tables import import_pyarrow
    from sam2_jax.devices import mesh_of
    from sam2_jax.image.annotate import annotate
    from sam2_jax.image.automatic import AutomaticMaskGenerator
    from sam2_jax.image.photos import find_photos
    from sam2_jax.scale.hosts import share
    from sam2_jax.scale.pictures import generate_rows

    photos = list(share(find_photos(arguments.photos, of_one_name=arguments.rows)))
    check_writable(arguments.output, is_folder=True)
    if arguments.rows:
        import_pyarrow()
    devices = len(jax.local_devices()) if arguments.devices is None else arguments.devices
    mesh_of(devices)
    model = load_model(arguments, arguments.dtype).on_devices(devices)
    generator = AutomaticMaskGenerator(model, arguments.preset, **options)
    about: dict[str, Any] = {"model_name": str(arguments.model), "progress": not arguments.quiet}
    about |= {"batch_size": arguments.batch_size, "readers": arguments.readers}
    if arguments.rows:
        done = generate_rows(generator, photos, arguments.output, **about)
    else:
        about |= {"draw": arguments.overlay, "joined": jax.process_count() == 1}
        done = annotate(generator, photos, arguments.output, **about)
    thresholds = f"{generator.options.pred_iou_thresh:g} and {generator.options.stability_score_thresh:g}"
    return done.to_json() | {"thresholds": thresholds}


def _generate_on_ray(arguments: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    """The same by a cluster of Ray."""
    from sam2_jax.clips.tables import import_pyarrow
    from sam2_jax.scale.ray import generate_on_ray

    import_pyarrow()
    name_model(arguments)
    is_folder = os.path.isdir(arguments.model)
    done, used = generate_on_ray(
        arguments.photos,
        arguments.output,
        model=os.path.abspath(arguments.model) if is_folder else arguments.model,
        address=arguments.address,
        workers=arguments.workers,
        progress=not arguments.quiet,
        preset=arguments.preset,
        revision=arguments.revision,
        image_size=arguments.image_size,
        dtype=arguments.dtype,
        max_pixels=arguments.max_pixels,
        **options,
    )
    thresholds = f"{used.pred_iou_thresh:g} and {used.stability_score_thresh:g}"
    return done.to_json() | {"thresholds": thresholds}


def _path_or_uri(given: str) -> Path | str:
    """A path, or a URI as it is, which a `Path` would spoil."""
    from sam2_jax.scale.storage import is_uri

    return given if is_uri(given) else Path(given)


def _told(done: "Summary", is_rows: bool) -> str:
    """What was done, as a sentence."""
    if is_rows:
        before = f"; {count(done.skipped, 'photo')} had a row before" if done.skipped else ""
        return f"{count(done.masks, 'mask')} in {count(done.photos, 'photo')}{before}"
    photos = count(done.photos + done.skipped, "photo")
    before = f", {done.skipped} of them done before" if done.skipped else ""
    anew = f", {done.renewed} made anew (another picture, model or settings)" if done.renewed else ""
    kinds = f"; annotations.json has masks of {done.kinds} models or settings" if done.kinds > 1 else ""
    return f"{count(done.masks, 'mask')} in {photos}{before}{anew}{kinds}"
