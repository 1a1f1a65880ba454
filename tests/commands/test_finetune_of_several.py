"""`sam2-jax finetune --multihost`: stopped, all processes save the same step; given again, one goes on."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_models import model_of, smallest_config

from sam2_jax import Sam2Model
from sam2_jax.training.synthetic.scenes import make_scene

SCRIPT = Path(__file__).parent.parent / "finetune_of_several.py"


def run(folder: Path, processes: int, signal: str | None = None, *options: str) -> list[tuple[int, str]]:
    """Run the command in so many processes; returns their exit statuses and what they say on stderr."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{server.getsockname()[1]}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, SCRIPT, "--data", folder, "--output", folder / "tuned", "--held-out", "0"]
    command += [
        "--model",
        folder / "model",
        "--steps",
        "40",
        "--objects",
        "2",
        "--corrections",
        "0",
        *options,
    ]
    several = ["--multihost", "--coordinator", coordinator, "--processes", str(processes), "--process"]
    running = [
        subprocess.Popen(
            [*command, *([*several, str(process)] if processes > 1 else [])],
            env=environment | ({"SIGNAL": signal} if signal else {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]
    said = [process.communicate(timeout=120)[1] for process in running]
    return [(process.returncode, words) for process, words in zip(running, said, strict=True)]


def stopped_at(ended: list[tuple[int, str]]) -> int:
    """From which step all of them say that training will go on."""
    steps = [re.findall(r"given again, training goes on from step (\d+)", words) for _, words in ended]
    assert [status for status, _ in ended] == [130] * len(ended), ended
    assert all(found == steps[0] and len(found) == 1 for found in steps), ended
    return int(steps[0][0])


@pytest.mark.slow
def test_processes_stop_together_and_one_goes_on(tmp_path: Path) -> None:
    model_of(smallest_config()).save_pretrained(tmp_path / "model")
    for number in range(3):
        scene = make_scene(5, number, 64)
        Image.fromarray(scene.image).save(tmp_path / f"{number}.png")
        labels = (scene.masks * np.arange(1, 1 + len(scene.masks))[:, None, None]).max(axis=0)
        Image.fromarray(labels.astype(np.uint8)).save(tmp_path / f"{number}_mask.png")
    first = stopped_at(run(tmp_path, 2, "SIGINT"))
    assert 3 <= first < 40
    assert (tmp_path / "tuned" / "checkpoints" / str(first)).is_dir()
    ended = run(tmp_path, 2, None, "--seed", "9")  # another training than the folder's
    assert all(status != 0 for status, _ in ended)
    assert any("holds a training with other options" in words for _, words in ended)
    assert [status for status, _ in run(tmp_path, 1)] == [0]
    assert Sam2Model.from_pretrained(tmp_path / "tuned").config == smallest_config()
