"""What all commands share: help, mistyped options, paths that cannot be, output that nobody reads."""

import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sam2_jax.atomic import check_writable
from sam2_jax.commands import COMMANDS, main


def refused(argv: list[str], capsys: pytest.CaptureFixture[str], status: int = 1) -> str:
    """The one sentence that the command ends with."""
    if status == 2:  # argparse's way
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 2
    else:
        assert main(argv) == status
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert len(error) < 3000
    return error


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr()
    assert all(command in printed.out for command in COMMANDS)
    assert not printed.err


@pytest.mark.parametrize("command", [(), *((command,) for command in COMMANDS)], ids=str)
def test_help_has_an_example(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert f"  sam2-jax {' '.join(command)}".rstrip() in capsys.readouterr().out.partition("example")[2]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("sam2_jax 0.")


def test_help_does_not_wait_for_what_is_slow_to_import() -> None:
    slow = ("jax", "flax", "orbax", "optax", "scipy", "safetensors")
    code = f"import sys, sam2_jax.commands; print([m for m in {slow} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_a_mistyped_option_shows_the_commands_own_usage(capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(["segment", "photo.jpg", "--pont", "1,2"], capsys, 2)
    assert "usage: sam2-jax segment" in error
    assert "unknown argument '--pont': did you mean --point?" in error
    assert "usage: sam2-jax generate" in refused(["generate", "a", "--output", "b", "--x=3"], capsys, 2)
    assert "did you mean --output?" in refused(["generate", "a", "--ouput=b"], capsys, 2)
    assert "did you mean --to?" in refused(["convert", "a", "b", "--two", "flax"], capsys, 2)
    assert "required: --output" in refused(["generate", "a", "--overlay"], capsys, 2)
    # Not taken for the beginning of another option, nor for one that is like it in its dashes alone.
    assert "did you mean --point?" in refused(["track", "a", "--points", "1,2"], capsys, 2)
    error = refused(["generate", "a", "--output", "b", "--point", "1,2"], capsys, 2)
    assert "unknown argument '--point'; there are -h, --help, --output," in error
    assert "did you mean segment?" in refused(["segmnt", "photo.jpg"], capsys, 2)
    # What is repeated of an argument is cut.
    refused(["segment", "--box", "9" * 9000], capsys, 2)
    refused(["generate", "a", "--output", "b", "--points-per-side", "9" * 9000], capsys, 2)
    refused(["x" * 9000], capsys, 2)


class _Unread(io.StringIO):
    """A pipe whose reader leaves after the first line."""

    def write(self, text: str) -> int:
        if "\n" in self.getvalue():
            raise BrokenPipeError
        return super().write(text)


def test_the_work_is_done_though_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = _Unread()
    monkeypatch.setattr("sys.stdout", pipe)
    done = []

    def work(arguments: Any) -> None:
        for number in range(3):
            print(f"line {number}", flush=True)
            done.append(number)

    monkeypatch.setattr("sam2_jax.commands.segment.segment_photo", work)
    assert main(["segment", "photo.jpg"]) == 0
    assert done == [0, 1, 2]
    assert pipe.getvalue() == "line 0\n"


def test_a_pipe_that_is_closed_is_no_alarm() -> None:
    """In a process of its own, where Python tries once more to deliver what is left when it ends."""
    code = "import sys; from sam2_jax.commands import COMMANDS, main; sys.exit(main([]))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_letters_that_the_terminal_lacks_are_spelt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    monkeypatch.setattr("sam2_jax.commands.segment.segment_photo", lambda _: print("写真 \udc80"))
    assert main(["segment", "photo.jpg"]) == 0
    assert raw.getvalue() == b"\\u5199\\u771f \\udc80\n"


def test_quiet_says_only_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(arguments: Any) -> None:
        print("load")
        raise ValueError("no model")

    monkeypatch.setattr("sam2_jax.commands.segment.segment_photo", work)
    assert main(["segment", "photo.jpg", "--quiet"]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "sam2-jax: error: no model\n")


@pytest.fixture
def impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Paths that the system refuses."""
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    Path("data.json").write_text("{}")
    return {"long": "x" * 300, "loop": "loop", "null": "a\0b", "deep": "/".join("d" * 5000)}


@pytest.mark.parametrize("kind", ["long", "loop", "null", "deep"])
@pytest.mark.parametrize(
    "command",
    [
        "segment {}",
        "segment {} --point 1,1",
        "segment --output {}/o.png",
        "segment --json {}/r.json",
        "segment --masks {}",
        "segment --mask {}",
        "segment --model {}",
        "generate {} --output out",
        "generate data.json --output {}",
        "generate data.json --output out --model {}",
        "generate data.json --output {} --rows",
        "collect {} out.json",
        "collect data.json {}",
        "finetune --data {} --output out",
        "finetune --data data.json --output {}",
        "finetune --data data.json --output out --model {}",
        "finetune --data data.json --output out --images {}",
        "export --model embedded --output {}",
        "export --model {} --output out",
        "convert {} out --to flax",
        "convert embedded {} --to transformers",
        "convert embedded out --to transformers --config {}",
    ],
)
def test_paths_that_the_system_refuses_are_a_sentence(
    command: str, kind: str, impossible: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused([word.replace("{}", impossible[kind]) for word in command.split()], capsys)
    assert error.startswith("sam2-jax: error: ")
    assert error.count("\n") == 1
    assert len(error) < 600


@pytest.mark.parametrize("target", ["/proc/foo", "/proc/foo/deeper/x.png", "/sys/x.png"])
def test_where_nothing_can_be_written_is_known_before_the_work(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path(target).parents[-2].is_dir():
        pytest.skip(f"there is no {Path(target).parents[-2]} here")
    monkeypatch.chdir(tmp_path)
    Path("photo.png").touch()

    def too_late(*_: Any, **__: Any) -> None:
        raise AssertionError("loaded before the output was tried")

    monkeypatch.setattr("sam2_jax.image.model.Sam2Model.from_pretrained", too_late)
    for command in (
        ["segment", "--model", "embedded", "--output", f"{target}.png"],
        ["segment", "--model", "embedded", "--json", target],
        ["segment", "--model", "embedded", "--masks", target],
        ["generate", "photo.png", "--model", "embedded", "--output", target],
        ["finetune", "--data", "photo.png", "--output", target],
        ["convert", "a/b", target, "--to", "flax"],
    ):
        assert "cannot write" in refused(command, capsys)
    assert list(tmp_path.iterdir()) == [tmp_path / "photo.png"]


@pytest.mark.parametrize(
    "command", ["segment x.png --point 1,1", "generate x --output o", "finetune --data x --output o"]
)
def test_a_mistyped_model_is_known_before_anything_is_read(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "embedded" in refused([*command.split(), "--model", "embeded"], capsys)
    assert "revision" in refused([*command.split(), "--model", "embedded", "--revision", "v1"], capsys)


def test_trying_to_write_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder" / "file.png")
    check_writable(tmp_path / "new", is_folder=True)
    check_writable(tmp_path / ("x" * 255))
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for target, is_folder in (("file", True), ("file/x", False), (".", False), ("x" * 256, False)):
        with pytest.raises(ValueError, match="cannot write"):
            check_writable(tmp_path / target, is_folder=is_folder)


NASTY = (
    *("", " ", "-", "--", "-1", "0", "1", "1e9", "1" * 41, "9" * 5000, "1e400", "nan", "inf", "-inf", "None"),
    *(
        "0x10",
        "1_0",
        "²",
        "٣",
        "true",
        "x" * 300,
        "x" * 9000,
        "a\0b",
        "\udcff",
        "写真",
        "{}",
        "%s",
        "%(prog)s",
    ),
    *("loop", "photo.png", "folder", "data.json", "folder/none", "/", ".", "..", "~", "*", "/proc/self/mem"),
    *("1,2", "1,2,3,4", "nan,1", "1,2,3", ",", "1e400,1", "-5,-5,50,50", "9" * 400 + ",1", "float32", "meta"),
    *(
        "embedded",
        "embeded",
        "a/b",
        "a/b/c",
        "http://x/y",
        "@file",
        "--help",
        "--version",
        "--quiet",
        "--x=1",
    ),
)
BASES = (
    "segment photo.png --point 1,2 --negative 3,4 --object --box 1,2,8,8 --mask photo.png --all --model M "
    "--revision r --image-size 64 --dtype float32 --output o.png --masks m --json j.json --max-pixels 999",
    "generate photo.png folder --output out --no-overlay --model M --image-size 64 --dtype bfloat16 --preset "
    "meta --points-per-side 4 --points-per-batch 2 --pred-iou-thresh 0.5 --stability-score-thresh 0.5 "
    "--crop-n-layers 1 --crop-n-points-downscale-factor 2 --min-mask-region-area 3 --max-hole-area 2 --quiet",
    "finetune --data data.json --images folder --model M --output tuned --steps 3 --batch-size 1 --objects 1 "
    "--corrections 0 --learning-rate 1e-3 --accumulate 2 --train mask_decoder.* --lora x --lora-rank 2 "
    "--dtype float32 --remat --workers 0 --image-size 64 --held-out 0.5 --checkpoint-every 5 --seed 1",
    "finetune --data folder --validation folder --validation-images folder --output tuned --held-out 0",
    "generate photo.png folder --output out --rows --model M --preset transformers --points-per-side 4",
    "generate photo.png --output out --engine ray --address 127.0.0.1:1 --workers 2 --model M",
    "collect folder out.json --quiet",
    "collect data.json out",
    "export --model M --output out --onnx --objects 2 --points 3",
    "export --model M --output out --platforms cpu tpu --programs encoder --dtype bfloat16 --image-size 64",
    "convert M out --to flax --dtype bfloat16 --config data.json --source-layout flax --verify",
)


def mutated(rng: np.random.Generator) -> list[str]:
    """A command with a few of its words replaced, left out, given twice or joined by what cannot be meant."""
    words = str(rng.choice(BASES)).split()
    for _ in range(rng.integers(1, 5)):
        at, nasty = int(rng.integers(len(words))), str(rng.choice(NASTY))
        kind = rng.integers(5)
        if kind == 0:
            words[at:at] = [nasty]
        elif kind == 1 and len(words) > 1:
            del words[at]
        elif kind == 2:
            words.append(words[at])
        else:
            words[at] = nasty if kind == 3 or not words[at].startswith("--") else f"{words[at]}={nasty}"
    return words


@pytest.mark.parametrize("seed", range(2))
def test_no_command_line_is_more_than_a_sentence(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def no_model(*_: Any, **__: Any) -> None:
        raise ValueError("no model here")

    monkeypatch.setattr("sam2_jax.image.model.Sam2Model.from_pretrained", no_model)
    monkeypatch.setattr("sam2_jax.checkpoint.embedded.is_reachable", lambda: False)
    rng = np.random.default_rng(seed)
    for _ in range(100):
        for path in tmp_path.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        Path("loop").symlink_to("loop")
        Path("folder").mkdir()
        for name in ("photo.png", "folder/a.png"):
            Image.new("RGB", (12, 9), "white").save(name)
        Image.new("L", (12, 9), 1).save("folder/a_mask.png")
        Path("data.json").write_text("{}")
        words = mutated(rng)
        try:
            status = main(words)
        except SystemExit as stop:
            status = int(stop.code or 0)
        except BaseException as error:
            raise AssertionError(f"{words} failed with {error!r}") from error
        printed = capsys.readouterr()
        assert status in (0, 1, 2), words
        assert status == 0 or " error: " in printed.err, words
        assert len(printed.err) < 6000, words
        assert not list(tmp_path.rglob("*.tmp")), words
