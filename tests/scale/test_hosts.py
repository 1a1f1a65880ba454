"""Several processes that share the work: together they write what one process writes."""

import os
import socket
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from small_models import model_of, smallest_config

from sam2_jax.commands import main
from sam2_jax.scale import hosts, initialize, share
from sam2_jax.scale.rows import read_rows, row_files

SCRIPT = Path(__file__).parent.parent / "one_of_several.py"

MANY = pytest.mark.skipif(
    "SAM2_JAX_MANY_PROCESSES" not in os.environ, reason="takes minutes: set SAM2_JAX_MANY_PROCESSES=1"
)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows(folder: Path) -> dict[str, Any]:
    found = list(read_rows(row_files(folder)))
    assert len({row["id"] for row in found}) == len(found)
    return {row["id"]: {**row, "seconds": None} for row in found}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, photos, one of them damaged, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("alone")
    model_of(smallest_config()).save_pretrained(folder / "model")
    (folder / "photos").mkdir()
    for i in range(5):
        photo = np.random.default_rng(i).integers(0, 256, (40 + 9 * i, 70, 3), np.uint8)
        Image.fromarray(photo).save(folder / "photos" / f"{i}.png")
    (folder / "photos" / "damaged.png").write_bytes(b"no picture")
    run(folder, folder / "out", 1)
    return folder


def run(folder: Path, out: Path, processes: int) -> list[str]:
    """Do the work in so many processes; returns what they say on stderr."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    coordinator = f"127.0.0.1:{free_port()}"
    joining = [[coordinator, str(processes), str(process)] for process in range(processes)]
    running = [
        subprocess.Popen(
            [sys.executable, SCRIPT, folder, out, *(words if processes > 1 else [])],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for words in joining
    ]
    said = [process.communicate()[1] for process in running]
    assert not any(process.returncode for process in running), said
    return said


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=MANY)])
def test_processes_together_write_what_one_writes(alone: Path, tmp_path: Path, processes: int) -> None:
    said = run(alone, tmp_path, processes)
    assert files(tmp_path / "files") == files(alone / "out" / "files")
    for kind, parts in (("rows", 6), ("prompted", 3)):  # of six photos, in batches of two
        assert rows(tmp_path / kind) == rows(alone / "out" / kind)
        assert len(row_files(tmp_path / kind)) == min(processes, parts)
    # The damaged photo is told of once, by the first process.
    assert ["damaged.png failed" in error for error in said] == [True] + [False] * (processes - 1)


def test_shares_are_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (1, 2, 3, 20):
        monkeypatch.setattr(jax, "process_count", lambda count=count: count)
        for block in (1, 4):
            shares = []
            for index in range(count):
                monkeypatch.setattr(jax, "process_index", lambda index=index: index)
                shares.append(list(share(range(11), block)))
            assert sorted(chain(*shares)) == list(range(11))
            assert len(shares[0]) - len(shares[-1]) <= block
            for own in shares:  # blocks are whole
                assert [i // block for i in own] == sorted(i // block for i in own)


def test_one_process_needs_no_others() -> None:
    assert list(share("abc")) == ["a", "b", "c"]
    assert hosts.gathered({"a": [1]}) == [{"a": [1]}]
    assert hosts.done_by_all(lambda: 5) == [5]


def test_what_is_wrong_in_one_process_is_said_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "gathered", lambda own: [own, [None, "cannot write /out: it is full"]])
    with pytest.raises(ValueError, match="process 1: cannot write /out: it is full"):
        hosts.done_by_all(lambda: 5)

    def fail() -> None:
        raise ValueError("this is our own")

    with pytest.raises(ValueError, match="this is our own"):
        hosts.done_by_all(fail)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("127.0.0.1:{port}", 2, 1),
            "the coordinator 127.0.0.1:{port} cannot be reached after 1 s: Connection",
        ),
        (("no.such.host.invalid:80", 2, 1), "the coordinator no.such.host.invalid:80 cannot be reached"),
        (
            ("127.0.0.1", 2, 0),
            "coordinator must be HOST:PORT, 10.0.0.1:1234 say, of process 0; got '127.0.0.1'",
        ),
        (("127.0.0.1:99999", 2, 0), "the coordinator's port must be a whole number from 1 to 65535"),
        (("127.0.0.1:80", 0, 0), "processes must be a whole number of at least 1"),
        (("127.0.0.1:80", 2, 2), "process must be a whole number from 0 to 1; got 2"),
        ((None, None, None), "JAX does not find which processes there are by itself"),
        (
            ("127.0.0.1:{taken}", 2, 0),
            "the coordinator's port {taken} cannot be opened here: Address already in use",
        ),
    ],
)
def test_processes_that_cannot_be_joined(
    arguments: tuple[Any, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jax._src.xla_bridge.backends_are_initialized", lambda: False)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        ports = {"port": free_port(), "taken": server.getsockname()[1]}
        address, *rest = arguments
        with pytest.raises(ValueError, match=message.format(**ports)):
            initialize(address and address.format(**ports), *rest, timeout=1)


def test_the_command_asks_for_what_goes_together(tmp_path: Path, capsys: Any) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    command = ["generate", str(tmp_path / "photo.png"), "--output", str(tmp_path / "out")]
    assert main([*command, "--process", "1"]) == 1
    assert "--process is for --multihost: give that as well" in capsys.readouterr().err
