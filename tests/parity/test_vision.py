"""Rung 2: the vision encoder, step by step: patches, positions, every block, the pyramid."""

import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("transformers", reason="parity needs transformers")

import jax
import numpy as np
from tolerances import assert_close

from parity.oracle import Pair, Steps, channels_last, their_steps
from sam2_jax import Sam2ImageSegmentationOutput
from sam2_jax.model.sam2 import Sam2

BACKBONE = "vision_encoder.backbone"


@pytest.fixture(scope="module")
def theirs(pair: Pair, pixels: np.ndarray) -> Steps:
    return their_steps(pair.theirs, pixel_values=pixels)


@pytest.fixture(scope="module")
def ours(pair: Pair, pixels: np.ndarray) -> Sam2ImageSegmentationOutput:
    return pair.ours(pixels, output_hidden_states=True, output_attentions=True)


def test_patch_embedding(pair: Pair, pixels: np.ndarray, theirs: Steps) -> None:
    def patches(module: Sam2, x: jax.Array) -> jax.Array:
        return module.vision_encoder.backbone.patch_embed(x)

    embedded = pair.ours.module.apply({"params": pair.ours.params}, pixels, method=patches)
    assert_close("features", "patch embedding", embedded, theirs.outputs[f"{BACKBONE}.patch_embed"])


@pytest.mark.parametrize("size", [(32, 32), (16, 24), (256, 256)])
def test_positional_embedding(pair: Pair, size: tuple[int, int]) -> None:
    def positions(module: Sam2) -> jax.Array:
        return module.vision_encoder.backbone.positions(*size)

    embedded = pair.ours.module.apply({"params": pair.ours.params}, method=positions)
    expected = pair.theirs.vision_encoder.backbone._get_pos_embed(size).detach()
    assert_close("features", "positional embedding", embedded, expected)


def test_every_block_and_its_input(pair: Pair, ours: Sam2ImageSegmentationOutput, theirs: Steps) -> None:
    blocks = len(pair.theirs.vision_encoder.backbone.blocks)
    before, *after = ours.vision_hidden_states
    assert len(after) == blocks == 8
    first = theirs.outputs[f"{BACKBONE}.patch_embed"] + pair.theirs.vision_encoder.backbone._get_pos_embed(
        (32, 32)
    )
    assert_close("features", "input of block 0", before, first.detach())
    for i, hidden in enumerate(after):
        assert_close("features", f"block {i}", hidden, theirs.outputs[f"{BACKBONE}.blocks.{i}"])


def test_defect_9a7_attentions_are_the_weights_of_every_block(
    ours: Sam2ImageSegmentationOutput, theirs: Steps
) -> None:
    assert len(ours.vision_attentions) == 8
    for i, weights in enumerate(ours.vision_attentions):
        expected = theirs.attentions[f"{BACKBONE}.blocks.{i}.attn"]
        batch, windows, *rest = weights.shape
        assert_close("attentions", f"block {i}", weights.reshape(batch * windows, *rest), expected)


def test_stages_and_pyramid_levels(pair: Pair, pixels: np.ndarray, theirs: Steps) -> None:
    def encode(module: Sam2, x: jax.Array) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        stages = module.vision_encoder.backbone(x)
        return stages, module.vision_encoder.neck(stages)

    stages, levels = jax.jit(
        lambda x: pair.ours.module.apply({"params": pair.ours.params}, x, method=encode)
    )(pixels)
    expected = theirs.outputs[BACKBONE].intermediate_hidden_states
    for i, (stage, wanted) in enumerate(zip(stages, expected, strict=True)):
        assert_close("features", f"stage {i}", stage, wanted)
    pyramid = theirs.outputs["vision_encoder.neck"][0]  # from the deepest level, which nobody reads, up
    for i, (level, wanted) in enumerate(zip(levels, reversed(pyramid[1:]), strict=True)):
        assert_close("features", f"pyramid level {i}", level, channels_last(wanted))


def test_image_embeddings(ours: Sam2ImageSegmentationOutput, theirs: Steps) -> None:
    expected = theirs.outputs[""].image_embeddings
    for i, (level, wanted) in enumerate(zip(ours.image_embeddings, expected, strict=True)):
        assert_close("features", f"image embedding {i}", level, channels_last(wanted))
