"""How fast is a tracked frame, once the memory is full, beside transformers and Meta's predictor?

python benchmarks/video.py --write                       # hiera-tiny, 1 and 8 objects; an hour on two cores
python benchmarks/video.py --objects 1 --repeats 3       # one object, in some minutes
python benchmarks/video.py --image-size 256              # a glance
python benchmarks/video.py --device cuda --write         # on a GPU, its own section of RESULTS.md

Meta's predictor is measured where it is installed, on a CPU:
pip install hydra-core iopath; SAM2_BUILD_CUDA=0 pip install --no-build-isolation --no-deps sam2==1.1.0
"""

import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from benchmarks.common import (
    AUTOCAST,
    EAGER,
    SIZES,
    Timing,
    in_bfloat16,
    measure,
    parser,
    random_video_model,
    reference_model,
    report,
    require_device,
    setting,
    table,
)
from benchmarks.tracked import clicks, metas_step, our_step, their_step

OURS = ("sam2_jax fp32", "sam2_jax bf16")
META = "Meta's"


def row(work: str, timings: dict[str, Timing], names: list[str]) -> list[str]:
    """One line of the table."""
    fp32, bf16 = (timings[name].median for name in OURS)
    theirs = {name: timing.median for name, timing in timings.items() if name not in OURS}
    best = min(fp32, bf16)
    faster = min(theirs[name] for name in (EAGER.name, META) if name in theirs)
    return [
        work,
        str(len(timings[OURS[0]].seconds)),
        *(timings[name].cell("ms") for name in names),
        f"**{faster / fp32:.2f}x**",
        f"{fp32 / bf16:.2f}x",
        f"{min(theirs.values()) / best:.2f}x",
        f"{1 / best:.2f}",
    ]


def main() -> None:
    """Measure, print the table, and with --write put it into RESULTS.md."""
    options = parser(__doc__)
    options.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options.add_argument("--sizes", nargs="+", default=["tiny"], choices=SIZES)
    options.add_argument("--objects", nargs="+", type=int, default=[1, 8])
    options.add_argument("--warm", type=int, default=7, help="frames tracked before, to fill the memory")
    options.add_argument("--repeats", type=int, default=7, help="rounds at most")
    options.add_argument("--seconds", type=float, default=300, help="after which a row has no more rounds")
    arguments = options.parse_args()
    if problem := require_device(arguments.device):
        options.error(problem)

    device, side = arguments.device, arguments.image_size
    variants = [EAGER, AUTOCAST]
    metas = [META] if device == "cpu" and find_spec("sam2") else []
    names = [*OURS, *(variant.name for variant in variants), *metas]
    frame = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    rows = []
    for size in arguments.sizes:
        model = random_video_model(size, side)
        reference = reference_model(model, device)
        for objects in arguments.objects:
            points = clicks(objects, side)
            calls = {
                name: our_step(each, frame, points)
                for name, each in zip(OURS, (model, in_bfloat16(model)), strict=True)
            } | {
                v.name: their_step(reference, partial(v.wrap, device=device), frame, points, device)
                for v in variants
            }
            for name in metas:
                calls[name] = metas_step(size, frame, points, arguments.warm + 1 + arguments.repeats)
            for call in calls.values():
                for _ in range(arguments.warm):
                    call()
            timings = measure(calls, arguments.repeats, arguments.seconds)
            rows.append(row(f"{size}, {objects} object{'s' * (objects > 1)}", timings, names))
            print(table([], [rows[-1]]).splitlines()[-1], flush=True)

    head = [
        "a frame, ms",
        "rounds",
        *names,
        "faster torch fp32 / ours",
        "our fp32 / bf16",
        "best / best torch",
        "frames/s",
    ]
    text = (
        f"## Video, {device}\n\n`python benchmarks/video.py --device {device} --write`: a frame of {side} x "
        f"{side} encoded, all objects tracked on it and it remembered for them, {arguments.warm + 1} frames "
        f"and more after their clicks. {setting()}.\n\n{table(head, rows)}"
    )
    report(f"video {device}", text, arguments.write)


if __name__ == "__main__":
    main()
