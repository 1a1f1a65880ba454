"""The network's programs, compiled for chips that need not be there, and lines about them in RESULTS.md."""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Sharding

from benchmarks.common import SIZES, commit, parser
from benchmarks.flops import decoder_flops, encoder_flops, tracking_flops
from sam2_jax import Sam2Config, released_config
from sam2_jax.config import released_video_config
from sam2_jax.model.memory_bank import Plan, VideoState
from sam2_jax.model.sam2 import Sam2
from sam2_jax.model.sam2_video import Sam2Video

PROGRAMS = ("encoder", "one-image", "decoder", "tracked")
KEY = ("size", "program", "chip", "chips", "label")  # columns that tell lines apart

# Where arguments lie: whole on every chip, and divided among them along an axis.
Placing = Callable[[int], tuple[Sharding, Sharding]]


@dataclass(frozen=True)
class Program:
    """A compiled program. Bytes, and the network's FLOP, are those of each chip.

    seconds: what compiling took, None where it did more than that.
    """

    name: str
    text: str
    flops: float
    memory: int
    temporaries: int
    seconds: float | None


def options_of(description: str | None) -> argparse.ArgumentParser:
    """A command line that says which programs are wanted."""
    options = parser(description)
    options.add_argument("--size", default="tiny", choices=SIZES)
    options.add_argument("--programs", nargs="+", default=PROGRAMS, choices=PROGRAMS)
    options.add_argument("--batch", type=int, default=8, help="images of the encoder (default 8)")
    options.add_argument("--prompts", type=int, default=64, help="of one image (default 64)")
    options.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    options.add_argument("--label", default="now", help="what the lines in RESULTS.md are called")
    options.add_argument("--save", type=Path, help="a folder for the programs' texts")
    return options


def checked(options: argparse.ArgumentParser, arguments: argparse.Namespace, chips: int) -> Sam2Config:
    """The network that is asked for; ends with a sentence where it cannot be compiled."""
    for name in ("batch", "prompts"):
        count = getattr(arguments, name)
        if count < 1 or count % chips:
            options.error(f"--{name} must be a multiple of the {chips} chips, at least one each; got {count}")
    try:
        config = released_config(f"facebook/sam2.1-hiera-{arguments.size}")
        return config.with_image_size(arguments.image_size)
    except ValueError as error:
        options.error(f"--image-size: {error}")


def programs(
    config: Sam2Config, arguments: argparse.Namespace, platform: str, place: Placing, chips: int = 1
) -> Iterator[Program]:
    """Compile those programs that are asked for, one after the other."""
    jax.config.update("jax_platforms", "cpu")  # JAX itself must not start on what is not there
    jax.config.update("jax_enable_compilation_cache", False)  # for compile times that mean something
    dtype = jnp.dtype(arguments.dtype)
    module = Sam2(config, dtype=dtype, param_dtype=dtype)
    shape = jax.ShapeDtypeStruct
    prompts = shape((1, arguments.prompts, 1, 2), jnp.float32), shape((1, arguments.prompts, 1), jnp.int32)
    image = shape((1, *config.image_size, 3), jnp.float32)
    # Shapes only: parameters have no part in compiling, and the largest network's take a while to make.
    params = jax.eval_shape(module.init, jax.random.key(0), image, *prompts)["params"]

    def encode(params: Any, pixels: Any) -> Any:
        return module.apply({"params": params}, pixels, method="encode_image")

    def decode(params: Any, embeddings: Any, points: Any, labels: Any) -> Any:
        return module.apply({"params": params}, embeddings, points, labels, method="decode_masks")

    batches = {"encoder": arguments.batch} | ({"one-image": 1} if chips == 1 else {})
    for name, batch in batches.items():
        if name in arguments.programs:
            flops = encoder_flops(config) * batch / chips
            pixels = shape((batch, *image.shape[1:]), image.dtype)
            name = f"encoder, batch {batch}"
            yield compile_program(name, flops, encode, [params], [pixels], platform, place(0))
    if "decoder" in arguments.programs:
        flops = decoder_flops(config) * arguments.prompts / chips
        embeddings = jax.eval_shape(encode, params, image)
        name = f"decoder, {arguments.prompts} prompts"
        yield compile_program(name, flops, decode, [params, embeddings], prompts, platform, place(1))
    if "tracked" in arguments.programs and chips == 1:
        yield tracked_frame(config, arguments, platform, place)


