"""The table of what programs take on a TPU, and, where libtpu is at hand, that they compile for one."""

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks import tpu

ENCODER = tpu.Program(
    "encoder, batch 8",
    arguments=50 * 2**20,
    outputs=2**30,
    temporaries=3 * 2**30,
    flops=2.5e11,
    seconds=61.27,
)
DECODER = tpu.Program("decoder, batch 8", arguments=2**19, outputs=0, temporaries=0, flops=4e6, seconds=0.04)


def test_a_row_shows_mebibytes_their_share_of_a_chip_and_gigaflops() -> None:
    assert " ".join(tpu.row(ENCODER)) == "encoder, batch 8 50.0 1024.0 3072.0 4146.0 25.3% 250.000 61.3"
    assert " ".join(tpu.row(DECODER)) == "decoder, batch 8 0.5 0.0 0.0 0.5 0.0% 0.004 0.0"


def test_rows_and_header_have_the_same_columns() -> None:
    assert len(tpu.row(ENCODER)) == len(tpu.row(DECODER)) == len(tpu.HEAD)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", "6"], "--batch must be a multiple of 4"),
        (["--batch", "0"], "--batch must be a multiple of 4"),
        (["--prompts", "0"], "--prompts must be at least 1; got 0"),
        (["--image-size", "100"], "--image-size: "),
        (
            [],
            "libtpu, which has the TPU's compiler, is not installed. In an environment of its own: pip inst",
        ),
    ],
)
def test_what_cannot_be_compiled_is_refused(
    options: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tpu, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        tpu.main(options)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_encoder_and_decoder_compile_for_a_tpu() -> None:
    python = os.environ.get("SAM2_JAX_TPU_PYTHON")
    if not python:
        pytest.skip(
            "needs libtpu in an environment of its own: set SAM2_JAX_TPU_PYTHON to that environment's Python"
        )
    script = Path(tpu.__file__)
    command = [python, str(script), "--image-size", "128", "--batch", "4", "--prompts", "2"]
    done = subprocess.run(command, cwd=script.parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert cells[0] == tpu.HEAD
    rows = [dict(zip(tpu.HEAD, row, strict=True)) for row in cells[2:]]
    assert [row["program"] for row in rows] == ["encoder, batch 4", "decoder, batch 4, 2 prompts each"]
    for row in rows:
        assert float(row["GFLOP"]) > 0
        assert 0 < float(row["HBM, MiB"]) < tpu.CHIP_MEMORY / 2**20
