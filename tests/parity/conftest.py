"""The two small networks that most parity tests compare."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from small_models import small_config

if TYPE_CHECKING:  # torch may be missing: the modules that use these fixtures then skip
    from parity.oracle import Pair


@pytest.fixture(scope="session")
def pair() -> "Pair":
    """The small network in both frameworks, with the same weights."""
    from parity.oracle import build

    return build(small_config())


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """Two normalised images for the small network, [2, 128, 128, 3]."""
    return np.random.default_rng(1).standard_normal((2, 128, 128, 3)).astype(np.float32)
