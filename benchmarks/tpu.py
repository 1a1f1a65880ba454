"""What does the network take on a TPU? Asked of the TPU's compiler, without a TPU, on any Linux machine.

    pip install -e ".[tpu]"                         # in an environment of its own, see below
    python benchmarks/tpu.py                        # hiera-tiny at 1024 x 1024: four programs, minutes each
    python benchmarks/tpu.py --image-size 256 --programs encoder --top 40
    python benchmarks/tpu.py --size large --chip v6e --label after --write
    python benchmarks/tpu.py --save /tmp/texts      # and later  --read /tmp/texts/*.txt  without compiling
    python benchmarks/tpu.py --schedules            # of Pallas's kernels, which takes longer

The compiler that comes with libtpu needs only a description of the chips. Four programs: the encoder for a
batch, the encoder for one image (a first click waits for it), the decoder for many prompts of one image, a
frame of a video in which one object is tracked, its memory full. On four chips, parameters lie on every chip;
images, or the prompts of the one image, are divided among them, and neither is one image encoded nor a frame
tracked. Numbers are those of each chip. Printed: which instructions take how many cycles by the compiler's
estimate, loops multiplied out, for what and for which part of the network (cycles.py says how they are
counted, and how kernels of Pallas are modelled). Nothing is run: these are no measured speeds.

--write keeps a line for each program in RESULTS.md. Those of other sizes, chips and labels stay, so that a
change shows as one line labelled `before` and one labelled `after`.

Where libtpu is installed, every start of JAX on a machine without a TPU looks for one, slowly and noisily,
unless JAX_PLATFORMS=cpu is set: hence the environment of its own.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent.parent))

from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from benchmarks import cycles, schedule
from benchmarks.common import read_section, report, table
from benchmarks.compiled import KEY, Program, checked, key_of, made_of, merged, options_of, programs
from benchmarks.cycles import CHIPS, Chip, Profile, millions, share
from sam2_jax import Sam2Config

INSTALL = 'pip install -e ".[tpu]"'
LIBTPU_SETTINGS = {
    "TPU_SKIP_MDS_QUERY": "1",  # or libtpu asks a metadata server that only Google's cloud has
    "TPU_WORKER_HOSTNAMES": "localhost",  # what it would ask, and complains of not knowing
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is taken: others may compile at the same time
}


def shardings(chip: Chip, chips: int, axis: int) -> tuple[Sharding, Sharding]:
    """Whole on every chip, and divided among them along an axis; of chips that need not be there."""
    os.environ.update(LIBTPU_SETTINGS, TPU_ACCELERATOR_TYPE=chip.accelerator)
    description = topologies.get_topology_desc(platform="tpu", topology_name=chip.topology)
    if chips == 1:
        single = SingleDeviceSharding(description.devices[0])
        return single, single
    mesh = topologies.make_mesh(description, (chips,), ("chips",))
    divided = PartitionSpec(*[None] * axis, "chips")
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, divided)


def print_profile(name: str, found: Profile, chip: Chip, top: int) -> None:
    """Say where a program's cycles go."""
    print(f"\n### {name}\n")
    print(f"{millions(found.estimated)} M cycles by the compiler's estimate, on a {chip.name} of ", end="")
    print(f"{chip.clock / 1e9:g} GHz {1e3 * found.estimated / chip.clock:.2f} ms.")
    for kind in (cycles.RESHAPES, cycles.KERNELS):
        print(f"{kind}: {millions(found.cycles(kind))} M cycles more, not estimated by the compiler.")
    if found.unknown:
        print(f"{found.unknown} kernels have neither schedule nor CostEstimate and are not counted.")
    alone = found.asynchronous * chip.clock / chip.bandwidth
    print(f"Copied beside it: {found.asynchronous / 2**20:.0f} MiB, {millions(alone)} M cycles if alone.\n")
    print(f"{cycles.by_part(found)}\n\n{cycles.dearest(found, top)}", flush=True)


