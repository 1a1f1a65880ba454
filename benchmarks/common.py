"""What all benchmarks share: the reference with the same weights, fair timing, sections of RESULTS.md."""

import argparse
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from sam2_jax import Sam2Model, Sam2VideoModel, released_config
from sam2_jax.atomic import write_text
from sam2_jax.checkpoint import names
from sam2_jax.config import released_video_config

Model = TypeVar("Model", Sam2Model, Sam2VideoModel)
RESULTS = Path(__file__).parent / "RESULTS.md"
SIZES = ("tiny", "small", "base-plus", "large")
HEAD = """# Results

`python -m benchmarks` measures and writes all but the sections that name other commands. Both sides have the
same weights and inputs, run on all cores and take turns, one call each, again and again: median (fastest -
slowest). Compiling is apart. Times drift; ratios of one run hold.
"""


def parser(description: str | None, image_size: bool = True) -> argparse.ArgumentParser:
    """A command line with what every benchmark takes: --write and, unless weights fix it, --image-size."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if image_size:
        options.add_argument("--image-size", type=int, default=1024, help="height and width (default 1024)")
    options.add_argument("--write", action="store_true", help="write the tables to benchmarks/RESULTS.md")
    return options


def report(section: str, text: str, write: bool) -> None:
    """Print what was measured, and put it into its section of RESULTS.md if it is to be written."""
    print(text)
    if write:
        write_section(section, text)


def random_model(size: str, image_size: int = 1024) -> Sam2Model:
    """A released size with random weights: speed does not depend on them."""
    config = released_config(f"facebook/sam2.1-hiera-{size}").with_image_size(image_size)
    return Sam2Model(config)


def random_video_model(size: str, image_size: int = 1024) -> Sam2VideoModel:
    """A released size of the video model with random weights."""
    config = released_video_config(f"facebook/sam2.1-hiera-{size}")
    return Sam2VideoModel(config.with_image_size(image_size))


def in_bfloat16(model: Model) -> Model:
    """The same model with parameters and computation in bfloat16; the Fourier matrix stays float32."""
    kept = model.params["shared_image_embedding"]
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), dict(model.params)) | {
        "shared_image_embedding": kept
    }
    return type(model)(model.config, params, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)


def reference_model(model: Sam2Model | Sam2VideoModel, device: str) -> Any:
    """transformers' model with the same weights, float32, on a device."""
    import torch
    import transformers

    kind = "Sam2Video" if isinstance(model, Sam2VideoModel) else "Sam2"
    config = {key: value for key, value in model.config.to_dict().items() if key != "model_type"}
    made, described = (getattr(transformers, f"{kind}{part}") for part in ("Model", "Config"))
    reference = made(described(**config)).eval()
    flat = {name: np.array(value) for name, value in names.flatten(model.params).items()}
    reference.load_state_dict({name: torch.from_numpy(t) for name, t in names.to_torch(flat).items()})
    return reference.to(device)


@dataclass(frozen=True)
class TorchVariant:
    """One way to run the reference: weights and inputs in a type, under autocast, or compiled."""

    name: str
    dtype: str = "float32"
    autocast: bool = False
    compiled: bool = False

    def model(self, reference: Any) -> Any:
        """The reference in this variant's type; the one given is left as it is."""
        import copy

        import torch

        dtype = getattr(torch, self.dtype)
        return reference if dtype == torch.float32 else copy.deepcopy(reference).to(dtype)

    def wrap(self, function: Callable[..., Any], device: str) -> Callable[..., Any]:
        """A function, compiled and under autocast as the variant says, that returns when all is done."""
        import torch

        if self.compiled:
            function = torch.compile(function)

        def run(*args: Any) -> Any:
            context: AbstractContextManager[Any] = nullcontext()
            if self.autocast:
                context = torch.autocast(device, torch.bfloat16)
            with torch.inference_mode(), context:
                result = function(*args)
            if device == "cuda":
                torch.cuda.synchronize()
            return result

        return run


EAGER, AUTOCAST = TorchVariant("eager"), TorchVariant("autocast", autocast=True)
COMPILED = TorchVariant("compile", compiled=True)


