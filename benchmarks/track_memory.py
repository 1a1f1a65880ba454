"""How much memory does `sam2-jax track` take on a long clip? Read from outside, while it works.

python benchmarks/track_memory.py --model embedded --frames 2000 --write

A video of 640 x 360 pixels, two things that move over noise, one clicked on and the other in a box. Needs
PyAV and Linux, whose /proc says how much memory of a process is resident.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from benchmarks.common import parser, report, setting, table
from sam2_jax.clips.clip import Clip
from sam2_jax.clips.drawn import overlay_video
from sam2_jax.clips.record import ROWS_FILE
from sam2_jax.clips.tracks import TrackedFrame

HEIGHT, WIDTH = 360, 640
WRITTEN = -1
MARKS = (100, 200, 500, 1000, 1500, 2000)
_PROMPTS = ("--point", "65,190", "--object", "--box", "500,40,580,110")


class MovingThings:
    """Frames made of numbers, as a clip has them."""

    path = Path("made of numbers")
    size = HEIGHT, WIDTH
    rate: float | None = 25.0

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._ground = np.random.default_rng(0).integers(0, 120, (HEIGHT, WIDTH, 3)).astype(np.uint8)

    def __len__(self) -> int:
        return self._frames

    def name(self, frame: int) -> str:
        """The frame's number in five digits."""
        return f"{frame:05}"

    def digest(self) -> str:
        """There is nothing to tell apart."""
        return ""

    def read(self, frames: range) -> Iterator[np.ndarray]:
        """See `Source`."""
        for t in frames:
            picture = self._ground.copy()
            x, y = 20 + 3 * t % 500, 40 + 2 * t % 200
            picture[150:230, x : x + 90] = (230, 180, 60)
            picture[y : y + 70, 500:580] = (60, 90, 220)
            yield picture


def write_clip(path: Path, frames: int) -> None:
    """The clip as a video file."""
    clip = Clip(MovingThings(frames), range(frames))
    with overlay_video(path, clip) as add:
        for t, picture in enumerate(clip):
            add(TrackedFrame(t, ()), picture)


def measure(model: str, frames: int, folder: Path) -> dict[int, float]:
    """Resident memory in MB after so many frames, and in the end, when all results were WRITTEN."""
    write_clip(folder / "clip.mp4", frames)
    command = [sys.executable, "-m", "sam2_jax", "track", str(folder / "clip.mp4"), *_PROMPTS, "--quiet"]
    process = subprocess.Popen([*command, "--model", model, "--output", str(folder / "out")])
    found: dict[int, float] = {}
    latest = 0.0
    while process.poll() is None:
        time.sleep(0.05)
        latest = resident(process.pid) or latest
        rows = folder / "out" / ROWS_FILE
        done = rows.read_bytes().count(b"\n") - 1 if rows.exists() else 0
        for mark in MARKS:
            if mark <= min(done, frames) and mark not in found:
                found[mark] = latest
    if process.returncode:
        raise SystemExit(f"sam2-jax track ended with {process.returncode}")
    return found | {WRITTEN: latest}


def resident(pid: int) -> float:
    """Resident memory of a process in MB, 0 of one that has ended."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except OSError:
        return 0.0
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Measure, print and perhaps write."""
    options = parser(__doc__, image_size=False)
    options.add_argument("--model", default="embedded", help="hub id or folder of a model for clips")
    options.add_argument("--frames", type=int, default=2000)
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments.model, arguments.frames, Path(folder))
    marks = [mark for mark in MARKS if mark in found]
    head = ["resident memory, MB, after frames", *map(str, marks), "results written"]
    cells = [arguments.model, *(f"{found[mark]:.0f}" for mark in (*marks, WRITTEN))]
    text = (
        "## Memory of tracking\n\n`python benchmarks/track_memory.py --write`: `sam2-jax track`, two "
        f"objects in {arguments.frames} frames of {WIDTH} x {HEIGHT}. {setting()}.\n\n{table(head, [cells])}"
    )
    report("track memory", text, arguments.write)


if __name__ == "__main__":
    main()
