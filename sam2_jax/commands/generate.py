"""The `sam2-jax generate` command: all masks of photos, as files."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from sam2_jax.commands.common import add_model, count, load_model

_GENERATE_OPTIONS: tuple[tuple[str, Any, str], ...] = (
    ("points_per_side", int, "points on a side of the grid of clicks (default: 32)"),
    ("points_per_batch", int, "clicks decoded together (default: 64)"),
    ("pred_iou_thresh", float, "least predicted IoU of a mask (default: 0.8, transformers 0.88)"),
    ("stability_score_thresh", float, "least stability of a mask (default: 0.95)"),
    ("crop_n_layers", int, "layers of crops looked at beside the photo (default: 0)"),
    ("crop_n_points_downscale_factor", float, "fewer points for each layer by this factor (default: 1)"),
    ("min_mask_region_area", float, "remove holes and islands of fewer pixels (default: 0)"),
)


def add_generate(commands: Any) -> None:
    """Add the command's arguments."""
    generate = commands.add_parser(
        "generate",
        help="segment everything in photos, without prompts",
        description="Find all masks of photos; write overlays, label maps and COCO annotations to a folder. "
        "Given again, the command goes on where it stopped.",
        epilog="example, a folder of photos, small things looked for in crops as well:\n"
        "  sam2-jax generate photos --output masks --crop-n-layers 1\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    generate.add_argument("photos", type=Path, nargs="+", metavar="PHOTO", help="picture files or folders")
    generate.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where results go")
    add_model(generate)
    generate.add_argument(
        "--preset",
        choices=("meta", "transformers"),
        default="meta",
        help="whose default thresholds (default: %(default)s)",
    )
    for name, kind, meaning in _GENERATE_OPTIONS:
        option = f"--{name.replace('_', '-')}"
        generate.add_argument(option, type=kind, metavar="N", dest=name, help=meaning)
    generate.set_defaults(run=generate_masks)


def generate_masks(arguments: argparse.Namespace) -> int:
    """The `generate` command; 1 if a photo failed, though all others are done."""
    from sam2_jax.image.annotate import annotate, find_photos
    from sam2_jax.image.automatic import AutomaticMaskGenerator, MaskGenerationOptions

    photos = find_photos(arguments.photos)
    if arguments.output.exists() and not arguments.output.is_dir():
        raise ValueError(f"--output must be a folder; {arguments.output} is a file")
    given = {name: getattr(arguments, name) for name, _, _ in _GENERATE_OPTIONS}
    options = {name: value for name, value in given.items() if value is not None}
    MaskGenerationOptions(**options)  # what cannot be meant is refused before the model is loaded
    model = load_model(arguments)
    generator = AutomaticMaskGenerator(model, preset=arguments.preset, **options)
    start = time.perf_counter()
    done = annotate(generator, photos, arguments.output, model_name=str(arguments.model))
    seconds = time.perf_counter() - start
    before = f", {count(done.skipped, 'photo')} done before" if done.skipped else ""
    print(
        f"{arguments.output}: {count(done.masks, 'mask')} in {count(done.photos + done.skipped, 'photo')}"
        f"{before}; {seconds:.1f} s"
    )
    for photo, problem in done.failed.items():
        print(f"sam2-jax: {photo} failed: {problem}", file=sys.stderr)
    return 1 if done.failed else 0
