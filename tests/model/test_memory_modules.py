"""Memory attention, memory encoder, pointers and their positions equal the references' on small networks."""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import assert_close
from video_references import load, pixels

from sam2_jax.model import memory_attention, memory_encoder
from sam2_jax.model.memory_attention import Memories
from sam2_jax.model.platforms import tracing_for
from sam2_jax.model.positions import rotary_table, sine_offsets, sine_positions
from sam2_jax.model.sam2_video import Sam2Video

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")
CHANNELS = 64
TOKENS = 64


@pytest.fixture(scope="module", params=["pub20", "pub21"])
def network(request: pytest.FixtureRequest, reference_dir: Path) -> tuple[nn.Module, Any, Any]:
    """A bound network and the outputs of the reference."""
    folder = reference_dir / "reference" / "video"
    config, params = load(folder, request.param)
    return Sam2Video(config), params, np.load(folder / f"modules_{request.param}.npz")


def call(network: tuple[nn.Module, Any, Any], method: Any, *inputs: Any) -> Any:
    module, params, _ = network
    return jax.jit(lambda params, *inputs: module.apply({"params": params}, *inputs, method=method))(
        params, *inputs
    )


def memories(expected: Any, name: str) -> Memories:
    """What a test of the reference remembers; slots that are not valid lie before it and between."""
    slots = int(name.split("_")[1])
    memory, places = expected[f"{name}/memory"], expected[f"{name}/memory_positions"]
    sines = np.asarray(sine_positions(8, 8, CHANNELS)).reshape(1, TOKENS, CHANNELS)
    spatial = memory[: slots * TOKENS].reshape(slots, TOKENS, CHANNELS)
    offsets = places[: slots * TOKENS].reshape(slots, TOKENS, CHANNELS) - sines
    pointers, pointer_offsets = memory[slots * TOKENS :], places[slots * TOKENS :]

    def spread(x: np.ndarray, fill: float) -> np.ndarray:
        for place in (0, len(x) // 2 + 1)[: 1 + (len(x) > 0)]:
            x = np.insert(x, place, fill, axis=0)
        return x[None]

    return Memories(
        *(spread(x, 3.0) for x in (spatial, offsets)),
        spread(np.ones(slots, bool), False),
        *(spread(x, -2.0) for x in (pointers, pointer_offsets)),
        spread(np.ones(len(pointers), bool), False),
    )


def attend(module: Sam2Video, x: jax.Array, memories: Memories) -> jax.Array:
    tokens, query = module.memory_attention.prepare(x.reshape(1, 8, 8, -1))
    return module.memory_attention(tokens, query, memories, (8, 8))[0]


ATTENTIONS = ("attention_7_16", "attention_1_1", "attention_3_0")


@pytest.mark.parametrize("platform", ["cpu", "accelerator"])
def test_memory_attention(network: Any, platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All slots at once and slot by slot, as large maps are taken on a CPU; hidden slots change nothing."""
    monkeypatch.setattr(memory_attention, "_LARGE_MAP", 1)
    _, _, expected = network
    for name in ATTENTIONS[: 1 if f"{ATTENTIONS[1]}/x" not in expected else None]:
        with tracing_for(platform):
            out = call(network, attend, expected[f"{name}/x"], memories(expected, name))
        assert_close("features", f"memory attention, {platform}", out, expected[f"{name}/out"])


@pytest.mark.slow
def test_memory_attention_has_gradients_everywhere(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same slot by slot, where slots that are not valid are left out, as of all at once."""
    monkeypatch.setattr(memory_attention, "_LARGE_MAP", 1)
    module, params, expected = network
    x, seen = jnp.asarray(expected["attention_7_16/x"]), memories(expected, "attention_7_16")

    def loss(x: jax.Array, spatial: jax.Array) -> jax.Array:
        out = module.apply({"params": params}, x, seen._replace(spatial=spatial), method=attend)
        return jnp.square(out[:, ::3]).sum()

    found = []
    for platform in ("cpu", "accelerator"):
        with tracing_for(platform):
            found.append(jax.jit(jax.grad(loss, (0, 1)))(x, seen.spatial))
    for one, other in zip(*found, strict=True):
        assert_close("gradients", "memory attention, slot by slot", one, other)
    assert not np.asarray(found[0][1][0, 0]).any(), "of a slot that is not valid"


def test_objects_at_once_are_each_alone(network: Any) -> None:
    _, _, expected = network
    one = memories(expected, "attention_7_16")
    hidden = one._replace(valid=one.valid & (np.arange(9) != 3))
    nothing = one._replace(valid=one.valid & False, pointer_valid=one.pointer_valid & False)
    several = [one, hidden, nothing]
    both = Memories(*(np.concatenate(parts) for parts in zip(*several, strict=True)))
    x = expected["attention_7_16/x"]

    def attend_all(module: Sam2Video, x: jax.Array, memories: Memories) -> jax.Array:
        return module.memory_attention(
            *module.memory_attention.prepare(x.reshape(1, 8, 8, -1)), memories, (8, 8)
        )

    found = call(network, attend_all, x, both)
    assert np.isfinite(found).all()
    for i, alone in enumerate(several):
        assert_close("features", "memory attention, objects", found[i], call(network, attend, x, alone))


@pytest.mark.parametrize("platform", ["cpu", "accelerator"])
def test_memory_encoder(network: Any, platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_encoder, "_LARGE_MAP", 1)
    monkeypatch.setattr(memory_encoder, "_ROWS_PER_STEP", 3)  # of 8 rows two at a time
    _, _, expected = network

    def encode(module: Sam2Video, features: jax.Array, masks: jax.Array) -> Any:
        encoder = module.memory_encoder
        return encoder.mask_downsampler(masks[..., None]), encoder(encoder.project(features), masks)

    with tracing_for(platform):
        down, out = call(network, encode, expected["encoder/features"], expected["encoder/masks"])
    assert_close("features", "mask downsampler", down, expected["encoder/downsampled"])
    assert_close("features", "memory encoder", out, expected["encoder/out"])


def test_pointers_and_mask_prompts(network: Any) -> None:
    _, _, expected = network

    def parts(module: Sam2Video, tokens: jax.Array, mask: jax.Array) -> Any:
        return module.object_pointer_proj(tokens), module.mask_downsample(mask)

    mask = expected["mask_downsample/mask"][None, ..., None]
    pointers, small = call(network, parts, expected["pointer/tokens"], mask)
    assert_close("tokens", "object pointers", pointers, expected["pointer/out"])
    assert_close("features", "mask prompt, shrunk", small[0, ..., 0], expected["mask_downsample/out"])


def test_features_of_a_frame(network: Any, reference_dir: Path) -> None:
    _, _, expected = network
    frame = pixels(reference_dir / "reference" / "video", "a128")[:1]
    levels = call(network, Sam2Video.encode_frame, frame)[:3]
    for i, level in enumerate(levels):
        if f"features_{i}" in expected:
            assert_close("features", "frame", level[0], expected[f"features_{i}"])


def test_positions(network: Any) -> None:
    """In space, of turning and in time."""
    _, _, expected = network
    for channels, name in ((128, "positions"), (CHANNELS, "encoder/positions")):
        assert_close("features", "positions", sine_positions(8, 8, channels)[0], expected[name])
    for table, name in zip(rotary_table(8, 8, 128, 10000.0), ("cos", "sin"), strict=True):
        assert_close("features", "rotary table", np.repeat(table, 2, -1), expected[f"rotary_{name}"])
    for largest in (15, 7):
        sines = sine_offsets(jnp.asarray(expected["pointer_distances"]) / largest, 128)
        assert_close("features", "distances", sines, expected[f"pointer_sine_{largest}"])
        if f"pointer_positions_{largest}" in expected:
            projected = call(
                network, lambda module, x: module.temporal_positional_encoding_projection_layer(x), sines
            )
            assert_close("features", "distances", projected, expected[f"pointer_positions_{largest}"])


@pytest.mark.slow
def test_bfloat16_follows_float32(network: Any) -> None:
    """Computed in bfloat16 with float32 where the policy says so, all comes out within its rounding."""
    module, params, expected = network
    half = module.clone(dtype=jnp.bfloat16)
    x, seen = expected["attention_7_16/x"], memories(expected, "attention_7_16")
    features, masks = expected["encoder/features"][:1], expected["encoder/masks"][:1]

    def both(module: Sam2Video, x: jax.Array, seen: Memories) -> Any:
        encoder = module.memory_encoder
        return attend(module, x, seen), encoder(encoder.project(features), masks)

    for name, found, wanted in zip(
        ("attention", "encoder"),
        call((half, params, None), both, x, seen),
        call(network, both, x, seen),
        strict=True,
    ):
        assert found.dtype == jnp.bfloat16
        error = np.linalg.norm(found.astype(jnp.float32) - wanted) / np.linalg.norm(wanted)
        assert error < 0.02, (name, error)
