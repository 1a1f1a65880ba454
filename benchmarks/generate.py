"""How long do all masks of a photo take, beside Meta's SAM2AutomaticMaskGenerator, and how much memory?

python benchmarks/generate.py --model FOLDER --photo truck.jpg --write

Both find the masks of one photo at Meta's defaults, 32 x 32 clicks, each in a fresh process, ours after
a first run that compiles. FOLDER holds real weights, for with random ones no mask is good and
nothing is left to do. Meta's generator comes from PyPI: pip install sam2, which needs torch and torchvision.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.children import peak_memory, run_json
from benchmarks.common import Timing, parser, report, setting, table


def measure_ours(model: str, photo: str) -> dict[str, Any]:
    """Seconds of each of three runs after one that compiles, masks found, peak memory in MB."""
    from sam2_jax import AutomaticMaskGenerator, Sam2Model

    generator = AutomaticMaskGenerator(Sam2Model.from_pretrained(model), output_mode="uncompressed_rle")
    return _time(lambda: generator.generate(photo), 3)


def measure_meta(model: str, photo: str) -> dict[str, Any]:
    """The same of one run of Meta's generator, which has nothing to compile, with the same weights."""
    import numpy as np
    import torch
    from PIL import Image
    from safetensors.torch import load_file
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
    from sam2.build_sam import build_sam2

    from sam2_jax.checkpoint.meta_names import transformers_names

    weights = load_file(Path(model) / "model.safetensors")
    size = detect_size(weights)
    network = build_sam2(f"configs/sam2/sam2_hiera_{size}.yaml", device="cpu")
    points = weights.pop("prompt_encoder.point_embed.weight")
    theirs = {}
    for name in network.state_dict():
        kind = re.fullmatch(r"sam_prompt_encoder.point_embeddings.(\d).weight", name)
        tensor = points[int(kind[1])][None] if kind else weights.get(transformers_names(name)[0])
        if tensor is not None:  # else of the memory, which image weights lack
            theirs[name] = tensor
    network.load_state_dict(theirs, strict=False)
    generator = SAM2AutomaticMaskGenerator(network, output_mode="uncompressed_rle")
    picture = np.asarray(Image.open(photo).convert("RGB"))
    with torch.inference_mode():
        return _time(lambda: generator.generate(picture), 0)


SIZES = {96: {12: "t", 16: "s"}, 112: {24: "b+"}, 144: {48: "l"}}
"""Width of the first stage -> number of blocks -> Meta's letter."""


def detect_size(weights: Mapping[str, Any]) -> str:
    """Meta's letter of a checkpoint in transformers' layout."""
    backbone = "vision_encoder.backbone"
    width = len(weights[f"{backbone}.patch_embed.projection.bias"])
    blocks = {name.split(".")[3] for name in weights if name.startswith(f"{backbone}.blocks.")}
    return SIZES[width][len(blocks)]


def _time(generate: Callable[[], list[Any]], runs: int) -> dict[str, Any]:
    """Run as often as asked, after once for what is only done once; if not asked, that one counts."""
    seconds = []
    for _ in range(1 + runs):
        start = time.perf_counter()
        found = generate()
        seconds.append(time.perf_counter() - start)
    return {
        "first": seconds[0],
        "seconds": seconds[1:] or seconds,
        "masks": len(found),
        "peak": peak_memory(),
    }


def main() -> None:
    """Measure both sides, print the table, and with --write put it into RESULTS.md."""
    options = parser(__doc__, image_size=False)
    options.add_argument("--model", required=True, help="folder of real weights in transformers' layout")
    options.add_argument("--photo", required=True, help="picture file")
    options.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.side:
        measured = SIDES[arguments.side](arguments.model, arguments.photo)
        print(json.dumps(measured))
        return
    inputs = ["--model", arguments.model, "--photo", arguments.photo]
    found = {side: run_json([__file__, "--side", side, *inputs]) for side in SIDES}
    times = {side: Timing(x["first"], x["seconds"]) for side, x in found.items()}
    rows = []
    for side, x in found.items():
        rows.append(
            [
                side,
                str(x["masks"]),
                times[side].cell(),
                f"{times['Meta'].median / times[side].median:.1f}x",
                f"{x['first']:.1f}",
                f"{x['peak']:.0f}",
            ]
        )
    head = ["generator", "masks", "seconds", "times as fast", "first run, s", "peak memory, MB"]
    name = Path(arguments.photo).name
    text = (
        f"## Automatic masks\n\n`python benchmarks/generate.py --write`: all masks of {name}, Meta's "
        f"defaults on both sides, {Path(arguments.model).name}. {setting()}.\n\n{table(head, rows)}"
    )
    report("generate", text, arguments.write)


SIDES = {"sam2_jax": measure_ours, "Meta": measure_meta}

if __name__ == "__main__":
    main()
