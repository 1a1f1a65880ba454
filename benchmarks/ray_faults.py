"""Does each photo have one row in the end, whatever of a Ray cluster is killed? Three nodes in one machine.

    pip install -e ".[ray]"
    python benchmarks/ray_faults.py --write

Small pictures, one of them damaged, the embedded model and a coarse grid. `sam2-jax generate --engine ray`
is left alone once. Then, at each of three moments, a node is killed and another takes its place; and at three
moments the command itself is killed and given again, in one folder. Rows must be those of the undisturbed
run, masks to the bit, and none may be there twice.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from PIL import Image
from scipy import ndimage

from benchmarks.common import parser, report, setting, table
from sam2_jax.scale.rows import read_rows, row_files

_GRID = ("--points-per-side", "3", "--image-size", "128", "--pred-iou-thresh", "0.3")
_STORE = 80_000_000  # bytes of a node's object store: the least that Ray takes is 75 MB
_MOMENTS = (0.1, 0.4, 0.7)  # parts of the photos that have rows


def make_photos(folder: Path, count: int) -> None:
    """Blurred noise, and one file that is cut off."""
    folder.mkdir()
    for i in range(count):
        noise = ndimage.gaussian_filter(np.random.default_rng(i).standard_normal((48, 64, 3)), (4, 4, 0))
        Image.fromarray((128 + 90 * noise / np.abs(noise).max()).astype(np.uint8)).save(
            folder / f"{i:04}.png"
        )
    damaged = folder / f"{count // 2:04}.png"
    damaged.write_bytes(damaged.read_bytes()[:200])


def command(photos: Path, output: Path, address: str) -> list[str]:
    """`sam2-jax generate` on the cluster."""
    words = [sys.executable, "-m", "sam2_jax", "generate", str(photos), "--model", "embedded", *_GRID]
    return [*words, "--engine", "ray", "--address", address, "--output", str(output), "--quiet"]


def written(output: Path) -> int:
    """How many photos have rows."""
    return sum(1 for _ in read_rows(row_files(output), ["id"])) if output.exists() else 0


def wait_for(process: subprocess.Popen[bytes], output: Path, count: float) -> None:
    """Wait until so many photos have rows, or the process has ended."""
    while process.poll() is None and written(output) < count:
        time.sleep(0.2)


def finish(words: list[str]) -> None:
    """Run to the end: 1 says that a photo is damaged."""
    if (status := subprocess.run(words).returncode) not in (0, 1):
        raise SystemExit(f"sam2-jax ended with {status}")


def contents(output: Path) -> dict[str, Any]:
    """Rows by photo, without what depends on the clock. Ends the program if one is there twice."""
    rows = list(read_rows(row_files(output)))
    found = {row["id"]: row | {"seconds": None} for row in rows}
    if len(found) != len(rows):
        raise SystemExit(f"{len(rows) - len(found)} rows are there twice")
    return found


def lose_nodes(cluster: Any, words: list[str], output: Path, photos: int) -> list[int]:
    """Kill a node at each moment while the command works; returns how many photos had rows then."""
    process = subprocess.Popen(words)
    moments = []
    for part in _MOMENTS:
        wait_for(process, output, part * photos)
        if process.poll() is not None:
            break
        moments.append(written(output))
        cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
        cluster.add_node(num_cpus=1, object_store_memory=_STORE)
    if process.wait() not in (0, 1):
        raise SystemExit(f"sam2-jax ended with {process.returncode} after nodes were lost")
    return moments


def lose_drivers(cluster: Any, words: list[str], output: Path, photos: int) -> list[int]:
    """Kill the command at each moment and give it again; returns how many photos had rows then."""
    moments = []
    for part in _MOMENTS:
        process = subprocess.Popen(words)
        wait_for(process, output, part * photos)
        moments.append(written(output))
        process.send_signal(signal.SIGKILL)
        process.wait()
    finish(words)
    return moments


def main() -> None:
    """Measure, print and perhaps write."""
    options = parser(__doc__, image_size=False)
    options.add_argument("--photos", type=int, default=200)
    arguments = options.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import ray
    from ray.cluster_utils import Cluster

    lines = []
    with tempfile.TemporaryDirectory(prefix="rays") as name:
        folder = Path(name)
        os.environ["SAM2_JAX_COMPILATION_CACHE"] = str(folder / "cache")
        make_photos(folder / "photos", arguments.photos)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": _STORE})
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=_STORE)
        cluster.wait_for_nodes()
        try:
            words = command(folder / "photos", folder / "alone", cluster.address)
            begun = time.perf_counter()
            finish(words)
            expected = contents(folder / "alone")
            if len(expected) != arguments.photos:
                raise SystemExit(f"{len(expected)} photos of {arguments.photos} have rows")
            masks = sum(len(row["masks"]) for row in expected.values())
            lines.append(
                ["nothing", "", str(len(expected)), str(masks), f"{time.perf_counter() - begun:.0f}"]
            )
            ways: dict[str, Callable[..., list[int]]] = {"a node": lose_nodes, "the command": lose_drivers}
            for what, lose in ways.items():
                output = folder / what.replace(" ", "_")
                begun = time.perf_counter()
                words = command(folder / "photos", output, cluster.address)
                moments = lose(cluster, words, output, arguments.photos)
                found = contents(output)
                if found != expected:
                    raise SystemExit(f"rows differ where {what} was killed")
                seconds = f"{time.perf_counter() - begun:.0f}"
                lines.append([what, ", ".join(map(str, moments)), str(len(found)), str(masks), seconds])
        finally:
            cluster.shutdown()
    head = ["killed", "when so many rows were written", "rows in the end", "masks, all equal", "s"]
    text = (
        "## Ray, with nodes and commands killed\n\n`python benchmarks/ray_faults.py --write`: "
        f"{arguments.photos} small pictures, one damaged, three nodes in one machine. Ray {ray.__version__}; "
        f"{setting()}.\n\n"
        f"{table(head, lines)}"
    )
    report("ray faults", text, arguments.write)


if __name__ == "__main__":
    main()
