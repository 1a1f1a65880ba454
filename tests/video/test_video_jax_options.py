"""The same masks of a session, of the same types, under JAX's options: 64 bits, no NaN, strict promotion."""

from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
import pytest
from small_video import small_clip, small_video_model, stacked

from sam2_jax.model import memory_attention, sam2_video

OPTIONS = {
    "jax_enable_x64": lambda: jax.enable_x64(True),
    "jax_debug_nans": lambda: jax.debug_nans(True),
    "jax_numpy_dtype_promotion": lambda: jax.numpy_dtype_promotion("strict"),
}

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")


def all_ways() -> list[Any]:
    """Results of clicks, a mask, a correction, and runs both ways; types of what is remembered."""
    session = small_video_model().video(small_clip(5), memory="motion")
    found = [session.prompt(1, 1, [(12, 30)]), session.prompt(1, 2, mask=np.ones((9, 9), bool))]
    found += [*session.propagate()]
    found += [session.prompt(3, 1, [(40, 40)], [0], clear_old=False)]
    found += [*session.propagate(), *session.propagate(3, reverse=True)]
    state = session._memories.state
    return [*stacked(found[2:6])[1:], *stacked(found[7:])[1:], *(np.zeros(0, leaf.dtype) for leaf in state)]


@pytest.fixture(scope="module")
def usual() -> list[Any]:
    return all_ways()


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_changes_nothing(usual: list[Any], option: str) -> None:
    context: AbstractContextManager[None] = OPTIONS[option]()
    with context:
        assert_equal(all_ways(), usual)


@pytest.mark.slow
def test_types_stay_where_objects_and_slots_are_taken_one_by_one(
    usual: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a CPU takes large maps."""
    for module in (memory_attention, sam2_video):
        monkeypatch.setattr(module, "_LARGE_MAP", 1)
    jax.clear_caches()  # what was traced for small maps
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        assert_equal(all_ways(), usual)
    jax.clear_caches()


def assert_equal(found: list[Any], usual: list[Any]) -> None:
    for mine, theirs in zip(found, usual, strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_allclose(np.float32(mine), np.float32(theirs), rtol=0, atol=2e-3)
