"""The table of what programs take on a TPU, and, where libtpu is at hand, that they compile for one."""

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks import cycles, tpu
from benchmarks.common import table
from benchmarks.compiled import KEY, Program, merged

KERNEL_FREE = """HloModule jit_f
ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %y = f32[8,128]{0,1:T(8,128)} copy(%x), backend_config={"estimated_cycles":"3000000"}
}
"""
ENCODER = Program(
    "encoder, batch 8", KERNEL_FREE, flops=3.94e10, memory=2**30, temporaries=3 * 2**20, seconds=61.27
)


def line(label: str, **changes: str) -> list[str]:
    """A line of RESULTS.md, changed in some columns."""
    cells = dict.fromkeys(tpu.HEAD, "1") | {"size": "tiny", "program": "encoder", "label": label} | changes
    return list(cells.values())


def test_a_row_has_the_columns_of_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpu, "made_of", lambda *packages: f"abc, {packages}")
    chip = cycles.CHIPS["v5e"]
    key = ["tiny", "encoder, batch 8", "v5e", "1", "after"]
    found = cycles.profile(ENCODER.text, chip)
    cells = dict(zip(tpu.HEAD, tpu.row(key, ENCODER, found, chip), strict=True))
    assert list(cells.values())[: len(KEY)] == key
    # 2 ms, in which v5e's matrix units could do ten times as much.
    assert (cells["M cycles"], cells["with what is modelled"], cells["ms"]) == ("3.00", "3.00", "2.00")
    assert (cells["of peak"], cells["copies, pads, reshapes"], cells["products"]) == (
        "10.0%",
        "100.0%",
        "0.0%",
    )
    assert (cells["temporaries, MiB"], cells["memory"], cells["compiling, s"]) == ("3.0", "6.2%", "61")
    assert cells["made of"] == "abc, ('libtpu', 'jax')"


def test_lines_of_other_labels_sizes_and_chips_stay() -> None:
    first = [line("before"), line("before", size="large"), line("before", program="decoder, 64 prompts")]
    old = f"text\n\n{table(tpu.HEAD, merged('', first))}\n<!-- end tpu -->"
    lines = merged(old, [line("after", ms="7"), line("before", size="large", ms="8"), line("x", chip="v6e")])
    columns = [tpu.HEAD.index(name) for name in ("size", "program", "chip", "label", "ms")]
    assert [[cells[i] for i in columns] for cells in lines] == [
        ["tiny", "encoder", "1", "before", "1"],
        ["tiny", "encoder", "1", "after", "7"],
        ["tiny", "decoder, 64 prompts", "1", "before", "1"],
        ["tiny", "encoder", "v6e", "x", "1"],
        ["large", "encoder", "1", "before", "8"],
    ]


def test_what_a_line_leaves_open_stays_if_it_is_made_of_the_same() -> None:
    old = table(tpu.HEAD, [line("a", **{"compiling, s": "40"}), line("b", **{"compiling, s": "50"})])
    new = [line("a", ms="7", **{"compiling, s": "-"}), line("b", **{"compiling, s": "-", "made of": "2"})]
    column = tpu.HEAD.index("compiling, s")
    assert [cells[column] for cells in merged(old, new)] == ["40", "-"]


def test_a_saved_text_is_profiled_without_libtpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a_copy.txt"
    path.write_text(KERNEL_FREE)
    tpu.main(["--read", str(path)])
    printed = capsys.readouterr().out
    assert "### a_copy" in printed
    assert "3.00 M cycles by the compiler's estimate, on a v5e of 1.5 GHz 2.00 ms" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", "6", "--chips", "4"], "--batch must be a multiple of the 4 chips"),
        (["--batch", "0"], "--batch must be a multiple of the 1 chips"),
        (["--prompts", "-1"], "--prompts must be a multiple of the 1 chips, at least one each; got -1"),
        (["--read", "x.txt", "--write"], "--write needs programs that are compiled now"),
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


