"""What is trained and how it moves: splits by name, low-rank updates, layer scales, schedule, optimiser."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_models import random_tensors, smallest_config

from sam2_jax.checkpoint import names
from sam2_jax.training.optimizer import (
    Layout,
    OptimizerOptions,
    is_skipped,
    layer_scale,
    learning_rate_schedule,
    make_optimizer,
)
from sam2_jax.training.parameters import merge_parameters, split_parameters

FLAT = names.to_flax(random_tensors(smallest_config()))
PARAMS = names.unflatten(FLAT)
# Two matrices of unequal sides.
QKV = "vision_encoder.backbone.blocks_1.attn.qkv.kernel"
MLP = "vision_encoder.backbone.blocks_1.mlp.proj_in.kernel"


def test_patterns_choose_what_is_trained_and_the_rest_stays() -> None:
    split = split_parameters(PARAMS, ["mask_decoder.*", "*.neck.convs_?.bias", "no_memory_embedding"])
    expected = {
        name
        for name in FLAT
        if name.startswith("mask_decoder.")
        or (name.startswith("vision_encoder.neck.") and name.endswith(".bias"))
        or name == "no_memory_embedding"
    }
    assert set(split.trained) == expected
    assert set(split.frozen) == set(FLAT) - expected
    for name, value in {**split.trained, **split.frozen}.items():
        assert value is FLAT[name]


def test_patterns_may_overlap() -> None:
    one = split_parameters(PARAMS, ["mask_decoder.*"])
    assert split_parameters(PARAMS, ["mask_decoder.*", "mask_decoder.conv_s0.*"]).trained == one.trained


def test_the_fourier_matrix_is_never_trained() -> None:
    split = split_parameters(PARAMS, ["*"])
    assert set(split.frozen) == {names.FOURIER}
    split = split_parameters(PARAMS, ["mask_decoder.conv_s0.*"], ["*positional_embedding", QKV])
    assert not any(name.startswith(names.FOURIER) for name in split.trained)
    for given in ({"trained": [names.FOURIER]}, {"trained": [], "lora": [names.FOURIER]}):
        with pytest.raises(ValueError, match="trained and lora name no parameters"):
            split_parameters(PARAMS, **given)


@pytest.mark.parametrize("parameter", ["trained", "lora"])
def test_a_pattern_that_fits_nothing_is_named_beside_what_there_is(parameter: str) -> None:
    given: dict[str, Any] = {"trained": [], "lora": [], parameter: ["decoder.*"]}
    with pytest.raises(ValueError, match=rf"{parameter} pattern 'decoder\.\*' fits no parameter") as error:
        split_parameters(PARAMS, **given)
    for part in ("mask_decoder.transformer", "prompt_encoder.point_embed", "vision_encoder.neck"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"trained": []}, "trained and lora name no parameters: give at least one pattern"),
        ({"trained": ["*.blocks_1.*"], "lora": [QKV]}, f"must not name the same parameters; both name {QKV}"),
        ({"trained": [], "lora": [QKV], "rank": 0}, "lora_rank must be at least 1; got 0"),
        (
            {"trained": [], "lora": ["*.blocks_1.attn.qkv.*"]},
            r"lora must name matrices; .*qkv.bias has shape \(48,\)",
        ),
        ({"trained": [], "lora": ["*.convs_0.kernel"]}, r"lora must name matrices; .* \(1, 1, 64, 16\)"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_parameters(PARAMS, **given)


def test_low_rank_factors_have_the_matrix_s_sides_and_the_rank() -> None:
    split = split_parameters(PARAMS, [], [QKV, MLP], rank=3)
    shapes = {
        f"{QKV}.lora_down": (8, 3),
        f"{QKV}.lora_up": (3, 48),
        f"{MLP}.lora_down": (16, 3),
        f"{MLP}.lora_up": (3, 64),
    }
    assert names.shapes(split.trained) == shapes
    assert set(split.frozen) == set(FLAT)


def test_what_was_split_is_merged_to_the_same_network() -> None:
    """Low-rank updates are zero at first."""
    split = split_parameters(PARAMS, ["mask_decoder.*"], [QKV, MLP])
    merged = merge_parameters(split.trained, split.frozen)
    assert jax.tree.structure(merged) == jax.tree.structure(PARAMS)
    for name, value in names.flatten(merged).items():
        np.testing.assert_array_equal(value, FLAT[name])


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_low_rank_updates_are_added_to_their_matrices_exactly(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    frozen = {"a.kernel": jnp.asarray(rng.integers(-8, 8, (4, 6)), dtype), "a.bias": jnp.ones(6, dtype)}
    down, up = (rng.integers(-3, 3, shape).astype(np.float32) for shape in ((4, 2), (2, 6)))
    trained = {"a.kernel.lora_down": jnp.asarray(down), "a.kernel.lora_up": jnp.asarray(up)}
    merged = merge_parameters(trained, frozen)["a"]
    assert set(merged) == {"kernel", "bias"}
    assert merged["kernel"].dtype == dtype
    expected = np.asarray(frozen["a.kernel"], np.float32) + down @ up
    np.testing.assert_array_equal(np.asarray(merged["kernel"], np.float32), expected)
    np.testing.assert_array_equal(merged["bias"], frozen["a.bias"])


def test_merging_leaves_what_it_is_given_as_it_is() -> None:
    split = split_parameters(PARAMS, ["mask_decoder.*"], [QKV])
    before = dict(split.trained), dict(split.frozen)
    merge_parameters(*split)
    assert split == before


def test_a_low_rank_update_learns_from_the_first_gradient() -> None:
    split = split_parameters(PARAMS, [], [QKV])
    frozen = {QKV: split.frozen[QKV]}

    def loss(trained: Any) -> jax.Array:
        return (names.flatten(merge_parameters(trained, frozen))[QKV] ** 2).sum()

    gradient = jax.jit(jax.grad(loss))(split.trained)
    assert gradient[f"{QKV}.lora_up"].all()
    assert not gradient[f"{QKV}.lora_down"].any()


def test_low_rank_factors_depend_on_the_seed_and_differ_between_matrices() -> None:
    same = "*.blocks_[34].attn.proj.kernel", "*.blocks_2.attn.proj.kernel"  # two of 32 x 32

    def factors(seed: int) -> dict[str, np.ndarray]:
        trained = split_parameters(PARAMS, [], same, seed=seed).trained
        return {name: np.asarray(value) for name, value in trained.items() if name.endswith("down")}

    one, again, other = factors(0), factors(0), factors(1)
    for name, factor in one.items():
        np.testing.assert_array_equal(factor, again[name])
        assert (factor != other[name]).all()
    two, three = (one[f"vision_encoder.backbone.blocks_{i}.attn.proj.kernel.lora_down"] for i in (2, 3))
    assert (two != three).all()


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("vision_encoder.backbone.patch_embed.projection.kernel", 0.5**13),
        ("vision_encoder.backbone.blocks_0.attn.qkv.kernel", 0.5**12),
        ("vision_encoder.backbone.blocks_1.layer_norm1.scale", 0.5**11),
        ("vision_encoder.backbone.blocks_10.mlp.proj_in.kernel.lora_up", 0.5**2),
        ("vision_encoder.backbone.blocks_11.proj.bias", 0.5),
        ("vision_encoder.backbone.pos_embed", 1),
        ("vision_encoder.backbone.pos_embed_window", 1),
        ("vision_encoder.neck.convs_0.kernel", 1),
        ("mask_decoder.transformer.layers_0.mlp.proj_in.kernel", 1),
        ("no_memory_embedding", 1),
    ],
)
def test_each_block_of_twelve_learns_half_as_fast_as_the_next(name: str, scale: float) -> None:
    assert layer_scale(name, blocks=12, decay=0.5) == scale


def test_the_names_of_a_network_s_blocks_are_scaled() -> None:
    blocks = {layer_scale(name, 5, 0.5) for name in FLAT if ".blocks_" in name}
    assert blocks == {0.5**5, 0.5**4, 0.5**3, 0.5**2, 0.5}


def rate(options: OptimizerOptions, steps: int, update: int) -> float:
    return float(learning_rate_schedule(options, steps)(update))


def test_the_learning_rate_rises_in_a_line_and_falls_by_a_cosine() -> None:
    options = OptimizerOptions(learning_rate=1, warmup_steps=10, final_share=0.2)
    rates = np.array([rate(options, 110, update) for update in range(111)])
    np.testing.assert_allclose(rates[:11], np.linspace(0.1, 1, 11), rtol=1e-6)
    cosine = 0.2 + 0.8 * (1 + np.cos(np.pi * np.arange(101) / 100)) / 2
    np.testing.assert_allclose(rates[10:], cosine, rtol=1e-5)


def test_without_warm_up_the_first_learning_rate_is_the_highest() -> None:
    options = OptimizerOptions(learning_rate=1, warmup_steps=0, final_share=0.2)
    assert rate(options, 50, 0) == 1
    assert rate(options, 50, 50) == pytest.approx(0.2)


def test_the_schedule_counts_updates_and_not_steps() -> None:
    options = OptimizerOptions(learning_rate=1, warmup_steps=5, final_share=0.2, accumulate=4)
    assert rate(options, 80, 5) == 1
    assert rate(options, 80, 20) == pytest.approx(0.2)


@pytest.mark.parametrize(("steps", "accumulate"), [(1, 1), (2, 1), (100, 1), (5, 8)])
def test_training_shorter_than_the_warm_up_has_a_schedule_that_ends(steps: int, accumulate: int) -> None:
    options = OptimizerOptions(learning_rate=1, warmup_steps=100, accumulate=accumulate)
    updates = max(steps // accumulate, 1)
    rates = [rate(options, steps, update) for update in range(updates + 1)]
    assert rates[updates - 1] == 1
    assert rates[-1] == pytest.approx(0.1)
    assert min(rates) > 0


# Few parameters of each kind that the optimiser tells apart, for programs that compile fast.
SMALL: dict[str, Any] = {
    "vision_encoder.backbone.blocks_0.mlp.proj_in.kernel": np.float32([[1, -2], [3, 4]]),
    "vision_encoder.backbone.blocks_1.layer_norm1.scale": np.float32([1, 2]),
    "vision_encoder.neck.convs_0.bias": np.float32([-1, 0.5]),
    "mask_decoder.iou_token.embedding": np.float32([[2, -1]]),
    "mask_decoder.transformer.q.kernel.lora_down": np.float32([[1], [2]]),
}
# Constant at its highest from the start.
STEADY = OptimizerOptions(learning_rate=0.01, warmup_steps=0, final_share=1, weight_decay=0, layer_decay=1)


class Descent:
    """Parameters that move by the gradients they are given."""

    def __init__(self, options: OptimizerOptions) -> None:
        self.params = dict(SMALL)
        self.layout = Layout(names.shapes(SMALL), 2, options.layer_decay)
        optimizer = make_optimizer(options, 100, self.layout)
        self.state = optimizer.init(self.layout.pack(SMALL))
        self.update = jax.jit(optimizer.update)

    def follow(self, gradient: dict[str, Any]) -> dict[str, np.ndarray]:
        """Do one step; returns by how much each parameter moved."""
        updates, self.state = self.update(
            self.layout.pack(gradient), self.state, self.layout.pack(self.params)
        )
        moved = {name: np.asarray(update) for name, update in self.layout.unpack(updates).items()}
        self.params = {name: value + moved[name] for name, value in self.params.items()}
        return moved


def gradient_of(seed: int, scale: float = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {n: (scale * rng.standard_normal(v.shape)).astype(np.float32) for n, v in SMALL.items()}


ZERO = gradient_of(0, scale=0)


def test_parameters_lie_side_by_side_with_those_that_move_alike() -> None:
    layout = Layout(names.shapes(SMALL), 2, 0.5)
    packed = layout.pack(SMALL)
    assert {tuple(group): len(vector) for group, vector in packed.items()} == {
        (0.25, True): 4,
        (0.5, False): 2,
        (1.0, False): 2,
        (1.0, True): 4,
    }
    unpacked = layout.unpack(packed)
    assert set(unpacked) == set(SMALL)
    for name, value in unpacked.items():
        np.testing.assert_array_equal(value, SMALL[name])


def test_vectors_move_as_parameters_would_one_by_one() -> None:
    """A reference made of optax: an optimiser of each parameter's own, of its own options."""
    options = OptimizerOptions(
        learning_rate=0.01, warmup_steps=2, weight_decay=0.3, layer_decay=0.5, clip_norm=0.5
    )
    rate = learning_rate_schedule(options, 100)
    decayed = {name: not name.endswith((".bias", ".scale")) for name in SMALL}
    one_by_one = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.adamw(rate, weight_decay=0.3, mask=decayed),
    )
    params: dict[str, Any] = dict(SMALL)
    state = one_by_one.init(params)
    update = jax.jit(one_by_one.update)
    descent = Descent(options)
    for step in range(4):
        updates, state = update(gradient_of(step), state, params)
        moved = descent.follow(gradient_of(step))
        for name, value in moved.items():
            expected = layer_scale(name, 2, 0.5) * updates[name]
            np.testing.assert_allclose(value, expected, rtol=2e-6)
        params = dict(descent.params)


