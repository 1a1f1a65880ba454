"""A decoder made smaller does the same wherever what is left out did nothing."""

import numpy as np
import pytest

from benchmarks.smaller_decoder import narrow_attention, narrow_layer

HEADS, WIDTH = 2, 10


def random_attention(rank: int, inner: int) -> dict[str, np.ndarray]:
    """Attention whose heads have `inner / HEADS` channels, and only so many of them in use."""
    rng = np.random.default_rng(0)
    size = inner // HEADS

    def mixed(rows: int) -> np.ndarray:
        return np.concatenate([rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, size))] * HEADS, axis=1)

    flat = {"a.o_proj.kernel": rng.normal(size=(inner, WIDTH)), "a.o_proj.bias": rng.normal(size=WIDTH)}
    for x in "qkv":
        joined = mixed(WIDTH + 1)
        flat |= {f"a.{x}_proj.kernel": joined[:-1], f"a.{x}_proj.bias": joined[-1]}
    return flat


def attend(flat: dict[str, np.ndarray], tokens: np.ndarray, image: np.ndarray) -> np.ndarray:
    """What the attention makes of tokens [T, C] that attend to an image [K, C]."""

    def heads(x: np.ndarray, name: str) -> np.ndarray:
        projected = x @ flat[f"a.{name}_proj.kernel"] + flat[f"a.{name}_proj.bias"]
        return projected.reshape(len(x), HEADS, -1)

    query, key, value = heads(tokens, "q"), heads(image, "k"), heads(image, "v")
    scores = np.exp(np.einsum("qhd,khd->hqk", query, key) / query.shape[-1] ** 0.5)
    weights = scores / scores.sum(axis=-1, keepdims=True)
    out = np.einsum("hqk,khd->qhd", weights, value).reshape(len(tokens), -1)
    return out @ flat["a.o_proj.kernel"] + flat["a.o_proj.bias"]


@pytest.mark.parametrize("rank", [2, 3])
def test_attention_of_low_rank_loses_nothing_with_its_idle_channels(rank: int) -> None:
    rng = np.random.default_rng(1)
    tokens, image = rng.normal(size=(3, WIDTH)) / 10, rng.normal(size=(7, WIDTH)) / 10
    flat = random_attention(rank, 12)
    narrow = flat | narrow_attention(flat, "a", HEADS, HEADS * rank)
    assert narrow["a.q_proj.kernel"].shape == (WIDTH, HEADS * rank)
    assert narrow["a.o_proj.kernel"].shape == (HEADS * rank, WIDTH)
    np.testing.assert_allclose(attend(narrow, tokens, image), attend(flat, tokens, image), atol=1e-9)


def test_neurons_that_say_what_others_say_or_nothing_are_not_missed() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(400, 5))
    flat = {
        "first.kernel": rng.normal(size=(5, 6)),
        "first.bias": rng.normal(size=6),
        "second.kernel": rng.normal(size=(6, 4)),
        "second.bias": rng.normal(size=4),
    }
    flat["first.kernel"][:, 3] = 0.1 * flat["first.kernel"][:, 1]  # the same at a tenth
    flat["first.bias"][3] = 0.1 * flat["first.bias"][1]
    flat["first.kernel"][:, 4], flat["first.bias"][4] = 0, 2  # always 2
    flat["second.kernel"][3] *= 0.1

    def run(flat: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        hidden = np.maximum(x @ flat["first.kernel"] + flat["first.bias"], 0)
        return hidden @ flat["second.kernel"] + flat["second.bias"]

    hidden = np.maximum(x @ flat["first.kernel"] + flat["first.bias"], 0)
    narrow = narrow_layer(flat, "first", "second", hidden, 4)
    assert narrow["first.kernel"].shape == (5, 4)
    assert narrow["second.kernel"].shape == (4, 4)
    other = rng.normal(size=(50, 5))
    # The ridge that keeps the fit sound takes a little of it.
    np.testing.assert_allclose(run(narrow, other), run(flat, other), atol=0.03)
