"""What is laid out otherwise for a TPU equals the plain form; run on whatever is here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from small_models import random_tensors, smallest_config
from tolerances import relative_error

from sam2_jax.checkpoint import names
from sam2_jax.model import windows
from sam2_jax.model.flash_attention import flash_attention
from sam2_jax.model.layers import IMPLEMENTATIONS, Linear, layer_norm
from sam2_jax.model.neck import upsample_nearest
from sam2_jax.model.patch_embedding import _convolve, _convolve_in_depth
from sam2_jax.model.platforms import tracing_for
from sam2_jax.model.sam2 import Sam2
from sam2_jax.model.upscaling import Upscaled, Upscaling, masks_by_sub_pixel, masks_in_lanes
from sam2_jax.model.windows import WindowOrder, window_partition, window_unpartition


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def in_both_forms(function, *operands):  # type: ignore[no-untyped-def]
    found = []
    for platform in ("accelerator", "tpu"):  # the first on a CPU: as elsewhere
        with tracing_for(platform):
            found.append(function(*operands))
    return found


@pytest.mark.parametrize(("size", "window"), [((16, 16), 8), ((10, 7), 6), ((4, 5), 14)])
def test_windows_are_moved_by_products(size: tuple[int, int], window: int) -> None:
    x = jnp.asarray(noise(2, *size, 3))
    filling = jnp.asarray(noise(3, seed=1))
    moved, product = in_both_forms(window_partition, x, window, filling)
    np.testing.assert_array_equal(product, moved)
    for back in in_both_forms(window_unpartition, moved, *size):
        np.testing.assert_array_equal(back, x)


@pytest.fixture
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrix units of 32, so that small maps have groups of windows."""
    monkeypatch.setattr(windows, "_PRODUCT_TOKENS", 32)


@pytest.mark.usefixtures("small_products")
@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_windows_in_order_come_apart_again(halvings: int) -> None:
    x = jnp.asarray(noise(2, 16, 32, 3))
    with tracing_for("tpu"):
        order = WindowOrder.of(4, halvings, 8)
    assert (order.group, order.columns) == (2, 4)
    cut, product = in_both_forms(windows.tile_partition, x, order)
    assert cut.shape == (2, 16, 32, 3)
    np.testing.assert_array_equal(product, cut)
    plain = window_partition(x, 4).reshape(2, 16, 2, 16, 3)
    for window in range(2):
        tokens = cut[:, :, order.windows() == window]
        np.testing.assert_array_equal(np.sort(tokens, axis=2), np.sort(plain[:, :, window], axis=2))
    for back in in_both_forms(windows.tile_unpartition, cut, order):
        np.testing.assert_array_equal(back, x)


@pytest.mark.usefixtures("small_products")
@pytest.mark.parametrize("halvings", [1, 2])
def test_quarters_are_what_pooling_joins(halvings: int) -> None:
    x = jnp.asarray(noise(2, 16, 64, 3))
    with tracing_for("tpu"):
        order = WindowOrder.of(4, halvings, 16)
        following = order.pooled()
        cut = windows.tile_partition(x, order)
    factor = order.columns // following.columns
    assert factor == (4 if halvings == 2 else 1)
    moved, product = in_both_forms(lambda: jnp.stack(windows.quarters_in_order(cut, order)))
    np.testing.assert_array_equal(product, moved)
    largest = moved.max(axis=0)
    pooled = x.reshape(2, 8, 2, 32, 2, 3).max(axis=(2, 4))
    np.testing.assert_array_equal(windows.tile_unpartition(largest, following), pooled)
    for split in in_both_forms(windows.split_groups, largest, following, factor):
        smaller = following._replace(group=2, columns=8)
        np.testing.assert_array_equal(windows.tile_unpartition(split, smaller), pooled)
        for merged in in_both_forms(windows.merge_groups, split, following, factor):
            np.testing.assert_array_equal(merged, largest)


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [((32, 48), 7, 4, 3), ((16, 16), 4, 4, 0), ((30, 22), 3, 2, 1), ((32, 32), 8, 4, 2)],
)
def test_patches_in_depth_equal_the_convolution(
    size: tuple[int, int], kernel: int, stride: int, padding: int
) -> None:
    x = np.pad(noise(2, *size, 3), ((0, 0), *((padding, padding),) * 2, (0, 0)))
    weights = noise(kernel, kernel, 3, 8, seed=1), noise(1, 1, 1, 8, seed=2)
    strides, paddings = (stride, stride), (padding, padding)
    expected = jax.jit(lambda *x: _convolve(*x, strides))(x, *weights)
    found = jax.jit(lambda *x: _convolve_in_depth(*x, strides, paddings))(x, *weights)
    assert relative_error(found, expected) < 1e-6


