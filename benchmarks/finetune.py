"""What does fine-tuning the decoder of real weights on synthetic scenes bring on scenes held out?

python benchmarks/finetune.py --model FOLDER --write

Neck, prompt encoder and decoder are trained, the backbone stays. Also shown: parameters that stay do so to
the bit, and training stopped half way and taken up again logs the same losses. --picture FILE draws scenes
held out with the masks from one click on each object, before and after.
"""

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.common import parser, report, setting, table
from benchmarks.embedded import HELD_OUT_SEED, TRAINING_SEED, cells
from sam2_jax import Sam2Model
from sam2_jax.checkpoint import names
from sam2_jax.processing.drawing import Drawn, contact_sheet, overlay
from sam2_jax.processing.masks import depth_inside
from sam2_jax.training.batches import Scenes
from sam2_jax.training.evaluate import evaluate
from sam2_jax.training.examples import Example
from sam2_jax.training.losses import mask_iou
from sam2_jax.training.optimizer import OptimizerOptions
from sam2_jax.training.prompts import PromptOptions
from sam2_jax.training.trainer import TrainingOptions, train


def main() -> None:
    """Evaluate, train, evaluate again; with --write put the table into RESULTS.md."""
    options = parser(__doc__)
    options.set_defaults(image_size=256)
    options.add_argument("--model", required=True, help="folder of real weights")
    options.add_argument("--steps", type=int, default=100, help="default 100")
    options.add_argument("--scenes", type=int, default=20, help="held out (default 20)")
    options.add_argument("--picture", type=Path, metavar="FILE", help="draw the first four held out")
    arguments = options.parse_args()
    size = arguments.image_size
    loaded = Sam2Model.from_pretrained(arguments.model)
    model = loaded.with_image_size(size)
    held_out = [Scenes(HELD_OUT_SEED, size).example(i) for i in range(arguments.scenes)]
    before = evaluate(model, held_out, clicks=3, progress=True)

    training = TrainingOptions(
        steps=arguments.steps,
        batch_size=2,
        objects=4,
        optimizer=OptimizerOptions(learning_rate=5e-5, warmup_steps=10),
        prompts=PromptOptions(correction_rounds=1),
    )
    source = Scenes(TRAINING_SEED, size)
    start = time.perf_counter()
    tuned, rows = train(model, source, training)
    seconds = time.perf_counter() - start
    after = evaluate(tuned, held_out, clicks=3, progress=True)

    short = replace(training, steps=10)
    with tempfile.TemporaryDirectory() as folder:
        train(model, source, short, Path(folder), stop_at=5, log_every=1)
        _, resumed = train(model, source, short, Path(folder), log_every=1)
    _, straight = train(model, source, short, log_every=1)
    apart = max(abs(a["total"] / b["total"] - 1) for a, b in zip(resumed, straight, strict=True))

    text = (
        f"## Fine-tuning\n\n`python benchmarks/finetune.py --write`: {Path(arguments.model).name}, backbone "
        f"frozen, {training.steps} steps of {training.batch_size} synthetic scenes of {size} x {size} with "
        f"{training.objects} objects in {seconds:.0f} s, compiling included; {before.objects} objects of "
        f"{arguments.scenes} scenes held out. {setting()}.\n\n"
        + table(
            ["mean IoU", "one click", "best of three", "box", "three clicks"],
            [["before", *cells(before)], ["after", *cells(after)]],
        )
        + f"\n\nLoss of the first and the last {training.steps // 10} steps: {rows[0]['total']:.3f}, "
        f"{rows[-1]['total']:.3f}. Frozen parameters equal to the bit: {_frozen_equal(model, tuned)}. "
        f"Stopped at step 5 of 10 and resumed: losses differ by {apart:.1e} at most."
    )
    report("finetune", text, arguments.write)
    if arguments.picture:
        draw(model, tuned, held_out[:4]).save(arguments.picture, quality=85)


def _frozen_equal(model: Sam2Model, tuned: Sam2Model) -> bool:
    """Whether the backbone is what it was."""
    before, after = (names.flatten(jax.device_get(x.params)) for x in (model, tuned))
    frozen = [name for name in before if name.startswith("vision_encoder.backbone.")]
    return all(np.array_equal(before[name], after[name]) for name in frozen)


def draw(before: Sam2Model, after: Sam2Model, examples: list[Example]) -> Image.Image:
    """Two rows of pictures: what each model makes of one click, deepest inside each object."""
    pictures, captions = [], []
    for model, when in ((before, "before"), (after, "after")):
        for example in examples:
            points = [_deepest(mask) for mask in example.masks]
            masks = _by_one_click(model, example.image, points)
            drawn = [Drawn(mask, points=[p], labels=[1]) for mask, p in zip(masks, points, strict=True)]
            pictures.append(overlay(example.image, drawn))
            captions.append(f"{when}: mean IoU {mask_iou(masks, example.masks).mean():.2f}")
    return contact_sheet(pictures, columns=len(examples), captions=captions)


def _by_one_click(model: Sam2Model, image: np.ndarray, points: list[tuple[float, float]]) -> np.ndarray:
    """Masks [N, H, W] of an object at each point: of three, the one of highest predicted IoU."""
    work = [{"photo": image, "points": [[point] for point in points]}]
    (result,) = model.predict_batch(work, multimask_output=True, progress=False)
    if result.masks is None or result.iou_scores is None:
        raise ValueError(f"the scene cannot be segmented: {result.error}")
    return result.masks[np.arange(len(points)), result.iou_scores.argmax(axis=1)]


def _deepest(mask: np.ndarray) -> tuple[float, float]:
    y, x = np.unravel_index(depth_inside(mask).argmax(), mask.shape)
    return float(x), float(y)


if __name__ == "__main__":
    main()
