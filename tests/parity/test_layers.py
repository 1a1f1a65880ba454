"""Rung 1: the layers by themselves, where ports of SAM 2 to JAX have gone wrong."""

from typing import Any

import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("transformers", reason="parity needs transformers")

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from tolerances import assert_close
from transformers.models.sam2 import modeling_sam2

from parity.oracle import Pair, channels_first, channels_last, to_torch
from sam2_jax.model import layers
from sam2_jax.model.layers import IMPLEMENTATIONS, LayerNorm, attend, best_implementation, gelu
from sam2_jax.model.neck import upsample_nearest
from sam2_jax.model.platforms import tracing_for
from sam2_jax.model.positions import resize_bicubic
from sam2_jax.model.upscaling import SubPixelUpsample, from_sub_pixels, to_sub_pixels
from sam2_jax.model.windows import quarters_of_maps, window_partition, window_unpartition


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("size_in", "size_out"),
    [
        ((7, 7), (256, 256)),  # tiny, small and large at 1024 pixels
        ((14, 14), (256, 256)),  # base-plus
        ((7, 7), (32, 48)),
        ((14, 14), (14, 14)),
        ((14, 14), (8, 16)),  # smaller than the background
        ((7, 5), (9, 64)),
        ((1, 2), (8, 8)),  # all taps clamped to the border
    ],
)
def test_bicubic_resize_equals_torch(size_in: tuple[int, int], size_out: tuple[int, int]) -> None:
    grid = noise(1, *size_in, 3)
    expected = F.interpolate(channels_first(grid), size=size_out, mode="bicubic")
    assert_close(
        "features", "bicubic resize", resize_bicubic(jnp.asarray(grid), *size_out), channels_last(expected)
    )


def test_gelu_is_the_exact_one() -> None:
    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    ours = gelu(jnp.asarray(x))
    assert_close("features", "GELU", ours, F.gelu(to_torch(x)))
    tanh_form = nn.gelu(jnp.asarray(x), approximate=True)
    assert np.abs(ours - tanh_form).max() > 1e-4, "the two forms must differ where this test looks"


@pytest.mark.parametrize("epsilon", [1e-5, 1e-6])
def test_layer_norm_equals_torch(epsilon: float) -> None:
    # A small spread on a larger mean: here a one-pass variance fails, and the epsilons differ.
    x = 0.03 * noise(4, 9, 32) + 1.0
    module = LayerNorm(epsilon, jnp.float32)
    ours = module.apply({"params": {"scale": noise(32, seed=1), "bias": noise(32, seed=2)}}, x)
    theirs = F.layer_norm(
        to_torch(x), (32,), to_torch(noise(32, seed=1)), to_torch(noise(32, seed=2)), epsilon
    )
    assert_close("features", "layer norm", ours, theirs)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (5, 3)])
def test_max_pool_equals_torch(size: tuple[int, int]) -> None:
    x = noise(2, *size, 4)
    largest = jnp.stack(quarters_of_maps(jnp.asarray(x))).max(axis=0)
    np.testing.assert_array_equal(largest, modeling_sam2.do_pool(to_torch(x), 2))


@pytest.mark.parametrize(("size", "window"), [((8, 8), 4), ((8, 8), 3), ((10, 7), 6), ((4, 5), 14)])
def test_windows_equal_transformers_and_come_apart_again(size: tuple[int, int], window: int) -> None:
    x = noise(2, *size, 3)
    windows = window_partition(jnp.asarray(x), window)
    theirs, _ = modeling_sam2.window_partition(to_torch(x), window)
    np.testing.assert_array_equal(windows.reshape(theirs.shape), theirs)
    np.testing.assert_array_equal(window_unpartition(windows, *size), x)


def test_nearest_upsampling_equals_torch() -> None:
    x = noise(2, 3, 5, 4)
    expected = F.interpolate(channels_first(x), scale_factor=2.0, mode="nearest")
    np.testing.assert_array_equal(upsample_nearest(jnp.asarray(x)), channels_last(expected))


def test_sub_pixel_upsampling_equals_transposed_convolution() -> None:
    x, kernel, bias = noise(2, 3, 5, 8), noise(2, 2, 8, 4, seed=1), noise(4, seed=2)
    sub_pixels = SubPixelUpsample(8, 4).apply(
        {"params": {"kernel": kernel, "bias": bias}}, to_sub_pixels(jnp.asarray(x), 3, 5)
    )
    ours = from_sub_pixels(sub_pixels, 3, 5)
    theirs = F.conv_transpose2d(
        channels_first(x), to_torch(kernel.transpose(2, 3, 0, 1)), to_torch(bias), stride=2
    )
    assert_close("features", "transposed convolution", ours, channels_last(theirs))


def attention_inputs(queries: int, keys: int) -> tuple[np.ndarray, ...]:
    return (
        noise(2, 1, queries, 2, 8),
        noise(2, 1, keys, 2, 8, seed=1),
        noise(2, 1, keys, 2, 8, seed=2),
    )


