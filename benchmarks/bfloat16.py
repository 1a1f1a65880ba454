"""Are the masks of a TPU's program in bfloat16 those of float32? Asked on a CPU, with real weights.

    SAM2_JAX_REFERENCE_DIR=... python benchmarks/bfloat16.py --write

The folder has weights/ and images/, see CONTRIBUTING.md. The program is laid out as for a TPU, its kernels
for windows interpreted; JAX's own kernel for global attention is left to plain steps. A CPU's products add up
in another order than a TPU's: this tells of the layouts' rounding, not of a chip's.
"""

import os
import sys
from collections.abc import Iterator
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

PHOTOS = ("truck.jpg", "groceries.jpg", "bedroom/00000.jpg")
CLICKS = 32


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


def predict(model: Sam2Model, form: str, *inputs: np.ndarray) -> MaskPrediction:
    """Masks by the program for a platform, "cpu" or "tpu", run here."""

    def call(params: Any, *inputs: jax.Array) -> Any:
        with tracing_for(form):
            return model.module.apply({"params": params}, *inputs)

    with interpreted_kernels():
        return jax.jit(call)(model.params, *inputs)


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
    """Compare masks of clicks at random places of each photo."""
    arguments = parser(__doc__, image_size=False).parse_args()
    folder = os.environ.get("SAM2_JAX_REFERENCE_DIR")
    if not folder:
        sys.exit("SAM2_JAX_REFERENCE_DIR must name the folder with weights/ and images/")
    weights = Path(folder) / "weights" / "sam2-hiera-tiny-image"
    exact = Sam2Model.from_pretrained(weights)
    low = Sam2Model.from_pretrained(weights, dtype="bfloat16")
    random = np.random.default_rng(0)
    rows = []
    for name in PHOTOS:
        pixels = exact.processor(images=Image.open(Path(folder) / "images" / name))["pixel_values"]
        points = random.uniform(60, 960, (1, CLICKS, 1, 2)).astype(np.float32)
        inputs = np.asarray(pixels), points, np.ones((1, CLICKS, 1), np.int32)
        expected = predict(exact, "cpu", *inputs)
        for form in ("cpu", "tpu"):
            found = ious(expected, predict(low, form, *inputs))
            enough = (found >= 0.99).mean()
            rows.append([name, form, f"{found.min():.4f}", f"{np.median(found):.4f}", f"{enough:.0%}"])
            print(rows[-1], flush=True)
    head = ["photo", "program for", "IoU with float32, least", "median", "0.99 or more"]
    text = f"""## Masks in bfloat16, in a TPU's layouts

`python benchmarks/bfloat16.py --write`: sam2-hiera-tiny, real weights, {CLICKS} clicks at random places of
each photo, the mask of the three that float32 holds for the best. Both programs in bfloat16 run on a CPU.

{setting()}

{table(head, rows)}"""
    report("bfloat16", text, arguments.write)


if __name__ == "__main__":
    main()