def test_the_first_update_goes_against_the_gradient_by_the_learning_rate() -> None:
    gradient = gradient_of(1)
    for name, update in Descent(STEADY).follow(gradient).items():
        np.testing.assert_allclose(update, -0.01 * np.sign(gradient[name]), rtol=1e-4)


def test_weight_decay_leaves_biases_and_norm_scales_alone() -> None:
    moved = Descent(STEADY._replace(weight_decay=0.5)).follow(ZERO)
    for name, update in moved.items():
        is_spared = name.endswith((".bias", ".scale"))
        np.testing.assert_allclose(update, 0 * SMALL[name] if is_spared else -0.005 * SMALL[name], rtol=1e-6)


def test_blocks_learn_slower_the_earlier_they_are_and_decay_slower_too() -> None:
    gradient = gradient_of(1)
    # A decay that cancels no gradient: of what is left of two equal numbers, rounding is all.
    full = Descent(STEADY._replace(weight_decay=0.3)).follow(gradient)
    slower = Descent(STEADY._replace(weight_decay=0.3, layer_decay=0.5)).follow(gradient)
    for name, update in slower.items():
        share = {"blocks_0": 0.25, "blocks_1": 0.5}.get(name.split(".")[2], 1)
        np.testing.assert_allclose(update, share * full[name], rtol=1e-6)


