"""How much memory do the encoder and 64 prompts take, beside transformers? Each in a fresh process.

python benchmarks/memory.py --write
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.children import run_child
from benchmarks.common import SIZES, parser, random_model, report, setting, table

SIDES = (
    ("sam2_jax fp32", "ours", "float32"),
    ("sam2_jax bf16", "ours", "bfloat16"),
    ("torch eager", "torch", "float32"),
)


def main() -> None:
    """Measure, print the table, and with --write put it into RESULTS.md."""
    options = parser(__doc__)
    options.add_argument("--size", default="tiny", choices=SIZES)
    options.add_argument("--prompts", type=int, default=64)
    arguments = options.parse_args()

    with tempfile.TemporaryDirectory() as name:
        random_model(arguments.size, arguments.image_size).save_pretrained(name, layout="transformers")
        found = {label: run_child(side, Path(name), arguments.prompts, dtype) for label, side, dtype in SIDES}
    reference = found["torch eager"]["peak"]
    rows = [
        [label, f"{x['loaded']:.0f}", f"{x['peak']:.0f}", f"{x['peak'] / reference:.2f}"]
        for label, x in found.items()
    ]
    head = ["process", "with the model loaded, MB", "peak, MB", "of torch"]
    text = (
        f"## Memory\n\n`python benchmarks/memory.py --write`: resident memory, hiera-{arguments.size} at "
        f"{arguments.image_size} x {arguments.image_size}, encoder and {arguments.prompts} prompts, twice. "
        f"{setting()}.\n\n{table(head, rows)}"
    )
    report("memory", text, arguments.write)


if __name__ == "__main__":
    main()