@pytest.fixture(scope="module")
def python() -> str:
    """The Python of an environment with libtpu."""
    found = os.environ.get("SAM2_JAX_TPU_PYTHON")
    if not found:
        pytest.skip(
            "needs libtpu in an environment of its own: set SAM2_JAX_TPU_PYTHON to that environment's Python"
        )
    return found


def run(*command: str) -> str:
    """What a command prints, run where the package is found."""
    root = Path(tpu.__file__).parent.parent
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


LOOP = """
import sys
from benchmarks import cycles, tpu
from benchmarks.compiled import compile_program
import jax, jax.numpy as jnp
chip = cycles.CHIPS[sys.argv[1]]
x = jax.ShapeDtypeStruct((512, 512), jnp.bfloat16)
for rounds in (3, 7, 12):
    def call(x, w):
        x = jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=rounds)[0]
        return jnp.tanh(x @ w)
    program = compile_program("loop", 0, call, [x], [x], "tpu", tpu.shardings(chip, 1, 0))
    print(cycles.profile(program.text, chip).cycles(cycles.PRODUCTS))
"""


@pytest.mark.slow
@pytest.mark.parametrize("chip", cycles.CHIPS)
def test_the_rounds_of_a_compiled_loop_are_counted(python: str, chip: str) -> None:
    short, middle, long = (float(line) for line in run(python, "-c", LOOP, chip).splitlines())
    a_round = (middle - short) / 4
    assert a_round > 0
    assert long - middle == 5 * a_round
    assert short - 3 * a_round > 0  # the product outside


SCHEDULE = """
import os, sys
from pathlib import Path
from benchmarks import cycles, schedule, tpu
from benchmarks.compiled import compile_program
import jax, jax.numpy as jnp
from jax.experimental import pallas as pl
folder = Path(sys.argv[1])
os.environ["LIBTPU_INIT_ARGS"] = schedule.arguments(folder)
x = jax.ShapeDtypeStruct((8192, 1024), jnp.float32)
block = pl.BlockSpec((512, 1024), lambda i: (i, 0))
def kernel(x, y):
    y[...] = jnp.exp(x[...])
call = pl.pallas_call(kernel, out_shape=x, grid=16, in_specs=[block], out_specs=block, name="exponentials")
chip = cycles.CHIPS["v5e"]
program = compile_program("kernel", 0, call, [], [x], "tpu", tpu.shardings(chip, 1, 0))
text = cycles.with_schedules(program.text, schedule.collect(folder))
for text in (program.text, text):
    found = cycles.profile(text, chip)
    print(found.unknown, found.estimated, found.cycles(cycles.KERNELS))
"""


@pytest.mark.slow
def test_the_schedule_of_a_kernel_is_found(python: str, tmp_path: Path) -> None:
    without, with_it = (line.split() for line in run(python, "-c", SCHEDULE, str(tmp_path)).splitlines())
    assert [float(x) for x in without] == [1, 0, 0]
    assert [float(x) for x in with_it[:2]] == [0, 0]
    # One register of exponentials in a cycle, and a little around each of the 16 steps.
    assert 8192 <= float(with_it[2]) < 1.15 * 8192


@pytest.mark.slow
@pytest.mark.parametrize("chips", ["1", "4"])
def test_all_programs_compile_for_a_tpu(python: str, chips: str) -> None:
    options = ["--image-size", "128", "--batch", "4", "--prompts", "4", "--chips", chips]
    lines = run(python, "benchmarks/tpu.py", *options).splitlines()
    start = lines.index(next(line for line in lines if line.startswith("| size | program")))
    rows = [dict(zip(tpu.HEAD, line.strip("| ").split(" | "), strict=True)) for line in lines[start + 2 :]]
    expected = ["encoder, batch 4", "encoder, batch 1", "decoder, 4 prompts", "tracked frame, 1 object"]
    assert [row["program"] for row in rows] == (expected if chips == "1" else expected[::2])
    for row in rows:
        assert row["size"] == "tiny 128 bfloat16"
        assert float(row["M cycles"]) > 0
        assert 0 < float(row["of peak"].strip("%")) < 100
