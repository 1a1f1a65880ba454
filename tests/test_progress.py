"""Progress in logs: lines, few of them, and no carriage returns."""

import time

import pytest

from sam2_jax.progress import progress_bar


def test_a_log_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(total=200, desc="photos", unit="photo") as bar:
        for number in range(200):
            with progress_bar(total=4, desc="masks", unit="point", leave=None) as inner:
                inner.update(4)
            bar.set_postfix(masks=number + 1, refresh=False)
            bar.update()
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("photos: 0/200")
    assert last.startswith("photos: 200/200")
    assert last.endswith("masks=200")
    assert "\r" not in first + last


def test_a_log_says_nothing_of_the_time_left_where_it_is_not_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(progress_bar(iter(range(3)), desc="evaluating", unit="picture")) == [0, 1, 2]
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("evaluating: 0 after")
    assert last.startswith("evaluating: 3 after")
    assert "left" not in first + last


def test_an_inner_bar_that_takes_long_is_a_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sam2_jax.progress._SECONDS_BETWEEN_LINES", 0.01)
    with (
        progress_bar(total=2, desc="photos"),
        progress_bar(total=4, desc="masks", leave=None) as inner,
    ):
        time.sleep(0.02)
        inner.update(4)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" after")[0] for line in lines] == ["photos: 0/2", "masks: 4/4", "photos: 0/2"]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(progress_bar(range(3), desc="photos")) == [0, 1, 2]
    assert "\rphotos: 100%|" in capsys.readouterr().err


def test_nothing_if_it_is_not_to_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress_bar(range(3), show=False)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
