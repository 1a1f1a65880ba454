"""Run every benchmark and write all of RESULTS.md:  python -m benchmarks"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.common import RESULTS, write_section

UNMEASURED = (
    "## GPU\n\nSpeed on a GPU has not been measured yet. `python benchmarks/image.py --device cuda --write` "
    "adds the table, torch there in fp32, bf16 and fp16, eager and compiled."
)


def main() -> None:
    """Run the scripts one after another, each in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="the smallest model only, in a few minutes")
    arguments = parser.parse_args()

    image = ["image.py", "--device", arguments.device]
    video = ["video.py", "--device", arguments.device]
    if arguments.quick:
        image += ["--sizes", "tiny", "--repeats", "3", "--compile"]
        video += ["--objects", "1", "--repeats", "3", "--warm", "2"]
    scripts = [image, video]
    if arguments.device == "cpu":
        scripts += [["latency.py"], ["memory.py"], *([] if arguments.quick else [["video_memory.py"]])]
    for number, (script, *options) in enumerate(scripts, 1):
        print(f"[{number} of {len(scripts)}] {script}", flush=True)
        command = [sys.executable, str(Path(__file__).parent / script), *options, "--write"]
        if subprocess.run(command).returncode:
            raise SystemExit(f"{script} failed; RESULTS.md keeps what was written before")
    if "<!-- begin image cuda -->" not in RESULTS.read_text():
        write_section("gpu", UNMEASURED)


if __name__ == "__main__":
    main()
