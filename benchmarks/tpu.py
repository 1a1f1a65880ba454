"""What does the network take on a TPU? Asked of the TPU's compiler, without a TPU, on any Linux machine.

    pip install -e ".[tpu]"                         # in an environment of its own, see below
    python benchmarks/tpu.py                        # hiera-tiny at 1024 x 1024: three programs, minutes each
    python benchmarks/tpu.py --image-size 256 --programs encoder --top 40
    python benchmarks/tpu.py --size large --chip v6e --label after --write
    python benchmarks/tpu.py --save /tmp/texts      # and later  --read /tmp/texts/*.txt  without compiling

The compiler that comes with libtpu needs only a description of the chips. Three programs: the encoder for a
batch, the encoder for one image (a first click waits for it), the decoder for many prompts of one image. On
four chips, parameters lie on every chip; images, or the prompts of the one image, are divided among them, and
one image is not encoded. Numbers are those of each chip. Printed: which instructions take how many cycles by
the compiler's estimate, loops multiplied out, for what and for which part of the network (cycles.py says how
they are counted, and how kernels of Pallas are modelled). Nothing is run: these are no measured speeds.

--write keeps a line for each program in RESULTS.md. Those of other sizes, chips and labels stay, so that a
change shows as one line labelled `before` and one labelled `after`.

Where libtpu is installed, every start of JAX on a machine without a TPU looks for one, slowly and noisily,
unless JAX_PLATFORMS=cpu is set: hence the environment of its own.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from benchmarks import cycles
from benchmarks.common import SIZES, commit, parser, read_section, report, table
from benchmarks.cycles import CHIPS, Chip, Profile, millions, share
from benchmarks.flops import decoder_flops, encoder_flops
from sam2_jax import Sam2Config, released_config
from sam2_jax.model.sam2 import Sam2

PROGRAMS = ("encoder", "one-image", "decoder")
INSTALL = 'pip install -e ".[tpu]"'
LIBTPU_SETTINGS = {
    "TPU_SKIP_MDS_QUERY": "1",  # or libtpu asks a metadata server that only Google's cloud has
    "TPU_WORKER_HOSTNAMES": "localhost",  # what it would ask, and complains of not knowing
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is taken: others may compile at the same time
}


@dataclass(frozen=True)
class Program:
    """A compiled program. Bytes, and the network's FLOP, are those of each chip."""

    name: str
    text: str
    flops: float
    memory: int
    temporaries: int
    seconds: float


def shardings(chip: Chip, chips: int, axis: int) -> tuple[Sharding, Sharding]:
    """Whole on every chip, and divided among them along an axis; of chips that need not be there."""
    description = topologies.get_topology_desc(platform="tpu", topology_name=chip.topology)
    if chips == 1:
        single = SingleDeviceSharding(description.devices[0])
        return single, single
    mesh = topologies.make_mesh(description, (chips,), ("chips",))
    divided = PartitionSpec(*[None] * axis, "chips")
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, divided)


def placed(tree: Any, sharding: Sharding) -> Any:
    """The same shapes, laid out over the chips."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def compile_program(name: str, flops: float, call: Any, whole: Any, divided: Any, on: Any) -> Program:
    """Compile call(*whole, *divided) from the arguments' shapes; `on` is where they lie."""
    # Results stay where their inputs are; without this the compiler might gather them.
    function = jax.jit(call, out_shardings=on[1])
    lowered = function.lower(*placed(whole, on[0]), *placed(divided, on[1]))
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    sizes: Any = compiled.memory_analysis()
    used = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    text = compiled.as_text() or ""
    return Program(name, text, flops, used, sizes.temp_size_in_bytes, seconds)


def programs(config: Sam2Config, options: argparse.Namespace) -> Iterator[Program]:
    """Compile those programs that are asked for, one after the other."""
    chip, chips = CHIPS[options.chip], options.chips
    dtype = jnp.dtype(options.dtype)
    module = Sam2(config, dtype=dtype, param_dtype=dtype)
    shape = jax.ShapeDtypeStruct
    prompts = shape((1, options.prompts, 1, 2), jnp.float32), shape((1, options.prompts, 1), jnp.int32)
    image = shape((1, *config.image_size, 3), jnp.float32)
    # Shapes only: parameters have no part in compiling, and the largest network's take a while to make.
    params = jax.eval_shape(module.init, jax.random.key(0), image, *prompts)["params"]

    def encode(params: Any, pixels: Any) -> Any:
        return module.apply({"params": params}, pixels, method="encode_image")

    def decode(params: Any, embeddings: Any, points: Any, labels: Any) -> Any:
        return module.apply({"params": params}, embeddings, points, labels, method="decode_masks")

    batches = {"encoder": options.batch} | ({"one-image": 1} if chips == 1 else {})
    for name, batch in batches.items():
        if name in options.programs:
            flops = encoder_flops(config) * batch / chips
            pixels = shape((batch, *image.shape[1:]), image.dtype)
            on = shardings(chip, chips, 0)
            yield compile_program(f"encoder, batch {batch}", flops, encode, [params], [pixels], on)
    if "decoder" in options.programs:
        flops = decoder_flops(config) * options.prompts / chips
        embeddings = jax.eval_shape(encode, params, image)
        name, on = f"decoder, {options.prompts} prompts", shardings(chip, chips, 1)
        yield compile_program(name, flops, decode, [params, embeddings], prompts, on)


