"""What is laid out otherwise for a TPU equals the plain form; run on whatever is here."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.experimental import pallas
from jax.experimental.pallas import tpu as pallas_tpu
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec
from small_models import random_tensors, smallest_config
from tolerances import relative_error

from sam2_jax.checkpoint import names
from sam2_jax.model import hiera, multi_scale_block
from sam2_jax.model.flash_attention import flash_attention
from sam2_jax.model.layers import IMPLEMENTATIONS, Linear, layer_norm
from sam2_jax.model.neck import upsample_nearest
from sam2_jax.model.patch_embedding import _convolve, _convolve_in_depth
from sam2_jax.model.platforms import tracing_for
from sam2_jax.model.sam2 import Sam2
from sam2_jax.model.upscaling import Upscaled, Upscaling, masks_by_sub_pixel, masks_in_lanes, to_sub_pixels
from sam2_jax.model.windows import (
    WindowOrder,
    quarters_in_order,
    tile_partition,
    tile_unpartition,
    window_partition,
    window_unpartition,
)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def in_both_forms(function, *operands):  # type: ignore[no-untyped-def]
    found = []
    for platform in ("gpu", "tpu"):
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


@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_windows_in_order_come_apart_again_and_pool(halvings: int) -> None:
    x = jnp.asarray(noise(2, 16, 32, 3))
    order = WindowOrder(4, halvings, 8)
    cut = tile_partition(x, order)
    plain = window_partition(x, 4).reshape(cut.shape)
    np.testing.assert_array_equal(np.sort(cut, axis=2), np.sort(plain, axis=2))
    np.testing.assert_array_equal(tile_unpartition(cut, order), x)
    if halvings:
        largest = jnp.stack(quarters_in_order(cut)).max(axis=0)
        pooled = x.reshape(2, 8, 2, 16, 2, 3).max(axis=(2, 4))
        np.testing.assert_array_equal(tile_unpartition(largest, order.pooled()), pooled)


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


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_the_network_for_a_tpu_equals_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With windows that are filled up and images of different height and width; kernels interpreted."""
    config = smallest_config((128, 192))
    module = Sam2(config)
    params = names.unflatten(names.to_flax(random_tensors(config)))
    pixels = noise(2, 128, 192, 3)
    points, labels = np.float32(np.full((2, 2, 1, 2), 40)), np.ones((2, 2, 1), np.int32)
    monkeypatch.setattr(hiera, "_KERNEL_WIDTH", 32)

    def predict(params, pixels):  # type: ignore[no-untyped-def]
        return module.apply({"params": params}, pixels, points, labels)

    def gradients(params):  # type: ignore[no-untyped-def]
        return jax.grad(lambda p: sum((x**2).mean() for x in predict(p, pixels)))(params)

    expected, found = in_both_forms(lambda: names.flatten(jax.jit(lambda p: gradients(p))(params)))
    for name, one in expected.items():
        atol = 1e-4 * np.abs(one).max() + 1e-7
        np.testing.assert_allclose(found[name], one, atol=atol, err_msg=name)
    called: list[jax.ShapeDtypeStruct] = []

    def interpreted(kernel, plain, result, along, whole):  # type: ignore[no-untyped-def]
        called.append(result)
        return kernel(*along, *whole)

    monkeypatch.setattr(multi_scale_block, "kernel_on_tpu", interpreted)
    monkeypatch.setattr(pallas, "pallas_call", partial(pallas.pallas_call, interpret=True))
    plain, kernels = in_both_forms(lambda: jax.jit(lambda *x: predict(*x))(params, pixels))
    assert len(called) == len(module.config.vision_config.backbone_config.embed_dim_per_stage)
    for name, one in plain._asdict().items():
        assert relative_error(getattr(kernels, name), one) < 1e-5, name


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_sub_pixels_by_a_convolution(factor: int) -> None:
    x = jnp.asarray(noise(2, 3 * factor, 5 * factor, 4))
    moved, convolved = in_both_forms(to_sub_pixels, x, 3, 5)
    assert moved.shape == (2, 15, factor**2, 4)
    np.testing.assert_array_equal(convolved, moved)


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
    query, key, value = (noise(1, 2, n, 2, width, seed=i) for i, n in enumerate((queries, keys, keys)))
    with pallas_tpu.force_tpu_interpret_mode():
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


@pytest.mark.parametrize(
    ("axes", "transform", "kernels"),
    [
        pytest.param({"images": 4}, None, 1, id="each chip has its images"),
        pytest.param({"images": 3}, None, 0, id="no equal parts"),
        pytest.param({"images": 4}, {"check_vma": False}, 1, id="shard_map"),
        pytest.param({"images": 4}, {"check_vma": True}, 0, id="shard_map that checks"),
        pytest.param(
            {"images": 2, "other": 2}, {"axis_names": {"images"}, "check_vma": False}, 0, id="one axis"
        ),
    ],
)
def test_chips_that_share_the_images(axes: dict[str, int], transform: dict | None, kernels: int) -> None:
    """A kernel cannot be divided by the compiler, which says so with an error."""
    mesh = AbstractMesh(tuple(axes.values()), tuple(axes))
    divided = PartitionSpec("images" if transform else None)
    x = jax.ShapeDtypeStruct((8, 1, 1024, 2, 8), jnp.bfloat16, sharding=NamedSharding(mesh, divided))
    attend = IMPLEMENTATIONS["flash"]
    if transform:
        attend = jax.shard_map(attend, mesh=mesh, in_specs=(divided,) * 3, out_specs=divided, **transform)
    text = jax.jit(attend).trace(x, x, x).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("@tpu_custom_call") == kernels
    assert not kernels or "tensor<2x2x1024x8xbf16>" in text, "two images on each chip"


def test_windows_have_kernels_on_a_tpu_alone() -> None:
    """In images that are not tiny."""
    config = smallest_config((256, 256))
    params = jax.tree.map(jnp.asarray, names.unflatten(names.to_flax(random_tensors(config))))
    encode = jax.jit(lambda x: Sam2(config).apply({"params": params}, x, method="encode_image"))
    traced = encode.trace(jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32))
    count = {
        name: traced.lower(lowering_platforms=(name,)).as_text().count("@tpu_custom_call")
        for name in ("cpu", "cuda", "tpu")
    }
    assert count == {"cpu": 0, "cuda": 0, "tpu": 4}
    several = export.export(encode, platforms=("cpu", "tpu"))(
        jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    )
    assert "@tpu_custom_call" in several.mlir_module()