@pytest.mark.parametrize(("scale", "clipped"), [(100, True), (1e-3, False)])
def test_only_gradients_longer_than_the_limit_are_shortened(scale: float, clipped: bool) -> None:
    descent = Descent(STEADY._replace(clip_norm=0.1))
    gradient = gradient_of(1, scale)
    descent.follow(gradient)
    seen = optax.tree.get(descent.state, "mu")  # a tenth of the first gradient
    expected = 0.1 * 0.1 if clipped else 0.1 * float(optax.tree.norm(gradient))
    assert float(optax.tree.norm(seen)) == pytest.approx(expected, rel=1e-5)


def test_accumulated_gradients_equal_those_of_one_large_batch() -> None:
    options = STEADY._replace(weight_decay=0.1)
    slow, fast = Descent(options._replace(accumulate=4)), Descent(options)
    for update in range(2):
        parts = [gradient_of(4 * update + part) for part in range(4)]
        for part in parts[:-1]:
            assert not any(moved.any() for moved in slow.follow(part).values())
        slow.follow(parts[-1])
        fast.follow({name: np.mean([part[name] for part in parts], axis=0) for name in SMALL})
        for name, value in slow.params.items():
            np.testing.assert_allclose(value, fast.params[name], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_gradient_that_is_not_finite_is_as_if_it_had_not_been(bad: float, accumulate: int) -> None:
    options = STEADY._replace(weight_decay=0.1, accumulate=accumulate)
    descent, other = Descent(options), Descent(options)
    assert not is_skipped(descent.state)
    for step in range(3):
        moved, expected = descent.follow(gradient_of(step)), other.follow(gradient_of(step))
        assert not is_skipped(descent.state)
        for name, update in moved.items():
            np.testing.assert_array_equal(update, expected[name])
        broken = gradient_of(10 + step)
        broken["mask_decoder.iou_token.embedding"][0, 1] = bad
        before = descent.params
        descent.follow(broken)
        assert is_skipped(descent.state)
        for name, value in descent.params.items():
            np.testing.assert_array_equal(value, before[name])
