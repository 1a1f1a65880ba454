"""The `sam2-jax segment` command: objects of a photo from points, boxes and masks."""

import argparse
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sam2_jax.atomic import check_writable, write_together
from sam2_jax.checkpoint.embedded import SAMPLE_PICTURE, SAMPLE_POINTS
from sam2_jax.commands.common import (
    add_max_pixels,
    add_model,
    add_quiet,
    check_model,
    check_path,
    count,
    load_model,
    step,
)
from sam2_jax.commands.prompts import numbers, read_mask_file
from sam2_jax.json_files import json_text
from sam2_jax.processing.boxes import bounding_box
from sam2_jax.processing.images import to_rgb
from sam2_jax.processing.photo_prompts import read_box, read_points
from sam2_jax.processing.rle import encode_rle

if TYPE_CHECKING:
    from sam2_jax.image.model import Sam2Model
    from sam2_jax.processing.drawing import Drawn
    from sam2_jax.processing.processor import Sam2Processor

_EXAMPLE = """example, two objects, the first by two clicks and the second by a box:
  sam2-jax segment truck.jpg --point 500,375 --negative 1125,625 --object --box 425,600,700,875
"""


@dataclass
class Prompt:
    """What the user said about one object, in the photo's pixels."""

    points: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    box: tuple[float, float, float, float] | None = None
    mask: Path | None = None

    @property
    def is_ambiguous(self) -> bool:
        """Whether it is a single click, which may mean a part, an object or a group."""
        return self.labels == [1] and self.box is None and self.mask is None


@dataclass(frozen=True)
class Candidate:
    """One mask of one object: bool [H, W] at the photo's size, and its predicted IoU."""

    mask: np.ndarray
    score: float


class _AddPrompt(argparse.Action):
    """Collects --point, --negative, --box and --mask into the object begun by the last --object."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        prompts = namespace.prompts = namespace.prompts or [Prompt()]
        kind = self.const
        current = prompts[-1]
        if kind == "object":
            if current != Prompt():
                prompts.append(Prompt())
        elif kind in ("point", "negative"):
            current.points.append(values)
            current.labels.append(1 if kind == "point" else 0)
        elif getattr(current, kind) is not None:
            parser.error(f"{option} is given twice for one object; begin the next one with --object")
        else:
            setattr(current, kind, values)


def add_segment(commands: Any) -> None:
    """Add the command's arguments."""
    segment = commands.add_parser(
        "segment",
        help="segment objects of a photo from points, boxes and masks",
        description="Segment objects of a photo and draw them. Prompts after --object are for the next one. "
        "Without a photo and prompts, a sample picture shows what comes out.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    segment.add_argument(
        "photo", type=Path, nargs="?", default=SAMPLE_PICTURE, help="picture file (default: a sample)"
    )
    point, box = numbers(2, "x,y"), numbers(4, "x0,y0,x1,y1")
    prompt: dict[str, Any] = {"action": _AddPrompt, "dest": "prompts"}
    segment.add_argument(
        "--point", const="point", type=point, metavar="X,Y", help="a point on the object", **prompt
    )
    segment.add_argument(
        "--negative", const="negative", type=point, metavar="X,Y", help="a point off it", **prompt
    )
    segment.add_argument(
        "--box", const="box", type=box, metavar="X0,Y0,X1,Y1", help="a box around it", **prompt
    )
    segment.add_argument(
        "--mask",
        const="mask",
        type=Path,
        metavar="FILE",
        help="a rough mask of it: a picture, white inside",
        **prompt,
    )
    segment.add_argument("--object", const="object", nargs=0, help="begin the next object", **prompt)
    segment.add_argument("--all", action="store_true", help="three masks for each object, not only the best")
    add_model(segment)
    segment.add_argument("--output", type=Path, metavar="FILE", help="overlay (default: PHOTO_segmented.png)")
    segment.add_argument("--masks", type=Path, metavar="FOLDER", help="also write each mask as a PNG there")
    segment.add_argument(
        "--json", type=Path, metavar="FILE", help="also write scores, boxes and run lengths there"
    )
    add_max_pixels(segment)
    add_quiet(segment)
    segment.set_defaults(run=segment_photo)


