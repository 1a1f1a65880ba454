"""The kernel for windows equals plain steps; here it is interpreted, step by step as a TPU takes them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas
from small_models import smallest_config
from tolerances import relative_error

from sam2_jax.model import window_attention
from sam2_jax.model.multi_scale_block import MultiScaleBlock
from sam2_jax.model.window_attention import takes_maps


def block(window: int, pool: bool, heads: int, channels: int, features: int, dtype=jnp.float32):  # type: ignore[no-untyped-def]
    """A block with random parameters."""
    config = smallest_config().vision_config.backbone_config
    module = MultiScaleBlock(channels, features, heads, window, pool, config, dtype=dtype)
    smallest = jnp.zeros((1, window, window, channels))
    shapes = jax.eval_shape(module.init, jax.random.key(0), smallest)["params"]
    rng = np.random.default_rng(0)
    return module, jax.tree.map(
        lambda x: (rng.standard_normal(x.shape) / np.sqrt(x.shape[0])).astype(np.float32), shapes
    )


def in_both_forms(module: MultiScaleBlock, params, x):  # type: ignore[no-untyped-def]
    """What the kernel makes of x, and what plain steps make of it."""
    apply = jax.jit(lambda method, *x: module.apply({"params": x[0]}, x[1], method=method), static_argnums=0)
    return [apply(method, params, x) for method in ("attended_in_kernel", "attended")]


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pallas, "pallas_call", partial(pallas.pallas_call, interpret=True))
    monkeypatch.setattr(window_attention, "_STEP_NUMBERS", 2**14)


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize(
    ("size", "window", "pool", "heads", "channels", "features"),
    [
        pytest.param((16, 32), 8, False, 1, 24, 24, id="two windows share a product"),
        pytest.param((8, 96), 4, False, 2, 192, 192, id="a head lies in two registers"),
        pytest.param((16, 16), 14, False, 3, 24, 24, id="filled up on two sides"),
        pytest.param((16, 16), 7, False, 2, 24, 24, id="two odd windows share a product"),
        pytest.param((8, 12), 16, False, 2, 24, 24, id="a window larger than the map"),
        pytest.param((16, 80), 8, True, 2, 24, 144, id="pooled, wider than a step"),
        pytest.param((16, 20), 14, True, 2, 24, 48, id="pooled and filled up"),
    ],
)
def test_the_kernel_equals_plain_steps(
    size: tuple[int, int], window: int, pool: bool, heads: int, channels: int, features: int
) -> None:
    module, params = block(window, pool, heads, channels, features)
    x = np.random.default_rng(1).standard_normal((2, *size, channels)).astype(np.float32)
    assert takes_maps(*size, window, pool)
    found, expected = in_both_forms(module, params, x)
    assert found.shape == expected.shape == (2, *(n >> pool for n in size), features)
    assert relative_error(found, expected) < 1e-5


def test_the_kernel_in_bfloat16() -> None:
    module, params = block(14, True, 2, 24, 48, jnp.bfloat16)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((1, 16, 16, 24)), jnp.bfloat16)
    found, expected = in_both_forms(module, params, x)
    assert found.dtype == jnp.bfloat16
    assert relative_error(found.astype(jnp.float32), expected.astype(jnp.float32)) < 2e-2


def test_odd_maps_are_not_pooled_in_a_kernel() -> None:
    assert not takes_maps(15, 16, 8, True)
    assert not takes_maps(16, 16, 7, True)
    assert takes_maps(15, 17, 7, False)
