"""JSON files: one sentence for whatever can be wrong with them."""

from pathlib import Path

import pytest

from sam2_jax.json_files import read_json, read_json_object, write_json


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "x.json", {"b": [1, None], "a": "é"})
    assert read_json_object(tmp_path / "a" / "x.json") == {"a": "é", "b": [1, None]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 200_000 + b"]" * 200_000, "nested too deep"),
        (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "nested too deep"),
        (b"1" * 5_000, "not valid JSON"),
        (b" " * (2**24 + 1), "of at most 16777216"),
        (b"[1]", r"must hold a JSON object; got \[1\]"),
    ],
    ids=range(8),
)
def test_broken_files_get_a_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_json_object(path, "write it again")
    assert str(path) in str(error.value)
    assert str(error.value).endswith("write it again")
    assert len(str(error.value)) < 400


def test_files_that_the_system_refuses_get_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "loop", tmp_path / ("n" * 300)):
        with pytest.raises(ValueError, match="cannot read"):
            read_json(path)
