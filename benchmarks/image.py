"""How fast are the image encoder and the mask decoder, beside transformers on the same machine?

python benchmarks/image.py --write                         # all sizes; about 20 minutes on two cores
python benchmarks/image.py --sizes tiny --batches 1        # the smallest, in a few minutes
python benchmarks/image.py --device cuda --write           # on a GPU, its own section of RESULTS.md
"""

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import numpy as np

from benchmarks.common import (
    EAGER,
    SIZES,
    Timing,
    TorchVariant,
    in_bfloat16,
    matmul_rate,
    measure,
    parser,
    random_model,
    reference_model,
    report,
    require_device,
    setting,
    table,
    torch_variants,
)
from benchmarks.flops import decoder_flops, encoder_flops
from sam2_jax import Sam2Model

OURS = ("sam2_jax fp32", "sam2_jax bf16")


def encoder_calls(
    ours: dict[str, Sam2Model], reference: Any, variants: list[TorchVariant], batch: int, device: str
) -> dict[str, Callable[[], Any]]:
    """The encoder on one batch of noise, by name of who runs it."""
    height, width = ours[OURS[0]].config.image_size
    pixels = np.random.default_rng(0).standard_normal((batch, height, width, 3)).astype(np.float32)
    calls: dict[str, Callable[[], Any]] = {}
    for name, model in ours.items():
        calls[name] = lambda model=model: jax.block_until_ready(model.get_image_embeddings(pixels))  # type: ignore[misc]
    for variant in variants:
        run, theirs = _theirs(variant, reference, device, lambda model: model.get_image_embeddings)
        tensor = theirs(pixels.transpose(0, 3, 1, 2))
        calls[variant.name] = lambda run=run, tensor=tensor: run(tensor)  # type: ignore[misc]
    return calls


def decoder_calls(
    ours: dict[str, Sam2Model], reference: Any, variants: list[TorchVariant], prompts: int, device: str
) -> dict[str, Callable[[], Any]]:
    """The decoder for one click on each of several objects, from features that are ready."""
    model = ours[OURS[0]]
    rng = np.random.default_rng(0)
    height, width = model.config.image_size
    pixels = rng.standard_normal((1, height, width, 3)).astype(np.float32)
    points = (rng.random((1, prompts, 1, 2)) * [width, height]).astype(np.float32)
    calls: dict[str, Callable[[], Any]] = {}
    for name, model in ours.items():
        maps = model.get_image_embeddings(pixels)
        calls[name] = lambda model=model, maps=maps: jax.block_until_ready(  # type: ignore[misc]
            model(image_embeddings=maps, input_points=points).pred_masks
        )
    for variant in variants:
        run, theirs = _theirs(variant, reference, device, _decode)
        maps = tuple(
            theirs(np.moveaxis(np.array(x, np.float32), -1, 1))
            for x in ours[OURS[0]].get_image_embeddings(pixels)
        )
        args = maps, theirs(points), theirs(np.ones((1, prompts, 1), np.int64))
        calls[variant.name] = lambda run=run, args=args: run(*args)  # type: ignore[misc]
    return calls


def _decode(model: Any) -> Callable[..., Any]:
    return lambda maps, points, labels: model(
        image_embeddings=list(maps), input_points=points, input_labels=labels
    )


def _theirs(variant: TorchVariant, reference: Any, device: str, function: Any) -> tuple[Any, Any]:
    """The reference's function as this variant runs it, and what makes its tensors."""
    import torch

    run = variant.wrap(function(variant.model(reference)), device)

    def tensor(array: np.ndarray) -> Any:
        made = torch.from_numpy(np.ascontiguousarray(array)).to(device)
        return made.to(getattr(torch, variant.dtype)) if made.is_floating_point() else made

    return run, tensor


