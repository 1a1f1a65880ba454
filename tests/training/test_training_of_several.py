"""Processes that train together come to the numbers of one, from a checkpoint of one too."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent.parent / "training_of_several.py"


def run(stopped: Path, resumed: Path, processes: int) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{server.getsockname()[1]}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    joining = [[coordinator, str(processes), str(process)] for process in range(processes)]
    running = [
        subprocess.Popen(
            [sys.executable, SCRIPT, stopped, resumed, *(words if processes > 1 else [])],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for words in joining
    ]
    said = [process.communicate()[1] for process in running]
    assert not any(process.returncode for process in running), said


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["total"] for row in rows]


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    one, whole, two, from_one, from_two = (
        tmp_path / name for name in ("one", "whole", "two", "from_one", "from_two")
    )
    run(one, whole, 1)
    shutil.copytree(one, from_one)
    run(two, from_one, 2)
    shutil.copytree(two, from_two)
    run(tmp_path / "unused", from_two, 1)
    expected = losses(whole)
    assert len(expected) == 6
    assert len(set(expected)) == 6
    np.testing.assert_allclose(losses(two), expected[:3], rtol=0, atol=1e-5)
    np.testing.assert_allclose(losses(from_one), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(losses(from_two), expected, rtol=0, atol=1e-5)
