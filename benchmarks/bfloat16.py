"""Are the masks of a TPU's program in bfloat16 those of float32? Asked on a CPU, with real weights.

    SAM2_JAX_REFERENCE_DIR=... python benchmarks/bfloat16.py --write

The folder has weights/ and images/, see CONTRIBUTING.md. The program is laid out as for a TPU, its kernels
for windows interpreted; JAX's own kernel for global attention is left to plain steps. A CPU's products add up
in another order than a TPU's: this tells of the layouts' rounding, not of a chip's.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import numpy as np
from jax.experimental import pallas
from PIL import Image

from benchmarks.common import parser, report, setting, table
from sam2_jax import Sam2Model
from sam2_jax.model import multi_scale_block
from sam2_jax.model.mask_decoder import MaskPrediction
from sam2_jax.model.platforms import tracing_for

# The clicks and boxes of the reference's cases, in pixels: [x, y, label], of a box two corners, 2 and 3.
PROMPTS: dict[str, list[list[list[int]]]] = {
    "truck.jpg": [
        [[500, 375, 1]],
        [[650, 750, 1]],
        [[500, 375, 1], [1125, 625, 1]],
        [[500, 375, 1], [1125, 625, 0]],
        [[75, 275, 2], [1725, 850, 3]],
        [[425, 600, 2], [700, 875, 3]],
        [[1375, 550, 2], [1650, 800, 3]],
        [[1240, 675, 2], [1400, 750, 3]],
    ],
    "groceries.jpg": [
        [[400, 300, 1]],
        [[550, 300, 1]],
        [[630, 300, 1]],
        [[630, 300, 1], [550, 300, 1]],
        [[450, 170, 2], [520, 350, 3]],
        [[350, 190, 2], [450, 350, 3]],
        [[500, 170, 2], [580, 350, 3]],
        [[580, 170, 2], [640, 350, 3]],
    ],
}
NONE = [0, 0, -10]


@contextmanager
def interpreted_kernels() -> Iterator[None]:
    """Kernels for windows stand in programs for any platform, as what they do step by step."""

    def in_place(kernel: Any, _: Any, __: Any, along: Any, whole: Any) -> jax.Array:
        return kernel(*along, *whole)

    called = partial(pallas.pallas_call, interpret=True)
    with (
        mock.patch.object(multi_scale_block, "kernel_on_tpu", in_place),
        mock.patch.object(pallas, "pallas_call", called),
    ):
        yield


def program(model: Sam2Model, form: str) -> Callable[..., MaskPrediction]:
    """The model's program for a platform, "cpu" or "tpu", compiled to run here."""

    def call(params: Any, *inputs: jax.Array) -> Any:
        with tracing_for(form), interpreted_kernels():
            return model.module.apply({"params": params}, *inputs)

    return partial(jax.jit(call), model.params)


def inputs(model: Sam2Model, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, points and labels of a photo's prompts."""
    photo = Image.open(path)
    most = max(map(len, PROMPTS[path.name]))
    prompts = np.array([prompt + [NONE] * (most - len(prompt)) for prompt in PROMPTS[path.name]])[None]
    pixels = np.asarray(model.processor(images=photo)["pixel_values"])
    points = prompts[..., :2] * np.array(pixels.shape[2:0:-1]) / photo.size
    return pixels, points.astype(np.float32), prompts[..., 2].astype(np.int32)


def ious(exact: MaskPrediction, other: MaskPrediction) -> np.ndarray:
    """Of each object, the IoU of the masks that the exact prediction holds for the best, [objects]."""
    best = np.asarray(exact.iou_scores)[0].argmax(axis=-1)[:, None, None, None]
    first, second = (
        np.take_along_axis(np.asarray(one.masks[0], np.float32), best, axis=1)[:, 0] > 0
        for one in (exact, other)
    )
    union = (first | second).sum(axis=(1, 2))
    return (first & second).sum(axis=(1, 2)) / np.maximum(union, 1)


def main() -> None:
    """Compare the masks of each photo's prompts."""
    arguments = parser(__doc__, image_size=False).parse_args()
    folder = os.environ.get("SAM2_JAX_REFERENCE_DIR")
    if not folder:
        sys.exit("SAM2_JAX_REFERENCE_DIR must name the folder with weights/ and images/")
    weights = Path(folder) / "weights" / "sam2-hiera-tiny-image"
    exact = Sam2Model.from_pretrained(weights)
    low = Sam2Model.from_pretrained(weights, dtype="bfloat16")
    expected = program(exact, "cpu")
    forms = {form: program(low, form) for form in ("cpu", "tpu")}
    rows = []
    for name in PROMPTS:
        prompted = inputs(exact, Path(folder) / "images" / name)
        right = expected(*prompted)
        for form, predict in forms.items():
            found = ious(right, predict(*prompted))
            rows.append([name, form, f"{found.min():.4f}", f"{np.median(found):.4f}"])
            print(rows[-1], flush=True)
    head = ["photo", "program for", "IoU with float32, least", "median"]
    text = f"""## Masks in bfloat16, in a TPU's layouts

`python benchmarks/bfloat16.py --write`: sam2-hiera-tiny, real weights, 8 prompts on each photo, the mask of
the three that float32 holds for the best. Both programs in bfloat16 run on a CPU.

{setting()}

{table(head, rows)}"""
    report("bfloat16", text, arguments.write)


if __name__ == "__main__":
    main()
