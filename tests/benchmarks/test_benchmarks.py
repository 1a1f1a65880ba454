"""What the benchmarks count and write; the speed itself is measured by hand."""

import math
import re
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from benchmarks import common
from benchmarks.common import HEAD, Timing, measure, table, write_section
from benchmarks.flops import decoder_flops, encoder_flops, tracking_flops
from sam2_jax import released_config
from sam2_jax.config import released_video_config
from sam2_jax.model.memory_attention import Memories
from sam2_jax.model.platforms import tracing_for
from sam2_jax.model.sam2 import Sam2
from sam2_jax.model.sam2_video import Sam2Video


def test_flops_of_the_encoder_follow_the_blocks() -> None:
    tiny = released_config("facebook/sam2.1-hiera-tiny")
    assert encoder_flops(tiny) == pytest.approx(280.4e9, rel=1e-3)
    # Four times the tokens cost four times as much, but for global attention, of which it is sixteen times.
    half = encoder_flops(tiny.with_image_size(512))
    attention = 3 * 2 * 2 * 1024 * 1024 * 384
    assert encoder_flops(tiny) == 4 * half + (16 - 4) * attention


def test_flops_of_the_encoder_are_the_products_of_its_program() -> None:
    # At this size no window needs filling, so that nothing is multiplied in vain.
    config = released_config("facebook/sam2.1-hiera-tiny").with_image_size(896)
    module = Sam2(config)
    pixels = jax.ShapeDtypeStruct((1, 896, 896, 3), jnp.float32)
    points, labels = jnp.zeros((1, 1, 1, 2)), jnp.zeros((1, 1, 1), jnp.int32)
    params = jax.eval_shape(module.init, jax.random.key(0), pixels, points, labels)["params"]

    def encode(params: Any, pixels: Any) -> Any:
        with tracing_for("cpu"):
            return module.apply({"params": params}, pixels, method="encode_image")

    # Where queries are pooled, keys and values are not projected: (tokens, channels, features, heads, keys).
    spared = sum(
        4 * tokens * channels * features  # both projections
        - tokens * features * channels  # of queries, and of what they gather: a quarter as many, twice
        - tokens * keys * (heads * channels - features)  # scores and mixtures as wide as the inputs
        for tokens, channels, features, heads, keys in (
            (224**2, 96, 192, 2, 64),
            (112**2, 192, 384, 4, 16),
            (56**2, 384, 768, 8, 196),
        )
    )
    # The layers that narrow the finer levels are joined with the ones before them, which costs a little.
    assert product_flops(jax.make_jaxpr(encode)(params, pixels).jaxpr) == pytest.approx(
        encoder_flops(config) - spared, rel=1e-3
    )


def test_flops_of_tracking_are_the_products_of_its_program() -> None:
    config = released_video_config("facebook/sam2.1-hiera-tiny").with_image_size(256)
    module = Sam2Video(config)
    shape = jax.ShapeDtypeStruct
    params = jax.eval_shape(
        lambda key: module.init(key, jnp.zeros((1, 32, 32, 3)), method="every_step"), jax.random.key(0)
    )
    spatial, pointers = shape((1, 7, 256, 64), jnp.float32), shape((1, 64, 64), jnp.float32)
    rows, valid = shape((1, 7, 1, 64), jnp.float32), (shape((1, 7), bool), shape((1, 64), bool))
    memories = Memories(spatial, rows, valid[0], pointers, pointers, valid[1])

    def remember(module: Sam2Video, features: Any, memories: Memories, masks: Any) -> Any:
        attention, encoder = module.memory_attention, module.memory_encoder
        conditioned = attention(*attention.prepare(features), memories, (16, 16))
        return conditioned, encoder(encoder.project(features), masks)

    inputs = shape((1, 16, 16, 256), jnp.float32), memories, shape((1, 256, 256), jnp.float32)
    program = jax.make_jaxpr(lambda params, *inputs: module.apply(params, *inputs, method=remember))
    # Weights of values and outputs, and the values' bias, are multiplied with each other in each layer.
    of_weights = 4 * 2 * (64 + 1) * 256 * 256
    found = product_flops(program(params, *inputs).jaxpr) - of_weights
    assert found == tracking_flops(config, slots=7, pointers=16)


def product_flops(jaxpr: Any) -> int:
    """FLOP of all matrix products and convolutions, loops multiplied out."""
    total = 0
    for equation in jaxpr.eqns:
        inputs = [x.aval.shape for x in equation.invars if hasattr(x.aval, "shape")]
        size = math.prod(equation.outvars[0].aval.shape)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * size * math.prod(inputs[0][axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            total += 2 * size * math.prod(inputs[1]) // equation.outvars[0].aval.shape[-1]
        else:
            inner = sum(map(product_flops, jaxprs_in_params(equation.params)))
            total += equation.params.get("length", 1) * inner
    return total


def test_flops_of_the_decoder_grow_with_the_points() -> None:
    tiny = released_config("facebook/sam2.1-hiera-tiny")
    across, upscale = 2 * 4096 * 256 * 128, 4096 * 256 * 256 + 16384 * 64 * 128
    assert decoder_flops(tiny) == pytest.approx(2 * (5 * across + upscale), rel=0.06)
    assert decoder_flops(tiny, points=2) > decoder_flops(tiny)


def test_calls_take_turns_and_the_first_does_not_count() -> None:
    order: list[str] = []
    timings = measure({name: lambda name=name: order.append(name) for name in "ab"}, repeats=3)
    assert order == ["a", "b"] * 4
    assert [len(x.seconds) for x in timings.values()] == [3, 3]


def test_no_round_begins_after_the_budget() -> None:
    order: list[int] = []
    measure({"a": lambda: order.append(1)}, repeats=5, budget=0.0)
    assert len(order) == 2  # the one that does not count, and one


def test_cells_show_median_and_spread() -> None:
    timing = Timing(9.0, [0.3, 0.1, 0.2])
    assert timing.cell() == "0.200 (0.100 - 0.300)"
    assert timing.cell("ms") == "200.0 (100.0 - 300.0)"
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_commit_is_dirty_by_all_but_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, results = tmp_path / "code.py", tmp_path / "benchmarks" / "RESULTS.md"
    results.parent.mkdir()
    monkeypatch.setattr(common, "RESULTS", results)

    def write(path: Path, text: str) -> str:
        path.write_text(text)
        return common.commit()

    assert write(code, "1") == "unknown"
    results.write_text("1")
    for words in (
        ["init"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-m", "1"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True)
    clean = common.commit()
    assert re.fullmatch(r"[0-9a-f]{7,}", clean)
    assert write(results, "2") == clean
    assert write(code, "2") == f"{clean}-dirty"


def test_a_section_replaces_itself_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    write_section("image cpu", "old\n", path)
    write_section("memory", "kept", path)
    write_section("image cpu", r"new \1", path)
    kept = "<!-- begin memory -->\nkept\n<!-- end memory -->\n"
    new = "<!-- begin image cpu -->\nnew \\1\n<!-- end image cpu -->\n"
    assert path.read_text() == f"{HEAD}\n{new}\n{kept}"
    assert list(tmp_path.iterdir()) == [path]