def row(work: str, timings: dict[str, Timing], names: list[str], floor: float, unit: str) -> list[str]:
    """One line of the table; a variant that was not run is a dash."""
    ours = timings[OURS[0]].median
    theirs = {name: timing.median for name, timing in timings.items() if name not in OURS}
    fastest = min(theirs.values())
    best = min(timings[name].median for name in OURS)
    factor, digits = (1000, 1) if unit == "ms" else (1, 2)
    return [
        work,
        str(len(timings[OURS[0]].seconds)),
        *(timings[name].cell(unit) if name in timings else "-" for name in names),
        f"**{theirs[EAGER.name] / ours:.2f}x**",
        f"{fastest / best:.2f}x",
        f"{factor * floor:.{digits}f}",
        f"{max(timings[OURS[0]].first - ours, 0):.1f}",
    ]


def main() -> None:
    """Measure, print the table, and with --write put it into RESULTS.md."""
    options = parser(__doc__)
    options.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    options.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    options.add_argument("--prompts", nargs="+", type=int, default=[1, 16, 64], help="for the first size")
    options.add_argument("--repeats", type=int, default=7, help="rounds at most")
    options.add_argument("--seconds", type=float, default=45, help="after which a row has no more rounds")
    options.add_argument(
        "--compile", nargs="*", default=["tiny"], help="sizes that torch.compile is timed for, at batch 1"
    )
    arguments = options.parse_args()
    if problem := require_device(arguments.device):
        options.error(problem)

    device, variants = arguments.device, torch_variants(arguments.device)
    names = [*OURS, *(variant.name for variant in variants)]
    rate = matmul_rate()
    rows: dict[str, list[list[str]]] = {"s": [], "ms": []}

    def add(work: str, calls: dict[str, Callable[[], Any]], flops: int, unit: str) -> None:
        timings = measure(calls, arguments.repeats, arguments.seconds)
        rows[unit].append(row(work, timings, names, flops / rate, unit))
        print(table([], [rows[unit][-1]]).splitlines()[-1], flush=True)

    for size in arguments.sizes:
        model = random_model(size, arguments.image_size)
        ours = {OURS[0]: model, OURS[1]: in_bfloat16(model)}
        reference = reference_model(model, device)
        for batch in arguments.batches:
            is_compiled = batch == 1 and size in arguments.compile
            chosen = [variant for variant in variants if is_compiled or not variant.compiled]
            calls = encoder_calls(ours, reference, chosen, batch, device)
            add(f"{size}, batch {batch}", calls, batch * encoder_flops(model.config), "s")
        for prompts in arguments.prompts if size == arguments.sizes[0] else ():
            chosen = [variant for variant in variants if not variant.compiled]
            calls = decoder_calls(ours, reference, chosen, prompts, device)
            flops = prompts * decoder_flops(model.config)
            add(f"{size}, {prompts} prompt{'s' * (prompts > 1)}", calls, flops, "ms")
        del model, ours, reference, calls
        gc.collect()
        jax.clear_caches()

    def titled(what: str, unit: str) -> str:
        ratios = ["fp32 / eager fp32", "best / best torch"]
        head = [f"{what}, {unit}", "rounds", *names, *ratios, f"floor, {unit}", "compiling, s"]
        return table(head, rows[unit])

    text = "\n".join(
        [
            f"## Image, {device}",
            "",
            f"`python benchmarks/image.py --device {device} --write`, {arguments.image_size} x "
            f"{arguments.image_size}. {setting()}.",
            "",
            "The floor is the time this machine's own matrix product (fp32, "
            f"{rate / 1e9:.0f} GFLOP/s) takes for the FLOPs that the encoder needs and the reference's "
            "decoder does; ours needs fewer there. `compile` is torch.compile, timed for batch 1 of "
            f"{', '.join(arguments.compile) or 'no size'}.",
            "",
            titled("encoder", "s"),
            "",
            titled("decoder", "ms"),
        ]
    )
    report(f"image {device}", text, arguments.write)


if __name__ == "__main__":
    main()
