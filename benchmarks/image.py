"""How fast are the image encoder and the mask decoder, beside transformers on the same machine?

    python benchmarks/image.py                      # hiera-tiny at 1024 x 1024, random weights
    python benchmarks/image.py --size large --repeats 3 --write

Both sides get the same weights and inputs, compute in float32 on all of the machine's cores, and take turns:
one timed call each, again and again. Reported is the median, and the spread from the fastest to the slowest.
Compile time stands apart.
"""

import argparse
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sam2_jax import Sam2Model, released_config
from sam2_jax.checkpoint import names

PROMPTS = (1, 16, 64)
RESULTS = Path(__file__).parent / "RESULTS.md"


@dataclass(frozen=True)
class Work:
    """One thing to time on both sides; each call returns only when its result is there."""

    name: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]


def reference_model(model: Sam2Model) -> Any:
    """transformers' model with the same weights."""
    import torch
    import transformers

    config = {key: value for key, value in model.config.to_dict().items() if key != "model_type"}
    reference = transformers.Sam2Model(transformers.Sam2Config(**config)).eval()
    flat = {name: np.asarray(value) for name, value in names.flatten(model.params).items()}
    reference.load_state_dict({name: torch.from_numpy(t) for name, t in names.to_torch(flat).items()})
    return reference


def works(model: Sam2Model) -> Iterator[Work]:
    """The encoder, then, on what it gave, the decoder for each number of prompts."""
    import torch

    reference = reference_model(model)
    rng = np.random.default_rng(0)
    height, width = model.config.image_size
    pixels = rng.standard_normal((1, height, width, 3)).astype(np.float32)
    torch_pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    yield Work(
        "encoder, batch 1",
        lambda: jax.block_until_ready(model.get_image_embeddings(pixels)),
        lambda: reference.get_image_embeddings(torch_pixels),
    )
    embeddings = model.get_image_embeddings(pixels)
    torch_embeddings = reference.get_image_embeddings(torch_pixels)
    for count in PROMPTS:
        points = (rng.random((1, count, 1, 2)) * [width, height]).astype(np.float32)
        yield decoder_work(model, reference, embeddings, torch_embeddings, points)


def decoder_work(
    model: Sam2Model, reference: Any, embeddings: Any, torch_embeddings: Any, points: Any
) -> Work:
    """Decode one click for each object, from features that are ready."""
    import torch

    count = points.shape[1]
    labels = np.ones((1, count, 1), np.int64)
    ours = {"image_embeddings": embeddings, "input_points": points, "input_labels": labels}
    theirs = {
        "image_embeddings": torch_embeddings,
        "input_points": torch.from_numpy(points),
        "input_labels": torch.from_numpy(labels),
    }
    return Work(
        f"decoder, {count} prompt{'s' * (count > 1)}",
        lambda: jax.block_until_ready(model(**ours).pred_masks),
        lambda: reference(**theirs),
    )


def clock(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(work: Work, repeats: int) -> tuple[float, list[float], list[float]]:
    """First call of ours (compiling included), then the seconds of ours and theirs, taken in turns."""
    first = clock(work.ours)
    work.theirs()
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(clock(work.ours))
        theirs.append(clock(work.theirs))
    return first, ours, theirs


def row(work: Work, first: float, ours: list[float], theirs: list[float]) -> str:
    """One line of the table."""

    def cell(seconds: list[float]) -> str:
        return f"{statistics.median(seconds):.3f} ({min(seconds):.3f} - {max(seconds):.3f})"

    ratio = statistics.median(theirs) / statistics.median(ours)
    compiling = max(first - statistics.median(ours), 0)
    return f"| {work.name} | {cell(ours)} | {cell(theirs)} | {ratio:.2f}x | {compiling:.1f} |"


def setting(size: str, image_size: tuple[int, int], repeats: int) -> str:
    """What was measured on what, so that the table can be judged and repeated."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "torch", "transformers"))
    git = ["git", "describe", "--always", "--dirty"]
    commit = (
        subprocess.run(git, capture_output=True, text=True, cwd=RESULTS.parent).stdout.strip() or "unknown"
    )
    device = jax.devices()[0]
    return (
        f"hiera-{size} at {image_size[0]}x{image_size[1]}, float32, {repeats} calls each in turns, median "
        f"(fastest - slowest) in seconds; {device.platform} {device.device_kind}, {cpu_name()}, "
        f"{len(os.sched_getaffinity(0))} cores; {packages}; commit {commit}."
    )


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def main() -> None:
    """Measure, print the table, and with --write put it into RESULTS.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="tiny", choices=["tiny", "small", "base-plus", "large"])
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--write", action="store_true", help=f"write the table to {RESULTS.name}")
    arguments = parser.parse_args()

    import torch

    if jax.default_backend() != "cpu":
        parser.error("torch runs on the CPU here: compare on the CPU, with JAX_PLATFORMS=cpu")
    config = released_config(f"facebook/sam2.1-hiera-{arguments.size}").with_image_size(arguments.image_size)
    lines = [
        "| work | sam2_jax | transformers | times as fast | compiling, s |",
        "|---|---|---|---|---|",
    ]
    with torch.inference_mode():
        for work in works(Sam2Model(config)):
            lines.append(row(work, *measure(work, arguments.repeats)))
            print(lines[-1], flush=True)
    table = "\n".join([setting(arguments.size, config.image_size, arguments.repeats), "", *lines, ""])
    print(f"\n{table}")
    if arguments.write:
        RESULTS.write_text(f"# Results\n\nWritten by `python benchmarks/image.py --write`.\n\n{table}")


if __name__ == "__main__":
    main()
