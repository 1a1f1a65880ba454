"""What the benchmarks count and write; the speed itself is measured by hand."""

from pathlib import Path

import pytest

from benchmarks.common import HEAD, Timing, measure, table, write_section
from benchmarks.flops import decoder_flops, encoder_flops
from sam2_jax import released_config


def test_flops_of_the_encoder_follow_the_blocks() -> None:
    tiny = released_config("facebook/sam2.1-hiera-tiny")
    assert encoder_flops(tiny) == pytest.approx(280.4e9, rel=1e-3)
    # Four times the tokens cost four times as much, but for global attention, of which it is sixteen times.
    half = encoder_flops(tiny.with_image_size(512))
    attention = 3 * 2 * 2 * 1024 * 1024 * 384
    assert encoder_flops(tiny) == 4 * half + (16 - 4) * attention


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


def test_a_section_replaces_itself_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    write_section("image cpu", "old\n", path)
    write_section("memory", "kept", path)
    write_section("image cpu", r"new \1", path)
    kept = "<!-- begin memory -->\nkept\n<!-- end memory -->\n"
    new = "<!-- begin image cpu -->\nnew \\1\n<!-- end image cpu -->\n"
    assert path.read_text() == f"{HEAD}\n{new}\n{kept}"
    assert list(tmp_path.iterdir()) == [path]
