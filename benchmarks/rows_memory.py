"""How much memory does `sam2-jax collect` take, of few and of many masks? COCO's JSON and back.

python benchmarks/rows_memory.py --write

Synthetic rows of ten masks each. Each direction runs in a fresh process, whose peak is read.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from benchmarks.children import peak_memory, run_json
from benchmarks.common import parser, report, setting, table
from sam2_jax.scale.coco_rows import coco_to_rows, rows_to_coco
from sam2_jax.scale.rows import RowWriter, row_of

MASKS_OF_A_ROW = 10
_MADE = {"model": "synthetic", "weights": "none", "settings": {}}


def write_synthetic(folder: Path, masks: int) -> None:
    """Rows of so many masks, as long as a photo's are."""
    rng = np.random.default_rng(0)
    characters = np.frombuffer(bytes(range(ord("0"), ord("0") + 32)), np.uint8)
    with RowWriter(folder, _MADE) as rows:
        for i in range(masks // MASKS_OF_A_ROW):
            found = [
                {
                    "counts": rng.choice(characters, 300).tobytes().decode(),
                    "bbox": [1, 2, 30, 40],
                    "area": 1000,
                    "predicted_iou": 0.9,
                    "stability": 0.95,
                    "point": [15.5, 20.25],
                }
                for _ in range(MASKS_OF_A_ROW)
            ]
            rows.add(row_of(f"/photos/{i:08}.jpg", f"/photos/{i:08}.jpg", (480, 640), found, 0.1))


def child(direction: str, source: Path, target: Path) -> None:
    """One direction in this process; prints what it took as JSON."""
    before, begun = peak_memory(), time.perf_counter()
    _, masks = (rows_to_coco if direction == "json" else coco_to_rows)(source, target)
    seconds = time.perf_counter() - begun
    print(json.dumps({"masks": masks, "before": before, "peak": peak_memory(), "seconds": seconds}))


def main() -> None:
    """Measure, print and perhaps write."""
    options = parser(__doc__, image_size=False)
    options.add_argument("--masks", type=int, nargs="+", default=[100_000, 1_000_000])
    options.add_argument("--child", nargs=3, metavar=("DIRECTION", "SOURCE", "TARGET"))
    arguments = options.parse_args()
    if arguments.child:
        direction, source, target = arguments.child
        child(direction, Path(source), Path(target))
        return
    lines = []
    for masks in arguments.masks:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_synthetic(folder / "rows", masks)
            for direction, source, target in (
                ("json", folder / "rows", folder / "coco.json"),
                ("rows", folder / "coco.json", folder / "again"),
            ):
                found = run_json([__file__, "--child", direction, str(source), str(target)])
                if found["masks"] != masks:
                    raise SystemExit(f"{found['masks']} masks of {masks} arrived")
                numbers = (f"{found[key]:.0f}" for key in ("before", "peak", "seconds"))
                size = f"{(folder / 'coco.json').stat().st_size / 1e6:.0f}"
                lines.append([f"{masks:,} masks to {direction}", size, *numbers])
    head = ["", "JSON, MB", "memory before, MB", "peak, MB", "s"]
    text = (
        "## Memory of collecting rows\n\n`python benchmarks/rows_memory.py --write`: rows of "
        f"{MASKS_OF_A_ROW} masks to COCO's JSON, and that to rows. {setting()}.\n\n{table(head, lines)}"
    )
    report("rows memory", text, arguments.write)


if __name__ == "__main__":
    main()