def segment_photo(arguments: argparse.Namespace) -> None:
    """The `segment` command. What can be wrong with the input is found before the model is loaded."""
    prompts = [prompt for prompt in arguments.prompts or [] if prompt != Prompt()]
    if arguments.photo == SAMPLE_PICTURE and not prompts:
        prompts = [Prompt([point], [1]) for point in SAMPLE_POINTS]
    if not prompts:
        raise ValueError("nothing to segment: give at least one --point, --box or --mask")
    output = arguments.output or Path(f"{arguments.photo.stem}_segmented.png")
    check_model(arguments)
    for prompt in prompts:
        check_path("mask", prompt.mask or "")
    _check_outputs(arguments, output, prompts)
    photo = to_rgb(arguments.photo, max_pixels=arguments.max_pixels)
    height, width = photo.shape[:2]
    print(f"{arguments.photo}: {width} x {height} pixels, {count(len(prompts), 'object')}")
    for number, prompt in enumerate(prompts, 1):
        _check_prompt(prompt, number, (height, width))
    mask_prompts = [
        None if prompt.mask is None else read_mask_file(prompt.mask, height, width, arguments.max_pixels)
        for prompt in prompts
    ]

    model = load_model(arguments, arguments.dtype)
    processor = model.processor
    with step("prepare the picture"):
        inputs = processor(images=photo)
    with step("encode the picture"):
        embeddings = model.get_image_embeddings(inputs["pixel_values"])
        embeddings[-1].block_until_ready()
    with step(f"decode {count(len(prompts), 'object')}"):
        results = _decode(model, processor, embeddings, prompts, mask_prompts, (height, width), arguments.all)
    found = [
        sorted(candidates, key=lambda c: -c.score)[: None if arguments.all else 1]
        for candidates in results.values()
    ]
    with step(f"write {output}"):
        write_together(_writers(arguments, output, photo, prompts, found))
    for number, candidates in enumerate(found, 1):
        for candidate in candidates:
            x, y, w, h = bounding_box(candidate.mask)
            share = 100 * candidate.mask.mean()
            print(
                f"object {number}: predicted IoU {candidate.score:.3f}, {candidate.mask.sum()} pixels "
                f"({share:.1f} %), box {x},{y} to {x + w},{y + h}"
            )


def _decode(
    model: "Sam2Model",
    processor: "Sam2Processor",
    embeddings: Any,
    prompts: list[Prompt],
    masks: list[np.ndarray | None],
    size: tuple[int, int],
    want_all: bool,
) -> dict[int, list[Candidate]]:
    """Masks of every object, by its index: three for a single click, which may mean several things, else one.

    Objects alike in that and in having a mask prompt are decoded together.
    """
    groups: dict[tuple[bool, bool], list[int]] = {}
    for i, prompt in enumerate(prompts):
        groups.setdefault((want_all or prompt.is_ambiguous, masks[i] is not None), []).append(i)
    results: dict[int, list[Candidate]] = {}
    for (multimask, has_mask), members in groups.items():
        inputs = processor(
            original_sizes=[size],
            input_points=[[prompts[i].points for i in members]],
            input_labels=[[prompts[i].labels for i in members]],
            input_boxes=[[prompts[i].box for i in members]],
            input_masks=[[masks[i] for i in members]] if has_mask else None,
        )
        outputs = model(**inputs, image_embeddings=embeddings, multimask_output=multimask)
        scores = np.asarray(outputs.iou_scores)[0]
        for i, low, row in zip(members, np.asarray(outputs.pred_masks)[0], scores, strict=True):
            # One object at a time: at the photo's size, the logits of many would fill the memory.
            full = processor.post_process_masks(low[None, None], [size])[0][0]
            results[i] = [Candidate(mask, float(score)) for mask, score in zip(full, row, strict=True)]
    return dict(sorted(results.items()))