def torch_attention(inputs: tuple[np.ndarray, ...]) -> torch.Tensor:
    heads_first = (to_torch(x[:, 0].swapaxes(1, 2)) for x in inputs)
    return F.scaled_dot_product_attention(*heads_first).transpose(1, 2)


@pytest.mark.parametrize(("queries", "keys"), [(5, 9), (512, 512), (768, 1100), (1100, 1024), (2048, 2048)])
def test_attention_equals_torch_as_the_platform_chooses(queries: int, keys: int) -> None:
    inputs = attention_inputs(queries, keys)
    ours, _ = jax.jit(attend)(*inputs)
    assert_close("features", "attention", ours[:, 0], torch_attention(inputs))


@pytest.mark.parametrize("implementation", ["plain", "chunked"])
@pytest.mark.parametrize("platform", ["cpu", "accelerator"])
def test_every_implementation_of_attention_agrees(implementation: str, platform: str) -> None:
    inputs = attention_inputs(2048, 1024)
    with tracing_for(platform):  # which sets the chunk, and whether heads go one by one
        ours = jax.jit(lambda q, *x: IMPLEMENTATIONS[implementation](q / 8**0.5, *x))(*inputs)
    assert_close("features", f"attention, {implementation}", ours[:, 0], torch_attention(inputs))


@pytest.mark.parametrize(("platform", "scores"), [("cpu", 0), ("accelerator", 2**23), ("accelerator", 2**17)])
def test_values_may_be_narrower_and_keys_hidden(
    platform: str, scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_SCORES_PER_STEP", scores)  # at most at once, on an accelerator
    query, key, value = attention_inputs(2048, 1100)
    bias = np.zeros((2, 1, 1, 1, 1100), np.float32)
    bias[0, ..., 700:], bias[1, ..., :100] = -1e30, -1e30
    with tracing_for(platform):
        ours = jax.jit(lambda *x: attend(*x)[0])(query, key, value[..., :4], bias)
    heads_first = (to_torch(x[:, 0].swapaxes(1, 2)) for x in (query, key, value[..., :4]))
    theirs = F.scaled_dot_product_attention(*heads_first, attn_mask=to_torch(bias[:, 0])).transpose(1, 2)
    assert_close("features", "attention, narrow values, hidden keys", ours[:, 0], theirs)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN's attention needs an NVIDIA GPU")
def test_attention_of_cudnn_agrees() -> None:
    inputs = tuple(jnp.asarray(x, jnp.bfloat16) for x in attention_inputs(2048, 2048))
    plain, cudnn = (IMPLEMENTATIONS[name](*inputs).astype(jnp.float32) for name in ("plain", "cudnn"))
    np.testing.assert_allclose(cudnn, plain, atol=0.02)


@pytest.mark.parametrize(
    ("platform", "dtype", "tokens", "width", "expected"),
    [
        ("cpu", jnp.float32, 4096, 96, "chunked"),
        ("cpu", jnp.bfloat16, 4096, 96, "chunked"),
        ("cpu", jnp.float32, 196, 96, "plain"),  # a window
        ("cpu", jnp.float32, 4100, 96, "plain"),  # no whole number of chunks
        ("cuda", jnp.bfloat16, 4096, 96, "cudnn"),
        ("cuda", jnp.bfloat16, 4096, 56, "cudnn"),
        ("cuda", jnp.bfloat16, 4096, 72, "cudnn"),
        ("cuda", jnp.bfloat16, 4096, 20, "chunked"),  # not divisible by 8
        ("cuda", jnp.bfloat16, 4096, 136, "chunked"),  # too wide
        ("cuda", jnp.float32, 4096, 96, "chunked"),
        ("cuda", jnp.bfloat16, 196, 96, "cudnn"),  # a window of 14 x 14
        ("cuda", jnp.bfloat16, 64, 96, "plain"),  # and one of 8 x 8
        ("cuda", jnp.float32, 196, 96, "plain"),
        ("tpu", jnp.bfloat16, 4096, 96, "flash"),
        ("tpu", jnp.bfloat16, 196, 96, "plain"),
    ],
)
def test_choice_of_attention(
    platform: str, dtype: Any, tokens: int, width: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_has_cudnn", lambda: True)
    x = jax.ShapeDtypeStruct((1, 1, tokens, 4, width), dtype)
    assert best_implementation(x, x, platform) == expected
    monkeypatch.setattr(layers, "_has_cudnn", lambda: False)
    without = "plain" if tokens < 1024 else "chunked"
    assert best_implementation(x, x, platform) == expected.replace("cudnn", without)


def test_fourier_embedding_equals_transformers(pair: Pair) -> None:
    positions = np.random.default_rng(3).uniform(-0.1, 1.1, (2, 3, 4, 2)).astype(np.float32)
    ours = pair.ours.module.bind({"params": pair.ours.params}).shared_image_embedding
    theirs = pair.theirs.shared_image_embedding
    assert_close("tokens", "Fourier features", ours(positions), theirs(to_torch(positions)))
    grid = np.moveaxis(np.asarray(ours.grid(8, 8)), -1, 1)
    assert_close("features", "Fourier grid", grid, pair.theirs.get_image_wide_positional_embeddings())
