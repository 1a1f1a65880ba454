"""Does memory stay flat over thousands of pictures of many sizes, and is anything compiled after the first?

python benchmarks/flat_memory.py --pictures 5000 --write

The embedded model finds all masks of pictures of 64 sizes with a coarse grid. Resident memory is read in
Linux's /proc; what is compiled, JAX tells.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import numpy as np

from benchmarks.common import parser, report, setting, table
from sam2_jax import AutomaticMaskGenerator, Sam2Model

WARM = 50
COARSE: dict[str, Any] = {"points_per_side": 2, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}


def pictures(count: int) -> Iterator[np.ndarray]:
    """Rectangles on noise, of 8 heights and 8 widths."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        height, width = 48 + 16 * rng.integers(0, 8, 2)
        picture = rng.integers(0, 120, (height, width, 3)).astype(np.uint8)
        y, x = rng.integers(0, height // 2), rng.integers(0, width // 2)
        picture[y : y + height // 3, x : x + width // 3] = rng.integers(120, 256, 3)
        yield picture


def resident() -> float:
    """Megabytes of this process that are in memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


def run(arguments: argparse.Namespace) -> tuple[list[list[str]], int, float]:
    """Rows of what was measured on the way; programs compiled after the first pictures; growth."""
    compiled: list[str] = []

    def note(event: str, *_: object, **about: object) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(str(about.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(note)
    model = Sam2Model.from_pretrained("embedded").with_image_size(arguments.image_size)
    generator = AutomaticMaskGenerator(model, **COARSE)
    rows, memory, start = [], [], time.perf_counter()
    for number, _ in enumerate(
        generator.find_each(pictures(arguments.pictures), batch_size=arguments.batch_size), 1
    ):
        if number == WARM:
            compiled.clear()
        if number % 50 == 0:
            memory.append(resident())
        if number in (WARM, 500) or number % 1000 == 0:
            seconds = time.perf_counter() - start
            rows.append([str(number), f"{memory[-1]:.0f}", str(len(compiled)), f"{seconds:.0f}"])
    tenth = max(1, len(memory) // 10)
    growth = statistics.median(memory[-tenth:]) / statistics.median(memory[1 : 1 + tenth]) - 1
    return rows, len(compiled), growth


def main() -> None:
    """Run, print the table, and with --write put it into RESULTS.md; fails if memory grew."""
    options = parser(__doc__, image_size=False)
    options.add_argument("--pictures", type=int, default=5000)
    options.add_argument("--batch-size", type=int, default=4)
    options.add_argument("--image-size", type=int, default=64)
    arguments = options.parse_args()

    rows, compiled, growth = run(arguments)
    text = (
        f"## Memory over many pictures\n\n`python benchmarks/flat_memory.py --write`: all masks of "
        f"{arguments.pictures} pictures of 64 sizes by the embedded model at {arguments.image_size} x "
        f"{arguments.image_size}, {COARSE['points_per_side']} x {COARSE['points_per_side']} clicks, "
        f"{arguments.batch_size} pictures together. Programs are those compiled after the first {WARM}. "
        f"From the first tenth to the last, memory changed by {100 * growth:+.1f}%. {setting()}.\n\n"
        + table(["pictures", "memory, MB", "programs", "seconds"], rows)
    )
    report("flat memory", text, arguments.write)
    if compiled or growth > 0.03:
        raise SystemExit("memory is not flat, or programs were compiled")


if __name__ == "__main__":
    main()
