"""Does it compile for a TPU, and what does it take there? Answered without a TPU, on any Linux machine.

    pip install -e ".[tpu]"                         # in an environment of its own, see below
    python benchmarks/tpu.py                        # hiera-tiny at 1024 x 1024, 8 images over 4 chips
    python benchmarks/tpu.py --image-size 128 --batch 4 --prompts 2
    python benchmarks/tpu.py --size large --write

The compiler that comes with libtpu needs only a description of the chips, here four of a TPU v5e. Parameters
lie on every chip, images are divided among them. Reported for each chip is the memory that the compiler
planned, paddings of its layouts included, and the operations that it counted: a loop's body once, so too few
where attention over a whole image goes in steps. Nothing is run, so there are no speeds.

Where libtpu is installed, every start of JAX on a machine without a TPU looks for one, slowly and noisily,
unless JAX_PLATFORMS=cpu is set: hence the environment of its own.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.common import SIZES, parser, report, table
from sam2_jax import Sam2Config, released_config
from sam2_jax.model.sam2 import Sam2

TOPOLOGY = "v5e:2x2x1"
CHIPS = 4
CHIP_MEMORY = 16 * 2**30  # bytes of a v5e chip
INSTALL = 'pip install -e ".[tpu]"'
LIBTPU_SETTINGS = {
    "TPU_SKIP_MDS_QUERY": "1",  # or libtpu asks a metadata server that only Google's cloud has
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # the two things it would ask, and complain of not knowing
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is taken: others may compile at the same time
}


@dataclass(frozen=True)
class Program:
    """What the compiler says of one program. Bytes and operations are those of each chip."""

    name: str
    arguments: int
    outputs: int
    temporaries: int
    flops: float
    seconds: float

    @property
    def memory(self) -> int:
        """Bytes in use while the program runs."""
        return self.arguments + self.outputs + self.temporaries


def four_chips() -> Mesh:
    """Four chips that need not be there."""
    description = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY)
    return topologies.make_mesh(description, (CHIPS,), ("images",))


def placed(tree: Any, sharding: NamedSharding) -> Any:
    """The same shapes, laid out over the chips."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def compile_program(name: str, module: Sam2, method: str, mesh: Mesh, *shapes: Any) -> Program:
    """Compile one method of the network, called with the shapes of its parameters and divided inputs."""
    whole, divided = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("images",)))
    params, *inputs = shapes

    def call(params: Any, *inputs: Any) -> Any:
        return module.apply({"params": params}, *inputs, method=method)

    # The masks stay where their images are; without this the compiler might gather them.
    lowered = jax.jit(call, out_shardings=divided).lower(placed(params, whole), *placed(inputs, divided))
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    return Program(
        name,
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.temp_size_in_bytes,
        cost["flops"],
        seconds,
    )


def programs(config: Sam2Config, dtype: str, batch: int, prompts: int) -> Iterator[Program]:
    """The encoder for a batch of images, then the decoder for one click on each of their objects."""
    mesh = four_chips()
    module = Sam2(config, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(dtype))
    pixels = jax.ShapeDtypeStruct((batch, *config.image_size, 3), jnp.float32)
    points = jax.ShapeDtypeStruct((batch, prompts, 1, 2), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch, prompts, 1), jnp.int32)
    # Shapes only: parameters have no part in compiling, and the largest network's take a while to make.
    params = jax.eval_shape(module.init, jax.random.key(0), pixels, points, labels)["params"]
    encode = partial(module.apply, method="encode_image")
    embeddings = jax.eval_shape(encode, {"params": params}, pixels)
    yield compile_program(f"encoder, batch {batch}", module, "encode_image", mesh, params, pixels)
    name = f"decoder, batch {batch}, {prompts} prompt{'s' * (prompts > 1)} each"
    yield compile_program(name, module, "decode_masks", mesh, params, embeddings, points, labels)


HEAD = [
    *("program", "arguments, MiB", "outputs, MiB", "temporaries, MiB", "HBM, MiB", "of 16 GiB", "GFLOP"),
    "compiling, s",
]


def row(program: Program) -> list[str]:
    """One line of the table."""
    sizes = (program.arguments, program.outputs, program.temporaries, program.memory)
    return [
        program.name,
        *(f"{size / 2**20:.1f}" for size in sizes),
        f"{program.memory / CHIP_MEMORY:.1%}",
        f"{program.flops / 1e9:.3f}",
        f"{program.seconds:.1f}",
    ]


def setting(size: str, image_size: tuple[int, int], dtype: str) -> str:
    """What was compiled with what, so that the table can be judged and repeated."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "libtpu"))
    return (
        f"`python benchmarks/tpu.py --write`: hiera-{size} at {image_size[0]}x{image_size[1]}, {dtype}, "
        f"compiled for {CHIPS} chips of a TPU v5e ({TOPOLOGY}), the images divided among them. Numbers are "
        f"those of each chip; GFLOP are the compiler's, which counts a loop's body once. {packages}."
    )


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Sam2Config]:
    """Read the command line, and refuse what cannot be compiled."""
    options = parser(__doc__)
    options.add_argument("--size", default="tiny", choices=SIZES)
    options.add_argument("--batch", type=int, default=8, help=f"images, a multiple of {CHIPS} (default 8)")
    options.add_argument("--prompts", type=int, default=16, help="objects in each image (default 16)")
    options.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    arguments = options.parse_args(argv)
    if arguments.batch < 1 or arguments.batch % CHIPS:
        options.error(
            f"--batch must be a multiple of {CHIPS}, one share for each chip; got {arguments.batch}"
        )
    if arguments.prompts < 1:
        options.error(f"--prompts must be at least 1; got {arguments.prompts}")
    try:
        config = released_config(f"facebook/sam2.1-hiera-{arguments.size}")
        config = config.with_image_size(arguments.image_size)
    except ValueError as error:
        options.error(f"--image-size: {error}")
    if find_spec("libtpu") is None:
        options.error(
            f"libtpu, which has the TPU's compiler, is not installed. In an environment of its own: {INSTALL}"
        )
    return arguments, config


def main(argv: Sequence[str] | None = None) -> None:
    """Compile, print the table, and with --write put it into RESULTS.md."""
    arguments, config = parse(argv)
    os.environ.update(LIBTPU_SETTINGS)
    jax.config.update("jax_platforms", "cpu")  # JAX itself must not start on the TPU that is not there
    jax.config.update("jax_enable_compilation_cache", False)  # for compile times that mean something
    rows = []
    for program in programs(config, arguments.dtype, arguments.batch, arguments.prompts):
        rows.append(row(program))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)  # the next one may take minutes
    described = setting(arguments.size, config.image_size, arguments.dtype)
    text = f"## TPU, compiled without one\n\n{described}\n\n{table(HEAD, rows)}"
    report("tpu", text, arguments.write)


if __name__ == "__main__":
    main()
