"""Large maps run strip by strip: the same numbers, recorded or not, and with gradients."""

import jax
import numpy as np
import pytest
from small_models import random_tensors, smallest_config
from tolerances import relative_error

from sam2_jax.checkpoint import names
from sam2_jax.model import hiera
from sam2_jax.model.sam2 import Sam2


def test_strips_change_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    config = smallest_config((512, 576))
    module = Sam2(config)
    params = names.unflatten(names.to_flax(random_tensors(config)))
    pixels = np.random.default_rng(0).standard_normal((2, *config.image_size, 3)).astype(np.float32)
    runs = []
    in_strips = hiera._in_strips
    monkeypatch.setattr(hiera, "_in_strips", lambda *args: (runs.append(args[0].name), in_strips(*args))[1])

    def encode(params: dict) -> tuple[jax.Array, ...]:
        return module.apply({"params": params}, pixels, method="encode_image")

    def loss(params: dict) -> jax.Array:
        return sum((x**2).mean() for x in encode(params))

    strips = jax.jit(encode)(params), jax.jit(jax.grad(loss))(params)
    assert set(runs) == {"blocks_0", "blocks_1"}
    monkeypatch.setattr(hiera, "_LARGE_MAP", 10**9)
    whole = jax.jit(lambda p: encode(p))(params), jax.jit(jax.grad(lambda p: loss(p)))(params)
    for a, b in zip(jax.tree.leaves(strips[0]), jax.tree.leaves(whole[0]), strict=True):
        assert relative_error(a, b) < 1e-6
    left, right = names.flatten(strips[1]), names.flatten(whole[1])
    for name, gradient in left.items():
        np.testing.assert_allclose(gradient, right[name], atol=1e-5 * np.abs(right[name]).max() + 1e-7)
