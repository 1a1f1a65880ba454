"""The two small networks that most parity tests compare."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from quick_compilation import compiling_quickly
from small_models import small_config

if TYPE_CHECKING:  # torch may be missing: the modules that use these fixtures then skip
    from parity.oracle import Pair


@pytest.fixture(autouse=True)
def _compile_quickly(request: pytest.FixtureRequest) -> Iterator[None]:
    """Small networks are compared by their mathematics; those of full size are compiled as users do."""
    is_full_size = request.node.get_closest_marker("slow") or "reference_dir" in request.fixturenames
    with compiling_quickly(not is_full_size):
        yield


@pytest.fixture(scope="session")
def pair() -> "Pair":
    """The small network in both frameworks, with the same weights."""
    from parity.oracle import build

    return build(small_config())


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """Two normalised images for the small network, [2, 128, 128, 3]."""
    return np.random.default_rng(1).standard_normal((2, 128, 128, 3)).astype(np.float32)
