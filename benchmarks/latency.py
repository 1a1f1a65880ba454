"""How long from a click to its mask, and from starting Python to the first mask, beside transformers?

python benchmarks/latency.py --write
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from benchmarks.children import run_child
from benchmarks.common import (
    SIZES,
    measure,
    parser,
    random_model,
    reference_model,
    report,
    setting,
    table,
)
from sam2_jax import Sam2Model
from sam2_jax.compilation import SETTING

PHOTO_SIZE = (1200, 1800)


def click_rows(model: Sam2Model, repeats: int) -> list[list[str]]:
    """A click on an encoded photo until its full-size mask is there, the first and one that refines."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    photo = np.random.default_rng(0).integers(0, 256, (*PHOTO_SIZE, 3), np.uint8)
    session = model.predictor(photo)
    inputs = session.processor(images=photo)
    reference = reference_model(model, "cpu")
    pixels = torch.from_numpy(np.moveaxis(inputs["pixel_values"], -1, 1).copy())
    with torch.inference_mode():
        maps = reference.get_image_embeddings(pixels)

    def ours(refine: bool) -> Any:
        session.reset()
        if refine:
            session.click(500, 375)
        return lambda: (session.click(1125, 625, positive=not refine).mask, session.undo())

    def theirs(refine: bool) -> Callable[[], Any]:
        points = torch.tensor([[[[500.0, 375.0], [625.0, 520.0]]]])[:, :, : 1 + refine]
        labels = torch.tensor([[[1, 0]]])[:, :, : 1 + refine]

        def call() -> Any:
            with torch.inference_mode():
                logits = earlier[0] if refine else None
                found = reference(
                    image_embeddings=list(maps),
                    input_points=points,
                    input_labels=labels,
                    input_masks=logits,
                    multimask_output=not refine,
                )
                best = found.iou_scores[0, 0].argmax()
                earlier[:] = [found.pred_masks[:, 0, best : best + 1]]
                return (F.interpolate(earlier[0], PHOTO_SIZE, mode="bilinear") > 0).numpy()

        return call

    earlier: list[Any] = []
    rows = []
    for name, refine in (("first click", False), ("refining click", True)):
        timings = measure({"ours": ours(refine), "theirs": theirs(refine)}, repeats)
        ratio = timings["theirs"].median / timings["ours"].median
        rows.append([name, timings["ours"].cell("ms"), timings["theirs"].cell("ms"), f"{ratio:.2f}x"])
    return rows


def start_rows(folder: Path) -> list[list[str]]:
    """The first mask of a fresh process: with an empty and a warm compilation cache, and torch's."""
    with tempfile.TemporaryDirectory() as cache:
        setting = {SETTING: str(Path(cache) / "programs")}
        found = {
            "sam2_jax, cache empty": run_child("ours", folder, 1, **setting),
            "sam2_jax, cache warm": run_child("ours", folder, 1, **setting),
            "torch eager": run_child("torch", folder, 1),
        }
    return [
        [name, *(f"{x[key]:.2f}" for key in ("import", "load", "first", "second"))]
        for name, x in found.items()
    ]


def main() -> None:
    """Measure, print the tables, and with --write put them into RESULTS.md."""
    options = parser(__doc__)
    options.add_argument("--size", default="tiny", choices=SIZES)
    options.add_argument("--repeats", type=int, default=15)
    arguments = options.parse_args()

    model = random_model(arguments.size, arguments.image_size)
    with tempfile.TemporaryDirectory() as name:
        model.save_pretrained(name, layout="transformers")
        starts = start_rows(Path(name))
    clicks = click_rows(model, arguments.repeats)
    height, width = PHOTO_SIZE
    text = "\n".join(
        [
            f"## Latency\n\n`python benchmarks/latency.py --write`: hiera-{arguments.size} at "
            f"{arguments.image_size} x {arguments.image_size}, a photo of {width} x {height}. {setting()}.\n",
            table(["click to full-size mask, ms", "sam2_jax", "torch eager", "times as fast"], clicks),
            "\nA fresh process: encoder and one prompt, in seconds.\n",
            table(["process", "import", "load weights", "first call", "second call"], starts),
        ]
    )
    report("latency", text, arguments.write)


if __name__ == "__main__":
    main()
