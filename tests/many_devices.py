"""Run in a process of eight fake devices: what is computed on 1, 2, 4 and 8 of them, as JSON.

Of every program that is compiled, small ones too, XLA writes the text into the folder that is the argument:
they are looked through for exchanges between devices.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from quick_compilation import compiling_quickly
from small_models import model_of, smallest_config

from sam2_jax import AutomaticMaskGenerator, Sam2Model
from sam2_jax.checkpoint.pretrained import _apply
from sam2_jax.devices import divided

EXCHANGES = re.compile(r"[\s)]((?:all-gather|all-reduce|all-to-all|reduce-scatter|collective)[\w-]*)\(")


def work(seed: int, counts: tuple[int, ...]) -> list[dict[str, Any]]:
    """Photos of mixed sizes, of so many objects."""
    rng = np.random.default_rng(seed)
    tasks = []
    for count in counts:
        height, width = rng.integers(20, 90, 2)
        photo = rng.integers(0, 256, (height, width, 3), np.uint8)
        tasks.append({"photo": photo, "points": rng.uniform(0, 20, (count, 1, 2)).tolist()})
    return tasks


def predicted(
    model: Sam2Model, tasks: list[dict[str, Any]], batch_size: int, devices: int
) -> list[np.ndarray]:
    options = {"batch_size": batch_size, "devices": devices, "progress": False}
    return [result.logits for result in model.predict_batch(tasks, **options)]  # type: ignore[misc]


def generated(model: Sam2Model, photos: list[np.ndarray], batch_size: int, devices: int) -> list[Any]:
    """Run lengths and scores of all masks, by photo."""
    least = {"pred_iou_thresh": 0, "stability_score_thresh": 0, "box_nms_thresh": 1, "crop_nms_thresh": 1}
    options = {"points_per_side": 4, "points_per_batch": 16, "crop_n_layers": 1}
    generator = AutomaticMaskGenerator(model.on_devices(devices), **options, **least)
    found = generator.find_each(photos, batch_size=batch_size)
    return [[(each.rle["counts"], each.predicted_iou) for each in of_photo] for of_photo in found]


def same(ours: list[Any], theirs: list[Any]) -> bool:
    """Whether masks are the same, in the same order, and their scores nearly."""
    pairs = [pair for of_photo in zip(ours, theirs, strict=True) for pair in zip(*of_photo, strict=True)]
    return all(a[0] == b[0] and abs(a[1] - b[1]) < 1e-4 for a, b in pairs)


def flops(model: Sam2Model, devices: int, batch: int = 8) -> float:
    """What each device has to do for a batch of images, counted by XLA."""
    on_devices = model.on_devices(devices)
    inputs = (np.zeros((batch, 64, 64, 3), np.float32),)
    how = {"method": "encode_image", "record": (), "options": ()}
    mesh, there = divided(on_devices.mesh, inputs)
    lowered = _apply.lower(model.module, on_devices.params, *there, mesh=mesh, **how)
    return lowered.compile().cost_analysis()["flops"]


def main() -> None:
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    model = model_of(smallest_config())
    tasks = work(0, (1, 2, 2, 1, 1, 2, 1, 2, 1, 1))  # two batches, the last one short
    photos = [task["photo"] for task in tasks[:5]]
    alone = predicted(model, tasks, 1, 1)
    masks = generated(model, photos, 4, 1)
    report: dict[str, Any] = {name: {} for name in ("difference", "same", "generated", "flops")}
    for devices in (1, 2, 4, 8):
        pairs = list(zip(predicted(model, tasks, 8, devices), alone, strict=True))
        report["difference"][devices] = max(float(np.abs(a - b).max()) for a, b in pairs)
        report["same"][devices] = all(np.array_equal(a > 0, b > 0) for a, b in pairs)
        report["flops"][devices] = flops(model, devices)
    for devices in (2, 4):
        report["generated"][devices] = same(generated(model, photos, 4, devices), masks)
    report["masks"] = [len(of_photo) for of_photo in masks]
    alike = work(4, (2,) * 8)  # what each of eight devices computes has the shapes of a photo alone
    pairs = list(zip(predicted(model, alike, 8, 8), predicted(model, alike, 1, 1), strict=True))
    report["equal to the bit"] = all(np.array_equal(a, b) for a, b in pairs)
    compiled.clear()
    for seed, counts in ((1, (2, 1, 2)), (2, (1, 1, 2, 2, 1, 2, 1, 1, 1)), (3, (2,))):
        again = work(seed, counts)
        predicted(model, again, 8, 8)
        generated(model, [task["photo"] for task in again], 4, 4)
    report["compiled again"] = len(compiled)
    texts = [path.read_text() for path in Path(sys.argv[1]).glob("*after_optimizations.txt")]
    report["programs"] = len(texts)
    report["of several"] = sum("num_partitions=" in text for text in texts)
    _, (parts,) = divided(model.on_devices(8).mesh, (np.ones((8, 8)),))
    summed = jax.jit(lambda x: x.sum()).lower(parts).compile()
    report["exchanges of a sum"] = EXCHANGES.findall(summed.as_text())
    report["exchanges"] = sorted({found for text in texts for found in EXCHANGES.findall(text)})
    print(json.dumps(report))


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    with compiling_quickly():
        main()