def torch_variants(device: str) -> list[TorchVariant]:
    """The reference's variants on a device; half precision by weights where the hardware is made for it."""
    if device == "cpu":
        return [EAGER, AUTOCAST, COMPILED]
    half = [TorchVariant(short, dtype) for short, dtype in (("bf16", "bfloat16"), ("fp16", "float16"))]
    compiled = [TorchVariant(f"{v.name} compile", v.dtype, compiled=True) for v in half]
    return [EAGER, COMPILED, *half, *compiled]


def require_device(device: str) -> str | None:
    """A sentence if either side cannot run on the device, else None; sets both to true float32."""
    import torch

    if jax.default_backend() != ("gpu" if device == "cuda" else "cpu"):
        wanted = "a CUDA build of jax" if device == "cuda" else "JAX_PLATFORMS=cpu"
        return f"jax runs on {jax.default_backend()} here: --device {device} needs {wanted}"
    if device == "cuda" and not torch.cuda.is_available():
        return "torch sees no GPU: --device cuda needs a CUDA build of torch"
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    jax.config.update("jax_default_matmul_precision", "highest")
    return None


@dataclass(frozen=True)
class Timing:
    """Seconds of one call's repetitions, and of its first call, compiling included."""

    first: float
    seconds: list[float]

    @property
    def median(self) -> float:
        """The middle of the repetitions."""
        return statistics.median(self.seconds)

    def cell(self, unit: str = "s") -> str:
        """Median (fastest - slowest), in seconds or milliseconds."""
        factor, digits = (1000, 1) if unit == "ms" else (1, 3)
        middle, low, high = (factor * x for x in (self.median, min(self.seconds), max(self.seconds)))
        return f"{middle:.{digits}f} ({low:.{digits}f} - {high:.{digits}f})"


def measure(calls: Mapping[str, Callable[[], Any]], repeats: int, budget: float = 60.0) -> dict[str, Timing]:
    """Time calls in turns, after one of each that does not count.

    Up to `repeats` rounds, none begun after the budget, in seconds, is spent. A call returns when its result
    is there.
    """
    first = {name: _clock(call) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    start = time.perf_counter()
    for done in range(max(repeats, 1)):
        if done and time.perf_counter() - start > budget:
            break
        for name, call in calls.items():
            seconds[name].append(_clock(call))
    return {name: Timing(first[name], seconds[name]) for name in calls}


def _clock(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def matmul_rate() -> float:
    """FLOP per second of this machine's float32 matrix product, 2048 cubed, the best of several."""
    a = jnp.ones((2048, 2048))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    return 2 * 2048**3 / min(_clock(lambda: product(a).block_until_ready()) for _ in range(7))


def setting() -> str:
    """What was measured on what, so that a table can be judged and repeated."""
    packages = ", ".join(
        f"{name} {_version(name)}" for name in ("jax", "jaxlib", "flax", "torch", "transformers")
    )
    device = jax.devices()[0]
    hardware = cpu_name() if device.platform == "cpu" else f"{device.device_kind}, {cpu_name()}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{hardware}, {cores} cores; {packages}; commit {commit()}"


def commit() -> str:
    """The commit that is measured, and whether files differ from it, other than the one of results."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, cwd=RESULTS.parent)
        return done.stdout.strip()

    name = git("describe", "--always") or "unknown"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", f":(exclude){RESULTS.name}")
    return f"{name}-dirty" if changed else name


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def read_section(name: str, path: Path = RESULTS) -> str:
    """What a section of RESULTS.md holds, marks included; nothing if it is not there."""
    old = path.read_text() if path.exists() else ""
    found = re.search(f"<!-- begin {re.escape(name)} -->.*?<!-- end {re.escape(name)} -->\n", old, re.DOTALL)
    return found[0] if found else ""


def write_section(name: str, text: str, path: Path = RESULTS) -> None:
    """Put a section of this name into RESULTS.md, in place of its last version; the others stay."""
    section = f"<!-- begin {name} -->\n{text.strip()}\n<!-- end {name} -->\n"
    old = path.read_text() if path.exists() else ""
    last = read_section(name, path)
    if last:
        new = old.replace(last, section)
    else:
        new = (old if "<!-- begin" in old else HEAD).rstrip("\n") + "\n\n" + section
    write_text(path, new)