HEAD = [
    *(*KEY, "M cycles", "with what is modelled", "ms", "of peak", "copies, pads, reshapes", "broadcasts"),
    *("products", "temporaries, MiB", "memory", "compiling, s", "made of"),
]


def row(key: list[str], program: Program, found: Profile, chip: Chip) -> list[str]:
    """A program's line in RESULTS.md."""
    whole = found.cycles()
    seconds = whole / chip.clock
    kinds = (cycles.COPIES, cycles.PADS, cycles.RESHAPES), (cycles.BROADCASTS,), (cycles.PRODUCTS,)
    return [
        *(*key, millions(found.estimated), millions(whole), f"{1e3 * seconds:.2f}"),
        share(program.flops, seconds * chip.clock * chip.flops),
        *(share(found.cycles(*one), whole) for one in kinds),
        f"{program.temporaries / 2**20:.1f}",
        share(program.memory, chip.memory),
        "-" if program.seconds is None else f"{program.seconds:.0f}",
        made_of("libtpu", "jax"),
    ]


CAPTION = """## TPU, compiled without one

`python benchmarks/tpu.py --write`: what the TPU's compiler says; nothing was run. Cycles are its estimate,
loops multiplied out. What it leaves without one is modelled ([`cycles.py`](cycles.py)): reshapes at the
memory's speed, kernels of Pallas from their schedule, with `--schedules`, or from their `CostEstimate`
alone; milliseconds and shares are of all together. Of peak: the FLOP that the network needs, as the
reference computes it, of what the matrix units could do in that time. Copies, pads, reshapes, broadcasts:
instructions that do nothing else. On 4 chips images, or prompts, are divided; numbers are those of each."""


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Sam2Config]:
    """Read the command line, and refuse what cannot be compiled."""
    options = options_of(__doc__)
    options.add_argument("--chip", default="v5e", choices=CHIPS, help="generation (default v5e)")
    options.add_argument("--chips", type=int, default=1, choices=[1, 4], help="default 1")
    options.add_argument("--top", type=int, default=20, help="instructions to list (default 20)")
    options.add_argument("--schedules", action="store_true", help="ask for schedules; compiling is not timed")
    options.add_argument("--read", type=Path, nargs="+", help="profile saved texts, compile nothing")
    arguments = options.parse_args(argv)
    config = checked(options, arguments, arguments.chips)
    if arguments.read and arguments.write:
        options.error("--write needs programs that are compiled now: leave out --read")
    if not arguments.read and find_spec("libtpu") is None:
        options.error(
            f"libtpu, which has the TPU's compiler, is not installed. In an environment of its own: {INSTALL}"
        )
    return arguments, config


def main(argv: Sequence[str] | None = None) -> None:
    """Compile or read programs, print where their cycles go, and with --write keep a line of each."""
    arguments, config = parse(argv)
    chip = CHIPS[arguments.chip]
    for path in arguments.read or []:
        print_profile(path.stem, cycles.profile(path.read_text(), chip), chip, arguments.top)
    if arguments.read:
        return
    rows = []
    chips = arguments.chips
    with TemporaryDirectory() as folder:
        if arguments.schedules:
            asked = schedule.arguments(Path(folder))
            os.environ["LIBTPU_INIT_ARGS"] = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {asked}"
        for program in programs(config, arguments, "tpu", partial(shardings, chip, chips), chips):
            if arguments.schedules:
                text = cycles.with_schedules(program.text, schedule.collect(Path(folder)))
                program = replace(program, text=text, seconds=None)
            key = key_of(program, arguments, chip.name, chips)
            found = cycles.profile(program.text, chip)
            print_profile(", ".join(key), found, chip, arguments.top)
            rows.append(row(key, program, found, chip))
    lines = merged(read_section("tpu"), rows) if arguments.write else rows
    report("tpu", f"{CAPTION}\n\n{table(HEAD, lines)}", arguments.write)


if __name__ == "__main__":
    main()
