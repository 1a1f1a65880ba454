"""The two small networks that most parity tests compare, and what makes torchvision import."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from small_models import small_config

if TYPE_CHECKING:  # torch may be missing: the modules that use these fixtures then skip
    from parity.oracle import Pair

# torchvision's wheel expects a CUDA torch. Beside a CPU torch it keeps transformers from importing, unless
# the reference folder's shim is imported before both.
_reference = os.environ.get("SAM2_JAX_REFERENCE_DIR")
if _reference and find_spec("torch") and find_spec("torchvision"):
    sys.path.append(str(Path(_reference) / "tools"))
    import torchvision_cpu_shim  # noqa: F401


@pytest.fixture(scope="session")
def pair() -> "Pair":
    """The small network in both frameworks, with the same weights."""
    from parity.oracle import build

    return build(small_config())


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """Two normalised images for the small network, [2, 128, 128, 3]."""
    return np.random.default_rng(1).standard_normal((2, 128, 128, 3)).astype(np.float32)
