"""For all tests: strict JAX, a compilation cache, the reference folder, the summary of what was measured."""

import gc
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hypothesis
import jax
import numpy as np
import pytest
from quick_compilation import compiling_quickly
from small_models import model_of, small_config
from tolerances import TOLERANCES, record_error, worst

from sam2_jax import Sam2Model
from sam2_jax.model.sam2 import Sam2

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".jax_cache"))
# With a size JAX locks the cache: processes share it.
jax.config.update("jax_compilation_cache_max_size", 8 * 2**30)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

# The same examples each time, however slow other processes make them.
hypothesis.settings.register_profile(
    "same", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("same")

# Among processes that share a machine: threads of torch spin while they wait, on cores of the others.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# torchvision's wheel expects a CUDA torch. Beside a CPU torch it keeps transformers from importing, unless
# the reference folder's shim is imported before both.
_reference = os.environ.get("SAM2_JAX_REFERENCE_DIR")
if _reference and find_spec("torch") and find_spec("torchvision"):
    sys.path.append(str(Path(_reference) / "tools"))
    import torchvision_cpu_shim  # noqa: F401


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the errors that a worker process of pytest-xdist met to the process that reports."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["worst"] = list(worst.items())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take them there."""
    for (kind, rung), error in getattr(node, "workeroutput", {}).get("worst", ()):
        record_error(kind, rung, error)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the worst relative error of every rung beside its limit."""
    if worst:
        terminalreporter.section("worst relative errors")
        for (kind, rung), error in sorted(worst.items()):
            terminalreporter.write_line(f"{error:.1e} of {TOLERANCES[kind]:.0e}  {kind:10}  {rung}")


# Linux allows a process 65,530 memory mappings; compiled programs take dozens each, and JAX keeps them all.
# Beyond the limit the process crashes.
_MANY_MAPPINGS = 30_000


@pytest.fixture(scope="module", autouse=True)
def _drop_compiled_programs() -> Iterator[None]:
    """Before they are too many for one process, forget compiled programs; the cache on disk has them."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > _MANY_MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Folder with real weights, photos and reference outputs, named by SAM2_JAX_REFERENCE_DIR."""
    folder = os.environ.get("SAM2_JAX_REFERENCE_DIR")
    if not folder:
        pytest.skip("needs the reference weights and outputs: set SAM2_JAX_REFERENCE_DIR to their folder")
    if not Path(folder).is_dir():
        pytest.fail(f"SAM2_JAX_REFERENCE_DIR={folder} is not a folder")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def small_model() -> Sam2Model:
    """A small model with random weights."""
    return model_of(small_config())


@pytest.fixture(scope="session")
def tiny_model(reference_dir: Path) -> Sam2Model:
    """The tiny model with its released weights."""
    return Sam2Model.from_pretrained(reference_dir / "weights" / "sam2-hiera-tiny-image")


# By network, weights and pixels; the weights are kept so that no others take over their identity.
_encoded: dict[Any, tuple[list[Any], Any]] = {}


@pytest.fixture
def pixels_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models remember what they have encoded, in other tests too: at full size it takes seconds."""
    run = Sam2Model._run

    def remembering(self: Sam2Model, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "encode_image" or options.get("record"):
            return run(self, method, *inputs, **options)
        weights = jax.tree.leaves(self.params)
        key = self.module, tuple(map(id, weights)), np.asarray(inputs[0]).tobytes()
        if key not in _encoded:
            _encoded[key] = weights, run(self, method, *inputs, **options)
        return _encoded[key][1]

    monkeypatch.setattr(Sam2Model, "_run", remembering)


@pytest.fixture
def quick_compilation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compile without optimisations, in a third of the time: for tests of how small networks behave.

    Real weights are left to be compiled as users do.
    """
    with compiling_quickly("reference_dir" not in request.fixturenames):
        yield


@pytest.fixture
def quick_compilation_to_the_bit() -> Iterator[None]:
    """The same where different programs are compared to the bit."""
    with compiling_quickly(newer_generator=True):
        yield


@pytest.fixture(scope="module")
def quick_compilation_of_module() -> Iterator[None]:
    """The same for all of a module and its fixtures."""
    with compiling_quickly():
        yield


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch, quick_compilation: None) -> list[str]:
    """The network's method traced, each time one is: tracing runs its Python, and nothing else does."""
    seen: list[str] = []

    def count(method: str) -> None:
        original = getattr(Sam2, method)

        def counted(self: Sam2, *args: Any, **options: Any) -> Any:
            seen.append(method)
            return original(self, *args, **options)

        monkeypatch.setattr(Sam2, method, counted)

    count("encode_image")
    count("decode_masks")
    return seen
