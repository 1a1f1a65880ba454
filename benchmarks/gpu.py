"""What does the network become on an H100? Asked of XLA's compiler, without a GPU, on any Linux machine.

    pip install -e . jax-cuda13-plugin jax-cuda13-pjrt nvidia-cuda-nvcc nvidia-nvvm     # all of jax's version
    python benchmarks/gpu.py                        # hiera-tiny at 1024 x 1024, all four programs
    python benchmarks/gpu.py --programs decoder --top 40 --write

The compiler is told what an H100 is. Nothing is run, so nothing is tried out to tune it, and it gives no
times. What can be counted, loops multiplied out: products (cuBLAS's), cuDNN's attention, kernels that
compute, and those that only move data; and the bytes that each reads and writes, whole arrays. What these
take at the memory's 3.35 TB/s is to compare two programs by, and no time: what a cache holds goes faster.
"""

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))

from jax.experimental import topologies
from jax.sharding import Sharding, SingleDeviceSharding

from benchmarks import cycles
from benchmarks.common import read_section, report, table
from benchmarks.compiled import KEY, Program, checked, key_of, made_of, merged, options_of, programs
from benchmarks.hlo import Instruction, executions, parse
from sam2_jax import Sam2Config

CHIP = "H100"
BANDWIDTH = 3.35e12  # bytes per second
INSTALL = "pip install jax-cuda13-plugin jax-cuda13-pjrt nvidia-cuda-nvcc nvidia-nvvm"
FLAGS = "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=0"  # tuning would need the GPU
# By NVIDIA's data sheet and CUDA's tables for compute capability 9.0.
H100 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 10 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  l2_cache_size: 52428800
  memory_bandwidth: 3352320000000
  device_memory_size: 84978434048
}
"""
ATTENTION = "attention"
MOVING = cycles.COPIES, cycles.PADS, cycles.BROADCASTS
KINDS = cycles.PRODUCTS, ATTENTION, cycles.ARITHMETIC, *MOVING
_NO_KERNELS = re.compile(
    r"parameter|constant|tuple|get-tuple-element|bitcast|after-all|partition-id|.*-(done|update)"
)


@dataclass(frozen=True)
class Launch:
    """A kernel: how often it is launched, what it does for whom, and the bytes that it reads and writes."""

    instruction: Instruction
    times: int
    kind: str
    part: str
    moved: int


def launches(text: str) -> list[Launch]:
    """The kernels of a compiled program, those that move most first."""
    module = parse(text)
    everything = module.everything()
    found = []
    for times, one in executions(module, lambda _: 0):
        if _NO_KERNELS.fullmatch(one.opcode):
            continue
        target = re.search(r'custom_call_target="([^"]*)"', one.attributes)
        # A library's call returns its working space too.
        results = re.sub(r"[su]8\[\d+\]", "", one.shape) if target else one.shape
        shapes = [results, *(everything[name].shape for name in one.operands if name in everything)]
        kind = cycles.kind(module, one)
        if target:
            kind = ATTENTION if "fmha" in target[1] else cycles.PRODUCTS
        part = cycles.part(module, everything, one)
        found.append(Launch(one, times, kind, part, times * sum(map(cycles.size, shapes))))
    return sorted(found, key=lambda launch: -launch.moved)


def on_the_gpu(_: int = 0) -> tuple[Sharding, Sharding]:
    """One H100 that need not be there."""
    topology = topologies.get_topology_desc("", "cuda", topology="1x1x1", target_config=H100)
    single = SingleDeviceSharding(topology.devices[0])
    return single, single


HEAD = [*KEY, "kernels", *KINDS, "of them only moving", "GiB moved", "ms at 3.35 TB/s", "of it only moving"]
HEAD += ["temporaries, MiB", "compiling, s", "made of"]


def row(key: list[str], program: Program, found: list[Launch]) -> list[str]:
    """A program's line in RESULTS.md."""
    count, moved = Counter[str](), Counter[str]()
    for launch in found:
        count[launch.kind] += launch.times
        moved[launch.kind] += launch.moved
    return [
        *(*key, str(count.total()), *(str(count[kind]) for kind in KINDS)),
        cycles.share(sum(count[kind] for kind in MOVING), count.total()),
        *(f"{moved.total() / 2**30:.2f}", f"{1e3 * moved.total() / BANDWIDTH:.2f}"),
        cycles.share(sum(moved[kind] for kind in MOVING), moved.total()),
        *(f"{program.temporaries / 2**20:.1f}", f"{program.seconds or 0:.0f}"),
        made_of("jax-cuda13-pjrt", "jax"),
    ]


def largest(found: list[Launch], count: int) -> str:
    """A table of the kernels that move most."""
    rows = []
    for launch in found[:count]:
        one = launch.instruction
        steps = "/".join(one.op_name.split("/")[-4:])
        cells = [f"{launch.moved / 2**20:.1f}", str(launch.times), launch.kind, launch.part]
        rows.append([*cells, one.name, one.shape[:60], steps])
    return table(["MiB", "times", "kind", "part", "kernel", "result", "from"], rows)


CAPTION = f"""## GPU, compiled without one

`python benchmarks/gpu.py --write`: what XLA makes of the network for an H100; nothing was run. Kernels, loops
multiplied out, by what they do; the bytes that they read and write, whole arrays, and what those take at
the memory's 3.35 TB/s, to compare two programs by: no time. Nothing is tried out, and products are left to
cuBLAS: `{FLAGS}`."""


def plugin_is_installed() -> bool:
    """Whether JAX's CUDA plugin is here, with or without a GPU."""
    return find_spec("jax_plugins") is not None and find_spec("jax_plugins.xla_cuda13") is not None


def parse_options(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Sam2Config]:
    """Read the command line, and refuse what cannot be compiled."""
    options = options_of(__doc__)
    options.add_argument("--top", type=int, default=20, help="kernels to list (default 20)")
    arguments = options.parse_args(argv)
    config = checked(options, arguments, 1)
    if not plugin_is_installed():
        options.error(f"JAX's CUDA plugin, which has the GPU's compiler, is not installed: {INSTALL}")
    return arguments, config


def main(argv: Sequence[str] | None = None) -> None:
    """Compile programs, print which of their kernels move most, and with --write keep a line of each."""
    arguments, config = parse_options(argv)
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
    # A program may call cuDNN without having it: as if it was here, in the version told to the compiler.
    cudnn = SimpleNamespace(cudnn_get_version=lambda: 91000)
    rows = []
    with mock.patch("jax._src.cudnn.fused_attention_stablehlo.cuda_versions", cudnn):
        for program in programs(config, arguments, "cuda", on_the_gpu):
            key = key_of(program, arguments, CHIP)
            found = launches(program.text)
            print(f"\n### {', '.join(key)}\n\n{largest(found, arguments.top)}\n", flush=True)
            rows.append(row(key, program, found))
    lines = merged(read_section("gpu compiled"), rows) if arguments.write else rows
    report("gpu compiled", f"{CAPTION}\n\n{table(HEAD, lines)}", arguments.write)


if __name__ == "__main__":
    main()
