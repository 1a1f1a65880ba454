"""How many pictures does a core make ready for the network, and how many cores does a chip want?

python benchmarks/host.py --photo truck.jpg --write

A photo is opened, decoded and resized to 1024 x 1024 as `predict_batch` has it done ahead, many times, by one
thread and by more. A core's rate is counted by the time that it computed, so that it holds on a machine
with other work, too. Beside it stands what a TPU v5e takes for 8 pictures by the model of `tpu.py`.
"""

import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.common import parser, read_section, report, setting, table
from sam2_jax.processing.image_processor import Sam2ImageProcessor
from sam2_jax.processing.read_ahead import read_ahead

SIZES = ("tiny", "small", "base-plus", "large")


def measure(photo: Path, pictures: int, threads: int) -> tuple[float, float]:
    """Pictures a second, by the clock and for each second that a core computed."""
    processor = Sam2ImageProcessor()
    processor(photo)
    start, computed = time.perf_counter(), time.process_time()
    for _ in read_ahead(processor, [photo] * pictures, threads=threads, ahead=2 * threads):
        pass
    return pictures / (time.perf_counter() - start), pictures / (time.process_time() - computed)


def pictures_of_a_chip(size: str) -> float:
    """How many pictures a second a v5e encodes, by the table of tpu.py in RESULTS.md."""
    row = rf"^\| {size} \| encoder, batch 8 \| v5e \| 1 \| after \|.*$"
    found = re.search(row, read_section("tpu"), re.MULTILINE)
    if found is None:
        raise SystemExit(
            f"RESULTS.md has no TPU row of {size}, batch 8, on one v5e: run tpu.py --write first"
        )
    milliseconds = float(found[0].split("|")[8])
    return 8 / milliseconds * 1000


def main() -> None:
    """Measure, print the tables, and with --write put them into RESULTS.md."""
    options = parser(__doc__, image_size=False)
    options.add_argument("--photo", type=Path, required=True, help="picture file")
    options.add_argument("--pictures", type=int, default=40, help="how often (default 40)")
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="default 1 2")
    arguments = options.parse_args()

    found = {threads: measure(arguments.photo, arguments.pictures, threads) for threads in arguments.threads}
    rows = [[str(threads), f"{own:.1f}", f"{clock:.1f}"] for threads, (clock, own) in found.items()]
    of_a_core = found[arguments.threads[0]][1]
    chips = [[size, f"{(rate := pictures_of_a_chip(size)):.0f}", f"{rate / of_a_core:.0f}"] for size in SIZES]
    text = (
        f"## Host\n\n`python benchmarks/host.py --write`: {arguments.photo.name} opened, decoded and resized "
        f"to 1024 x 1024, {arguments.pictures} times. A core's rate is by the time that it computed; by the "
        f"clock, what else the machine did counts too. {setting()}.\n\n"
        + table(["threads", "pictures a second of a core", "by the clock"], rows)
        + "\n\nWhat a TPU v5e encodes by the model of `tpu.py`, eight at a time, and the cores that make "
        "pictures ready as fast:\n\n" + table(["model", "pictures a second", "cores"], chips)
    )
    report("host", text, arguments.write)


if __name__ == "__main__":
    main()