def _writers(
    arguments: argparse.Namespace,
    output: Path,
    photo: np.ndarray,
    prompts: list[Prompt],
    found: list[list[Candidate]],
) -> dict[Path, Any]:
    """What to write where: the overlay, and on request the masks and the JSON."""
    from sam2_jax.processing.drawing import contact_sheet, overlay

    def save(image: Image.Image, target: Path) -> Any:
        kind = Image.registered_extensions()[target.suffix.lower()]
        return lambda path: image.save(path, format=kind)

    panels = []
    for rank in range(max(map(len, found))):
        panels.append(
            overlay(
                photo, [_drawn(i, p, c[rank]) for i, (p, c) in enumerate(zip(prompts, found, strict=True), 1)]
            )
        )
    writers = {output: save(contact_sheet(panels, columns=len(panels), size=None), output)}
    if arguments.masks:
        for number, candidates in enumerate(found, 1):
            for rank, candidate in enumerate(candidates, 1):
                target = arguments.masks / f"{arguments.photo.stem}_object{number}_mask{rank}.png"
                writers[target] = save(Image.fromarray(candidate.mask), target)
    if arguments.json:
        text = json_text(_report(arguments, photo, prompts, found))
        writers[arguments.json] = lambda path: path.write_text(text + "\n", encoding="utf-8")
    return writers


def _drawn(number: int, prompt: Prompt, candidate: Candidate) -> "Drawn":
    from sam2_jax.processing.drawing import Drawn  # whose SciPy the command's help need not wait for

    caption = f"{number}: {candidate.score:.2f}"
    return Drawn(candidate.mask, caption, prompt.points, prompt.labels, prompt.box)


def _report(
    arguments: argparse.Namespace, photo: np.ndarray, prompts: list[Prompt], found: list[list[Candidate]]
) -> dict[str, Any]:
    """The JSON report; boxes are x, y, width, height and masks uncompressed COCO run lengths."""
    return {
        "photo": str(arguments.photo),
        "model": str(arguments.model),
        "size": list(photo.shape[:2]),
        "objects": [
            {
                "points": prompt.points,
                "labels": prompt.labels,
                "box": prompt.box,
                "mask": None if prompt.mask is None else str(prompt.mask),
                "masks": [
                    {
                        "predicted_iou": candidate.score,
                        "area": int(candidate.mask.sum()),
                        "bbox": bounding_box(candidate.mask),
                        "segmentation": encode_rle(candidate.mask),
                    }
                    for candidate in candidates
                ],
            }
            for prompt, candidates in zip(prompts, found, strict=True)
        ],
    }


def _check_outputs(arguments: argparse.Namespace, output: Path, prompts: list[Prompt]) -> None:
    """Refuse files that cannot be written, or that would take the place of a picture or of one another."""
    if output.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"):
        raise ValueError(f"--output must end in .png, .jpg, .webp, .bmp or .tif; got {output}")
    inputs = [arguments.photo, *(prompt.mask for prompt in prompts if prompt.mask)]
    targets = {"--output": output, "--json": arguments.json}
    taken = {_whole(path): str(path) for path in inputs}
    for option, target in targets.items():
        if target is None:
            continue
        check_writable(target)
        if lost := taken.get(_whole(target)):
            raise ValueError(f"{option} {target} would overwrite {lost}; choose another name")
        taken[_whole(target)] = option
    folder = arguments.masks
    if folder is not None:
        check_writable(folder, is_folder=True)
        pattern = re.compile(rf"{re.escape(arguments.photo.stem)}_object\d+_mask\d+\.png")
        for path, name in taken.items():
            if path.parent == _whole(folder) and pattern.fullmatch(path.name):
                raise ValueError(f"--masks {folder} would overwrite {name}; choose another folder")


def _whole(path: Path) -> Path:
    """One spelling of a path; unlike Path.resolve it takes links in a circle as they are."""
    return Path(os.path.realpath(path))


def _check_prompt(prompt: Prompt, number: int, size: tuple[int, int]) -> None:
    """Refuse points and boxes that are not on the photo."""
    try:
        read_points(prompt.points, size)
        read_box(prompt.box, size)
    except ValueError as error:
        raise ValueError(f"object {number}: {error}") from error