@pytest.mark.usefixtures("quick_compilation")
def test_masks_in_lanes_equal_those_by_sub_pixel() -> None:
    weights = Upscaling(
        Linear(noise(32, 32), noise(32, seed=1)),
        1 + noise(8, seed=2),
        noise(8, seed=3),
        Linear(noise(8, 16, seed=4), noise(16, seed=5)),
    )
    sizes = ((2, 3, 24, 32), (2, 1, 24, 16, 4), (2, 1, 24, 4, 8), (2, 3, 4, 4))
    inputs = Upscaled(*(jnp.asarray(noise(*size, seed=i)) for i, size in enumerate(sizes)))
    weights = jax.tree.map(jnp.asarray, weights)
    expected, found = (
        jax.jit(lambda *x, form=form: form(*x, (4, 6)))(inputs, weights)
        for form in (masks_by_sub_pixel, masks_in_lanes)
    )
    assert expected.shape == (2, 3, 4, 16, 24)
    assert relative_error(found, expected) < 1e-5


@pytest.mark.usefixtures("small_products", "quick_compilation")
def test_the_network_for_a_tpu_equals_the_plain_one() -> None:
    """With groups of windows, windows that are filled up, and images of different height and width."""
    config = smallest_config((128, 192))
    module = Sam2(config)
    params = names.unflatten(names.to_flax(random_tensors(config)))
    pixels = noise(2, 128, 192, 3)
    points, labels = np.float32(np.full((2, 2, 1, 2), 40)), np.ones((2, 2, 1), np.int32)

    def predict(params, pixels):  # type: ignore[no-untyped-def]
        return module.apply({"params": params}, pixels, points, labels)

    plain, tpu = in_both_forms(lambda: jax.jit(lambda *x: predict(*x))(params, pixels))
    for name, expected in plain._asdict().items():
        assert relative_error(getattr(tpu, name), expected) < 1e-5, name
    gradients = in_both_forms(
        lambda: jax.jit(jax.grad(lambda p: sum((x**2).mean() for x in predict(p, pixels))))(params)
    )
    for name, expected in names.flatten(gradients[0]).items():
        found = names.flatten(gradients[1])[name]
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max() + 1e-7, err_msg=name)


def test_nearest_upsampling_by_a_product() -> None:
    moved, product = in_both_forms(upsample_nearest, jnp.asarray(noise(2, 3, 5, 4)))
    np.testing.assert_array_equal(product, moved)


def test_a_norm_in_one_pass_is_the_norm_in_two() -> None:
    """In bfloat16; also where the mean is sixteen times the deviation, of which features keep far."""
    for offset in (0, 1, 16):
        x = jnp.asarray(noise(64, 96) + offset, jnp.bfloat16)
        scale, bias = jnp.asarray(noise(96, seed=1)), jnp.asarray(noise(96, seed=2))
        two, one = in_both_forms(layer_norm, x, scale, bias, 1e-6, jnp.bfloat16)
        assert relative_error(one.astype(jnp.float32), two.astype(jnp.float32)) < 4e-3
        assert (one == two).mean() > 0.99, "but for the last bit"


@pytest.mark.parametrize(("queries", "keys", "width"), [(1024, 1024, 96), (1536, 1024, 56)])
def test_fused_attention_equals_the_plain_one(queries: int, keys: int, width: int) -> None:
    from jax.experimental.pallas import tpu

    query, key, value = (noise(1, 2, n, 2, width, seed=i) for i, n in enumerate((queries, keys, keys)))
    with tpu.force_tpu_interpret_mode():
        found = jax.jit(flash_attention)(query / 8, key, value)
    assert relative_error(found, IMPLEMENTATIONS["plain"](query / 8, key, value)) < 1e-5


def test_the_fused_operation_is_a_kernel_for_a_tpu_alone() -> None:
    operands = [jnp.asarray(noise(2, 1, 1024, 2, 8, seed=i)) for i in range(3)]
    attend = IMPLEMENTATIONS["flash"]
    traced = jax.jit(attend).trace(*operands)
    kernels = {
        name: "tpu_custom_call" in traced.lower(lowering_platforms=(name,)).as_text()
        for name in ("cpu", "cuda", "tpu")
    }
    assert kernels == {"cpu": False, "cuda": False, "tpu": True}
    several = export.export(jax.jit(attend), platforms=("cpu", "tpu"))(*operands)
    assert "tpu_custom_call" in several.mlir_module()
    expected = IMPLEMENTATIONS["plain"](*operands)
    assert relative_error(several.call(*operands), expected) < 1e-5
    stacked = [jnp.stack([x, -x]) for x in operands]
    assert relative_error(jax.vmap(attend, (0, 0, None))(*stacked[:2], operands[2])[0], expected) < 1e-5

    def gradients(attend):  # type: ignore[no-untyped-def]
        return jax.jit(jax.grad(lambda *x: jnp.square(attend(*x)).mean(), argnums=(0, 1, 2)))(*operands)

    for found, wanted in zip(gradients(attend), gradients(IMPLEMENTATIONS["plain"]), strict=True):
        assert relative_error(found, wanted) < 1e-5
