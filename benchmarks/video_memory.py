"""How much memory does a long clip take, beside transformers? Each session in a fresh process.

python benchmarks/video_memory.py --write
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from benchmarks.children import forget_peak, peak_memory, run_json
from benchmarks.tracked import clicks, our_step, their_step

SIDES = ("ours", "torch")
# Peaks are read after so many frames; the one up to the first, compiling included, is told apart.
FIRST, *LATER = MARKS = (1, 10, 50, 200, 1000)


def child(side: str, folder: str, image_size: int, frames: int) -> dict[str, float]:
    """Track one object through a stream; the memory this process peaked at up to each of the marks, in MB.

    Those of the later marks are counted from the first on.
    """
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (image_size, image_size, 3), np.uint8)
    step = {"ours": _ours, "torch": _torch}[side](folder, frame)
    found = {}
    for t in range(1, frames + 1):
        step()
        if t in MARKS:
            found[str(t)] = peak_memory()
        if t == FIRST:
            forget_peak()
    return found


def _ours(folder: str, frame: np.ndarray) -> Callable[[], Any]:
    from sam2_jax import Sam2VideoModel

    return our_step(Sam2VideoModel.from_pretrained(folder), frame, clicks(1, len(frame)))


def _torch(folder: str, frame: np.ndarray) -> Callable[[], Any]:
    if shim := os.environ.get("SAM2_JAX_REFERENCE_DIR"):  # see tests/conftest.py
        sys.path.append(str(Path(shim) / "tools"))
        import torchvision_cpu_shim  # noqa: F401
    import torch
    from transformers import Sam2VideoModel

    model = Sam2VideoModel.from_pretrained(folder).eval()
    return their_step(model, torch.inference_mode(), frame, clicks(1, len(frame)), "cpu")


def main() -> None:
    """Measure, print the table, and with --write put it into RESULTS.md."""
    from benchmarks.common import parser, random_video_model, report, setting, table

    options = parser(__doc__)
    options.add_argument("--size", default="tiny")
    options.add_argument("--frames", type=int, default=200, help="beside transformers")
    options.add_argument("--small", type=int, default=256, help="image size of the long clip")
    options.add_argument("--long", type=int, default=1000, help="its frames")
    arguments = options.parse_args()
    runs = [
        ("sam2_jax fp32", "ours", arguments.image_size, arguments.frames),
        ("transformers fp32", "torch", arguments.image_size, arguments.frames),
        ("sam2_jax fp32", "ours", arguments.small, arguments.long),
    ]
    rows = []
    for label, side, image_size, frames in runs:
        with tempfile.TemporaryDirectory() as folder:
            random_video_model(arguments.size, image_size).save_pretrained(folder, layout="transformers")
            found = run_json([__file__, side, folder, str(image_size), str(frames)])
        cells = [f"{found[str(t)]:.0f}" if str(t) in found else "-" for t in MARKS]
        rows.append([f"{label}, {image_size} x {image_size}", *cells])
    head = ["most memory, MB", "up to frame 1", *(f"then up to {t}" for t in LATER)]
    text = (
        f"## Video memory\n\n`python benchmarks/video_memory.py --write`: resident memory at most, "
        f"hiera-{arguments.size}, one object through a stream; loading and compiling end with frame 1. "
        f"{setting()}.\n\n{table(head, rows)}"
    )
    report("video memory", text, arguments.write)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in SIDES:
        side, folder, image_size, frames = sys.argv[1:]
        print(json.dumps(child(side, folder, int(image_size), int(frames))))
    else:
        main()
