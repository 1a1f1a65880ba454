"""Rung 4: the two-way transformer after every layer, its attention, and the choice of one mask."""

import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("transformers", reason="parity needs transformers")

import jax
import jax.numpy as jnp
import numpy as np
from tolerances import assert_close

from parity.oracle import Pair, Steps, channels_last, our_steps, their_steps, to_torch
from sam2_jax.model.layers import gelu
from sam2_jax.model.mask_decoder import MaskDecoder, MaskPrediction
from sam2_jax.model.sam2 import ImageEmbeddings, Sam2
from sam2_jax.model.upscaling import from_sub_pixels, to_sub_pixels

POINTS = np.random.default_rng(4).uniform(0, 128, (2, 3, 2, 2)).astype(np.float32)
LABELS = np.array([[[1, 0], [2, 3], [1, -1]], [[1, 1], [0, 1], [2, 3]]])


@pytest.fixture(scope="module")
def embeddings(pair: Pair, pixels: np.ndarray) -> ImageEmbeddings:
    return pair.ours.get_image_embeddings(pixels)


@pytest.fixture(scope="module")
def theirs(pair: Pair, embeddings: ImageEmbeddings) -> Steps:
    return their_steps(pair.theirs, image_embeddings=embeddings, input_points=POINTS, input_labels=LABELS)


@pytest.fixture(scope="module")
def ours(pair: Pair, embeddings: ImageEmbeddings) -> Steps:
    return our_steps(pair.ours, "decode_masks", embeddings, POINTS, LABELS)


@pytest.mark.parametrize("layer", [0, 1])
def test_tokens_and_image_after_every_layer(ours: Steps, theirs: Steps, layer: int) -> None:
    name = f"mask_decoder.transformer.layers.{layer}"
    tokens, image = ours.outputs[name]
    expected_tokens, expected_image, _ = theirs.outputs[name]
    assert_close("tokens", f"two-way layer {layer}", tokens, expected_tokens)
    assert_close(
        "features", f"image after two-way layer {layer}", image.reshape(expected_image.shape), expected_image
    )


@pytest.mark.parametrize(
    "module",
    [
        f"layers.{layer}.{module}"
        for layer in (0, 1)
        for module in (
            "self_attn",
            "cross_attn_token_to_image",
            "mlp",
            "cross_attn_image_to_token",
            "layer_norm3",
        )
    ],
)
def test_modules_inside_a_layer(ours: Steps, theirs: Steps, module: str) -> None:
    name = f"mask_decoder.transformer.{module}"
    expected = theirs.outputs[name]
    expected = expected[0] if isinstance(expected, tuple) else expected
    kind = "features" if module.endswith("image_to_token") else "tokens"
    assert_close(kind, f"two-way {module}", ours.outputs[name].reshape(expected.shape), expected)


def test_tokens_after_the_last_attention(ours: Steps, theirs: Steps) -> None:
    name = "mask_decoder.transformer"
    assert_close("tokens", "two-way transformer", ours.outputs[name][0], theirs.outputs[name][0])


def test_attention_weights_of_every_attention(pair: Pair, ours: Steps, theirs: Steps) -> None:
    found = {name for name in theirs.attentions if name.startswith("mask_decoder.")}
    assert len(found) == 7  # two layers of three, and the last
    for name in found:
        weights = ours.attentions[name]
        weights = weights.reshape(-1, *weights.shape[2:])
        assert_close("attentions", name.removeprefix("mask_decoder."), weights, theirs.attentions[name])


def test_attentions_by_name_in_the_output(pair: Pair, embeddings: ImageEmbeddings, theirs: Steps) -> None:
    outputs = pair.ours(
        image_embeddings=embeddings, input_points=POINTS, input_labels=LABELS, output_attentions=True
    )
    assert len(outputs.mask_decoder_attentions) == 7
    for name, weights in outputs.mask_decoder_attentions.items():
        expected = theirs.attentions[f"mask_decoder.transformer.{name}"]
        assert_close("attentions", f"output {name}", weights.reshape(expected.shape), expected)


def test_upscaled_image(pair: Pair, theirs: Steps) -> None:
    image = np.asarray(theirs.outputs["mask_decoder.transformer"][1]).reshape(6, 64, 1, -1)
    normalised = channels_last(theirs.outputs["mask_decoder.upscale_layer_norm"])
    inputs = {"upscale_conv1": image, "upscale_conv2": to_sub_pixels(gelu(jnp.asarray(normalised)), 8, 8)}
    for conv, x in inputs.items():

        def upscale(module: Sam2, x: jax.Array, conv: str = conv) -> jax.Array:
            return getattr(module.mask_decoder, conv)(x)

        sub_pixels = pair.ours.module.apply({"params": pair.ours.params}, x, method=upscale)
        expected = channels_last(theirs.outputs[f"mask_decoder.{conv}"])
        assert_close("features", conv, from_sub_pixels(sub_pixels, 8, 8), expected)


def test_heads(ours: Steps, theirs: Steps) -> None:
    for i in range(4):
        name = f"mask_decoder.output_hypernetworks_mlps.{i}"
        assert_close("tokens", "hypernetworks", ours.outputs[name], theirs.outputs[name])


def test_all_mask_tokens_of_the_decoder(ours: Steps, theirs: Steps) -> None:
    _, _, expected, _ = theirs.outputs["mask_decoder"]
    assert_close("tokens", "mask tokens", ours.outputs["mask_decoder"].tokens[:, :, 1:], expected)


def logits_of_stability(above: int, between: int) -> np.ndarray:
    """A mask of 100 pixels: `above` beyond both thresholds, `between` beyond the lower one only."""
    return np.repeat(np.float32([1.0, 0.0, -1.0]), [above, between, 100 - above - between]).reshape(10, 10)


def test_the_one_mask_follows_stability_to_the_last_pixel(pair: Pair) -> None:
    # Stable, at the threshold of 0.98 exactly, just below it, unstable, and no pixel at all (0 / 0).
    first = [(50, 0), (98, 2), (97, 2), (10, 20), (0, 0)]
    stable = [True, True, False, False, True]
    rng = np.random.default_rng(8)
    masks = rng.standard_normal((1, 5, 4, 10, 10)).astype(np.float32)
    masks[0, :, 0] = [logits_of_stability(*counts) for counts in first]
    scores = rng.uniform(size=(1, 5, 4)).astype(np.float32)
    scores[0, 3] = [0.9, 0.5, 0.7, 0.7]  # a tie goes to the first; output 0 does not take part

    expected = pair.theirs.mask_decoder._dynamic_multimask_via_stability(to_torch(masks), to_torch(scores))
    decoder = MaskDecoder(pair.ours.config.mask_decoder_config)
    prediction = MaskPrediction(
        *map(jnp.asarray, (masks, scores, np.zeros((1, 5, 4, 32)), np.zeros((1, 5, 1))))
    )
    ours = jax.jit(lambda p: decoder.apply({}, p, False, method="select"))(prediction)
    np.testing.assert_array_equal(ours.masks, expected[0])
    np.testing.assert_array_equal(ours.iou_scores, expected[1])
    assert ((np.asarray(ours.masks) == masks[:, :, :1]).all(axis=(0, 2, 3, 4)) == stable).all()