def print_profile(name: str, found: Profile, chip: Chip, top: int) -> None:
    """Say where a program's cycles go."""
    print(f"\n### {name}\n")
    print(f"{millions(found.estimated)} M cycles by the compiler's estimate, on a {chip.name} of ", end="")
    print(f"{chip.clock / 1e9:g} GHz {1e3 * found.estimated / chip.clock:.2f} ms.")
    kernels = found.cycles() - found.estimated
    if kernels:
        print(f"Kernels: {millions(kernels)} M cycles more, modelled and not estimated by the compiler.")
    if found.unknown:
        print(f"{found.unknown} kernels have no CostEstimate and are not counted.")
    alone = found.asynchronous * chip.clock / chip.bandwidth
    print(f"Copied beside it: {found.asynchronous / 2**20:.0f} MiB, {millions(alone)} M cycles if alone.\n")
    print(f"{cycles.by_part(found)}\n\n{cycles.dearest(found, top)}", flush=True)


HEAD = [
    *("size", "program", "chip", "chips", "label", "M cycles", "with kernels, modelled", "ms", "of peak"),
    *("copies and pads", "broadcasts", "products", "temporaries, MiB", "memory", "compiling, s", "made of"),
]
KEY = 5  # columns that tell lines apart


def row(size: str, program: Program, found: Profile, options: argparse.Namespace) -> list[str]:
    """A program's line in RESULTS.md."""
    chip = CHIPS[options.chip]
    whole = found.cycles()
    seconds = whole / chip.clock
    kinds = (cycles.COPIES, cycles.PADS), (cycles.BROADCASTS,), (cycles.PRODUCTS,)
    return [
        *(size, program.name, chip.name, str(options.chips), options.label),
        *(millions(found.estimated), millions(whole), f"{1e3 * seconds:.2f}"),
        share(program.flops, seconds * chip.clock * chip.flops),
        *(share(found.cycles(*one), whole) for one in kinds),
        f"{program.temporaries / 2**20:.1f}",
        share(program.memory, chip.memory),
        f"{program.seconds:.0f}",
        f"{commit()}, libtpu {version('libtpu')}, jax {version('jax')}",
    ]


def merged(old: str, rows: list[list[str]]) -> list[list[str]]:
    """The lines of an old section and new ones, in order; new ones replace those of the same key."""
    lines = [line for line in old.splitlines() if line.startswith("|")][2:]
    before = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    by_key = {tuple(cells[:KEY]): cells for cells in [*before, *rows] if len(cells) == len(HEAD)}

    def place(cells: list[str]) -> tuple[Any, ...]:
        size = cells[0].split(" ")[0]
        return SIZES.index(size), cells[0], cells[2], cells[3], cells[1].startswith("decoder"), cells[1]

    return sorted(by_key.values(), key=place)


CAPTION = """## TPU, compiled without one

`python benchmarks/tpu.py --write`: what the TPU's compiler says; nothing was run. Cycles are its estimate,
loops multiplied out. Kernels of Pallas, to which it gives none, are modelled from their `CostEstimate`
([`cycles.py`](cycles.py)); milliseconds and shares are of both together. Of peak: the FLOP that the network
needs, as the reference computes it, of what the matrix units could do in that time. Copies, pads, broadcasts:
instructions that do nothing else. On 4 chips images, or prompts, are divided; numbers are those of each."""


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Sam2Config]:
    """Read the command line, and refuse what cannot be compiled."""
    options = parser(__doc__)
    options.add_argument("--size", default="tiny", choices=SIZES)
    options.add_argument("--chip", default="v5e", choices=CHIPS, help="generation (default v5e)")
    options.add_argument("--chips", type=int, default=1, choices=[1, 4], help="default 1")
    options.add_argument("--programs", nargs="+", default=PROGRAMS, choices=PROGRAMS)
    options.add_argument("--batch", type=int, default=8, help="images of the encoder (default 8)")
    options.add_argument("--prompts", type=int, default=64, help="of one image (default 64)")
    options.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    options.add_argument("--top", type=int, default=20, help="instructions to list (default 20)")
    options.add_argument("--label", default="now", help="what the lines in RESULTS.md are called")
    options.add_argument("--save", type=Path, help="a folder for the programs' texts")
    options.add_argument("--read", type=Path, nargs="+", help="profile such texts again, compile nothing")
    arguments = options.parse_args(argv)
    for name in ("batch", "prompts"):
        count = getattr(arguments, name)
        if count < 1 or count % arguments.chips:
            options.error(f"--{name} must be a multiple of --chips, a share for each; got {count}")
    if arguments.read and arguments.write:
        options.error("--write needs programs that are compiled now: leave out --read")
    try:
        config = released_config(f"facebook/sam2.1-hiera-{arguments.size}")
        config = config.with_image_size(arguments.image_size)
    except ValueError as error:
        options.error(f"--image-size: {error}")
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
    os.environ.update(LIBTPU_SETTINGS, TPU_ACCELERATOR_TYPE=chip.accelerator)
    jax.config.update("jax_platforms", "cpu")  # JAX itself must not start on the TPU that is not there
    jax.config.update("jax_enable_compilation_cache", False)  # for compile times that mean something
    size = arguments.size
    if (arguments.image_size, arguments.dtype) != (1024, "bfloat16"):
        size += f" {arguments.image_size} {arguments.dtype}"
    rows = []
    for program in programs(config, arguments):
        if arguments.save:
            arguments.save.mkdir(parents=True, exist_ok=True)
            name = f"{size} {program.name} {chip.name} {arguments.chips} {arguments.label}"
            (arguments.save / f"{name.replace(',', '').replace(' ', '_')}.txt").write_text(program.text)
        found = cycles.profile(program.text, chip)
        print_profile(f"hiera-{size}, {program.name}, {arguments.chips} chips", found, chip, arguments.top)
        rows.append(row(size, program, found, arguments))
    lines = merged(read_section("tpu"), rows) if arguments.write else rows
    report("tpu", f"{CAPTION}\n\n{table(HEAD, lines)}", arguments.write)


if __name__ == "__main__":
    main()
