"""What is launched on a GPU, counted in a program's text, and, where JAX's CUDA plugin is, compiled."""

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.compiled import Program

PROGRAM = """HloModule jit_f, is_scheduled=true

%sum (a: bf16[8,128], b: bf16[8,128]) -> bf16[8,128] {
  %a = bf16[8,128]{1,0} parameter(0)
  %b = bf16[8,128]{1,0} parameter(1)
  ROOT %added = bf16[8,128]{1,0} add(%a, %b)
}

%body (s: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %s = (s32[], bf16[8,128]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%s), index=0
  %x = bf16[8,128]{1,0} get-tuple-element(%s), index=1
  %twice = bf16[8,128]{1,0} fusion(%x, %x), kind=kLoop, calls=%sum, metadata={op_name="jit(f)/blocks_2/mlp/add"}
  ROOT %r = (s32[], bf16[8,128]{1,0}) tuple(%n, %twice)
}

%condition (t: (s32[], bf16[8,128])) -> pred[] {
  %t = (s32[], bf16[8,128]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %limit = s32[] constant(5)
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (x: bf16[8,128], w: bf16[128,128]) -> bf16[8,128] {
  %y = bf16[8,128]{1,0} parameter(0)
  %w = bf16[128,128]{1,0} parameter(1)
  %g = (bf16[8,128]{1,0}, s8[33554432]{0}) custom-call(%y, %w), custom_call_target="__cublas$lt$matmul"
  %z = bf16[8,128]{1,0} get-tuple-element(%g), index=0
  %f = (bf16[8,128]{1,0}, u8[0]{0}) custom-call(%z, %z, %z), custom_call_target="__cudnn$fmhaSoftmax"
  %v = bf16[8,128]{1,0} get-tuple-element(%f), index=0
  %turned = bf16[8,128]{0,1} copy(%v)
  %zero = s32[] constant(0)
  %start = (s32[], bf16[8,128]{1,0}) tuple(%zero, %turned)
  %loop = (s32[], bf16[8,128]{1,0}) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %out = bf16[8,128]{1,0} get-tuple-element(%loop), index=1
}
"""  # noqa: E501
SMALL = 8 * 128 * 2


def test_kernels_are_counted_with_what_they_read_and_write() -> None:
    found = gpu.launches(PROGRAM)
    assert [(one.instruction.name, one.times, one.kind, one.moved) for one in found] == [
        # A library's working space is not counted.
        ("g", 1, "products", 2 * SMALL + 128 * 128 * 2),
        ("twice", 5, "arithmetic", 5 * 3 * SMALL),
        ("f", 1, "attention", 4 * SMALL),
        ("turned", 1, "copies", 2 * SMALL),
    ]
    assert found[1].part == "block 2"
    assert "blocks_2/mlp/add" in gpu.largest(found, 2)


def test_a_row_has_the_columns_of_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "made_of", lambda *packages: "abc")
    program = Program("decoder", PROGRAM, flops=1.0, memory=0, temporaries=2**20, seconds=4.4)
    key = ["tiny", "decoder", "H100", "1", "now"]
    cells = dict(zip(gpu.HEAD, gpu.row(key, program, gpu.launches(PROGRAM)), strict=True))
    counts = [cells[name] for name in ("kernels", *gpu.KINDS, "of them only moving")]
    assert counts == ["8", "1", "1", "5", "1", "0", "0", "12.5%"]
    assert cells["of it only moving"] == f"{2 * SMALL / (23 * SMALL + 128 * 128 * 2):.1%}"
    assert (cells["temporaries, MiB"], cells["compiling, s"]) == ("1.0", "4")


def test_without_the_plugin_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "plugin_is_installed", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "pip install jax-cuda13-plugin" in capsys.readouterr().err


@pytest.mark.slow
def test_all_programs_compile_for_an_h100() -> None:
    python = os.environ.get("SAM2_JAX_CUDA_PYTHON")
    if not python:
        pytest.skip("needs JAX's CUDA plugin, no GPU: set SAM2_JAX_CUDA_PYTHON to the Python beside it")
    script = Path(gpu.__file__)
    command = [python, str(script), "--image-size", "128", "--batch", "2", "--prompts", "2"]
    done = subprocess.run(command, cwd=script.parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    start = lines.index(next(line for line in lines if line.startswith("| size | program")))
    rows = [dict(zip(gpu.HEAD, line.strip("| ").split(" | "), strict=True)) for line in lines[start + 2 :]]
    names = ["encoder, batch 2", "encoder, batch 1", "decoder, 2 prompts", "tracked frame, 1 object"]
    assert [row["program"] for row in rows] == names
    for row in rows:
        assert int(row["kernels"]) > int(row["products"]) > 0
