"""The re-associated attention between tokens and image equals the plain form, which is written out here."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import relative_error

from sam2_jax.model.two_way_transformer import ImageToTokenAttention, Projection, TokenToImageAttention
from sam2_jax.model.upscaling import from_sub_pixels, to_sub_pixels

HEADS, WIDTH, INNER = 4, 32, 16
TOKENS, POSITIONS = 6, 50


def noise(*shape: int, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.fixture
def params() -> dict[str, Any]:
    """Projections with biases, none of them zero, so that a term left out shows."""
    shapes = {"q_proj": (WIDTH, INNER), "k_proj": (WIDTH, INNER), "v_proj": (WIDTH, INNER)}
    shapes["o_proj"] = (INNER, WIDTH)
    return {
        name: {"kernel": 0.3 * noise(*shape, seed=i), "bias": noise(shape[1], seed=i + 10)}
        for i, (name, shape) in enumerate(shapes.items())
    }


def plain_attention(params: Any, query: Any, key: Any, value: Any, bias: Any) -> tuple[jax.Array, jax.Array]:
    """Multi-head attention as the paper has it: every projection carried out. Returns the weights too."""

    def heads(x: jax.Array, name: str) -> jax.Array:
        projected = x @ params[name]["kernel"] + params[name]["bias"].reshape(1, 1, 1, -1)
        return projected.reshape(*x.shape[:3], HEADS, -1)

    query, key, value = heads(query, "q_proj"), heads(key, "k_proj"), heads(value, "v_proj")
    scores = jnp.einsum("bpqhd,bpkhd->bphqk", query, key) / np.sqrt(INNER / HEADS)
    weights = jax.nn.softmax(scores + bias, axis=-1)
    out = jnp.einsum("bphqk,bpkhd->bpqhd", weights, value).reshape(*query.shape[:3], INNER)
    return out @ params["o_proj"]["kernel"] + params["o_proj"]["bias"].reshape(1, 1, 1, -1), weights


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize(("batch", "objects", "images"), [(1, 1, 1), (2, 3, 3), (2, 3, 1)])
def test_tokens_attend_to_the_image(
    params: Any, carried_out: bool, batch: int, objects: int, images: int
) -> None:
    tokens = noise(batch, objects, TOKENS, WIDTH, seed=1)
    keys, values = (noise(batch, images, POSITIONS, WIDTH, seed=s) for s in (2, 3))
    bias = noise(batch, objects, HEADS, TOKENS, POSITIONS, seed=4)

    def run(module: TokenToImageAttention) -> jax.Array:
        projections = module.projection("k_proj", keys), module.projection("v_proj", values)
        if carried_out:
            projections = tuple(Projection.of_carried_out(p.carried_out(), HEADS) for p in projections)
        return module(tokens, *projections, bias)

    module = TokenToImageAttention(HEADS, WIDTH, INNER)
    ours, recorded = module.apply({"params": params}, method=run, mutable=["attentions"])
    shared = [jnp.broadcast_to(x, (batch, objects, *x.shape[2:])) for x in (keys, values)]
    expected, weights = plain_attention(params, tokens, *shared, bias)
    assert relative_error(ours, expected) < 1e-6
    assert relative_error(recorded["attentions"]["weights"][0], weights) < 1e-6


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize(("batch", "objects", "images"), [(1, 1, 1), (2, 3, 3), (2, 3, 1)])
def test_the_image_attends_to_tokens(
    params: Any, carried_out: bool, batch: int, objects: int, images: int
) -> None:
    image = noise(batch, images, POSITIONS, WIDTH, seed=5)
    keys, values = (noise(batch, objects, TOKENS, WIDTH, seed=s) for s in (6, 7))
    visible = jnp.asarray(np.random.default_rng(8).random((batch, objects, 1, 1, TOKENS)) < 0.7)
    bias = jnp.where(visible.at[..., 0].set(True), 0.0, -jnp.inf)

    def run(module: ImageToTokenAttention) -> jax.Array:
        queries = module.projection("q_proj", image)
        if carried_out:
            queries = Projection.of_carried_out(queries.carried_out(), HEADS)
        return module(queries, keys, values, bias)

    module = ImageToTokenAttention(HEADS, WIDTH, INNER)
    ours, recorded = module.apply({"params": params}, method=run, mutable=["attentions"])
    shared = jnp.broadcast_to(image, (batch, objects, POSITIONS, WIDTH))
    expected, weights = plain_attention(params, shared, keys, values, bias)
    assert relative_error(ours, expected) < 1e-6
    assert relative_error(recorded["attentions"]["weights"][0], weights) < 1e-6


def test_sub_pixels_follow_their_coarse_position() -> None:
    rows, columns = np.mgrid[:8, :12]
    x = jnp.asarray(np.stack([rows, columns], axis=-1)[None])
    laid_out = to_sub_pixels(x, 2, 3)
    assert laid_out.shape == (1, 6, 16, 2)
    # The position in row 1, column 2; then its y1 = 1, x1 = 0, y2 = 0, x2 = 1.
    assert laid_out[0, 5, 0b1001].tolist() == [4 + 2, 8 + 1]
    np.testing.assert_array_equal(from_sub_pixels(laid_out, 2, 3), x)
