"""Windows that stay apart run as tiles, on a CPU band by band: the same numbers, and the same gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import random_tensors, smallest_config
from tolerances import relative_error

from sam2_jax import released_config
from sam2_jax.checkpoint import names
from sam2_jax.model import hiera
from sam2_jax.model.hiera import Hiera, Run, windowed_runs
from sam2_jax.model.sam2 import Sam2


def test_runs_of_the_released_sizes() -> None:
    found: list[list[Run]] = []

    def runs(size: str) -> list[Run]:
        config = released_config(f"facebook/sam2.1-hiera-{size}").vision_config.backbone_config
        backbone, pixels = Hiera(config), jnp.zeros((1, 32, 32, 3))
        jax.eval_shape(
            lambda: backbone.init(jax.random.key(0), pixels, method=lambda m, _: found.append(list(m.runs)))
        )
        return found.pop()

    glob = [Run(i, i + 1, 0) for i in (5, 7, 9)]
    windows = [Run(i, i + 1, 14) for i in (4, 6, 8)]
    assert runs("tiny") == [Run(0, 4, 8), *sorted(glob + windows), Run(10, 12, 14)]
    large = [Run(0, 9, 8), Run(9, 23, 16), Run(23, 24, 0), Run(24, 33, 16), Run(33, 34, 0)]
    assert runs("large") == [*large, Run(34, 43, 16), Run(43, 44, 0), Run(44, 48, 16)]


def test_a_run_ends_where_a_window_is_not_what_pooling_left() -> None:
    assert windowed_runs([8, 8, 4, 2], [False, True, False, True]) == [Run(0, 3, 8), Run(3, 4, 2)]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_tiles_and_bands_change_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    config = smallest_config((128, 192))
    module = Sam2(config)
    params = names.unflatten(names.to_flax(random_tensors(config)))
    pixels = np.random.default_rng(0).standard_normal((2, *config.image_size, 3)).astype(np.float32)

    def encode(params: dict) -> tuple[jax.Array, ...]:
        return module.apply({"params": params}, pixels, method="encode_image")

    def loss(params: dict) -> jax.Array:
        return sum((x**2).mean() for x in encode(params))

    bands: list[int] = []
    of_maps = hiera._bands
    monkeypatch.setattr(hiera, "_BAND_TOKENS", 1600)
    monkeypatch.setattr(hiera, "_bands", lambda *args: (bands.append(of_maps(*args)), bands[-1])[1])
    in_bands = jax.jit(encode)(params), jax.jit(jax.grad(loss))(params)
    assert set(bands) == {2}, "4 rows of 6 windows of 64 tokens in each of 2 images, 2 rows at a time"
    monkeypatch.setattr(Hiera, "_is_tiled", lambda *_: False)
    whole = jax.jit(lambda p: encode(p))(params), jax.jit(jax.grad(lambda p: loss(p)))(params)
    for a, b in zip(jax.tree.leaves(in_bands[0]), jax.tree.leaves(whole[0]), strict=True):
        assert relative_error(a, b) < 1e-6
    left, right = names.flatten(in_bands[1]), names.flatten(whole[1])
    for name, gradient in left.items():
        np.testing.assert_allclose(gradient, right[name], atol=1e-5 * np.abs(right[name]).max() + 1e-7)


def test_any_map_of_whole_windows_is_cut_into_equal_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiera, "_BAND_TOKENS", 4096)
    assert hiera._bands(1, 256, 256, 8) == 16
    assert hiera._bands(1, 264, 264, 8) == 33
    assert hiera._bands(4, 256, 256, 8) == 32  # each a row of windows, of all images
    assert hiera._bands(1, 64, 64, 64) == 1
    assert hiera._bands(1, 200, 100, 100) == 2  # a row of windows beyond the size is a band of its own