def tracked_frame(
    config: Sam2Config, arguments: argparse.Namespace, platform: str, place: Placing
) -> Program:
    """Compile a frame of a video, encoded and its one object tracked, with one slot for a prompted frame."""
    dtype, shape = jnp.dtype(arguments.dtype), jax.ShapeDtypeStruct
    video = released_video_config(f"facebook/sam2.1-hiera-{arguments.size}").with_image_size(
        config.image_size
    )
    module = Sam2Video(video, dtype=dtype, param_dtype=dtype)
    smallest = jnp.zeros((1, *config.stride, 3))
    params = jax.eval_shape(partial(module.init, method="every_step"), jax.random.key(0), smallest)["params"]
    state = jax.eval_shape(lambda: VideoState.empty(video, objects=1, conditioning=1))
    plan = jax.eval_shape(Plan.blank, state)

    def track(params: Any, pixels: Any, state: VideoState, plan: Any) -> Any:
        def step(module: Sam2Video) -> Any:
            return module.track_step(module.encode_frame(pixels), state, plan)

        return module.apply({"params": params}, method=step)

    slots, pointers = state.memory.shape[1], state.pointer.shape[1]
    flops = encoder_flops(config) + tracking_flops(video, slots, pointers) + decoder_flops(config)
    frame = shape((1, *config.image_size, 3), jnp.float32)
    on = place(0)
    return compile_program(
        "tracked frame, 1 object", flops, track, [params, frame, state, plan], [], platform, (on[0], on[0])
    )


def compile_program(
    name: str,
    flops: float,
    call: Callable[..., Any],
    whole: Sequence[Any],
    divided: Sequence[Any],
    platform: str,
    on: tuple[Sharding, Sharding],
) -> Program:
    """Compile call(*whole, *divided) for a platform from the shapes of its arguments and where they lie."""
    # Results stay where their inputs are; without this the compiler might gather them.
    function = jax.jit(call, out_shardings=on[1])
    traced = function.trace(*_placed(whole, on[0]), *_placed(divided, on[1]))
    lowered = traced.lower(lowering_platforms=(platform,))
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    sizes: Any = compiled.memory_analysis()
    used = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    return Program(name, compiled.as_text() or "", flops, used, sizes.temp_size_in_bytes, seconds)


def _placed(tree: Any, sharding: Sharding) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def key_of(program: Program, arguments: argparse.Namespace, chip: str, chips: int = 1) -> list[str]:
    """The columns that tell a program's line apart; keeps its text under these words if that is wanted."""
    usual = (arguments.image_size, arguments.dtype) == (1024, "bfloat16")
    size = arguments.size if usual else f"{arguments.size} {arguments.image_size} {arguments.dtype}"
    cells = [size, program.name, chip, str(chips), arguments.label]
    if arguments.save:
        arguments.save.mkdir(parents=True, exist_ok=True)
        name = "_".join(cells).replace(",", "").replace(" ", "_")
        (arguments.save / f"{name}.txt").write_text(program.text)
    return cells


def made_of(*packages: str) -> str:
    """The commit and the versions of packages that a line was made with."""
    return ", ".join([commit(), *(f"{package} {version(package)}" for package in packages)])


def merged(old: str, rows: list[list[str]]) -> list[list[str]]:
    """The lines of an old section and new ones, in order; new ones replace those of the same key."""
    lines = [line for line in old.splitlines() if line.startswith("|")][2:]
    before = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    of_this_table = [cells for cells in [*before, *rows] if len(cells) == len(rows[0])]
    by_key: dict[tuple[str, ...], list[str]] = {}
    for cells in of_this_table:
        key = tuple(cells[: len(KEY)])
        # A cell that was left open keeps what it was, if made of the same.
        last = by_key.get(key, cells)
        pairs = zip(cells, last if last[-1] == cells[-1] else cells, strict=True)
        by_key[key] = [old if new == "-" else new for new, old in pairs]

    def place(cells: list[str]) -> tuple[Any, ...]:
        size, program, chip, chips, _ = cells[: len(KEY)]
        return SIZES.index(size.split(" ")[0]), size, chip, chips, program.startswith("decoder"), program

    return sorted(by_key.values(), key=place)
