"""What README promises is run as it is written: its commands and its code, without a network.

A local stand-in for the hub gives the embedded model in the real one's place, and for clips a random one. The
sample is photo.jpg.
"""

import math
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_stand_in import hub_of
from PIL import Image
from small_video import small_video_model

from sam2_jax import RELEASED_MODELS, Sam2Config, Sam2Processor, released_config
from sam2_jax.checkpoint.embedded import EMBEDDED_MODEL, SAMPLE_PICTURE
from sam2_jax.checkpoint.hub import HubFolder
from sam2_jax.checkpoint.parameters import parameter_shapes
from sam2_jax.commands import build_parser, main
from sam2_jax.config import read_config
from sam2_jax.image.arguments import check_pixels

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
PAGES = sorted(
    page for places in ("*.md", "benchmarks/*.md", "sam2_jax/**/*.md") for page in ROOT.glob(places)
)
PYTHON = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
COMMANDS = [
    shlex.split(line, comments=True)[1:] for line in re.findall(r"^sam2-jax .*", README, re.MULTILINE)
]

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where README's reader works: a folder with photo.jpg and my_model; the hub has the default model."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(EMBEDDED_MODEL, folder / "my_model")
    Image.open(SAMPLE_PICTURE).convert("RGB").save(folder / "photo.jpg")
    (folder / "film").mkdir()
    for t in range(3):
        Image.open(SAMPLE_PICTURE).convert("RGB").save(folder / "film" / f"{t}.png")
    small_video_model().save_pretrained(folder / "video_model")
    repositories = {
        "facebook/sam2.1-hiera-tiny": EMBEDDED_MODEL,
        "facebook/sam2.1-hiera-small": folder / "video_model",
    }
    with hub_of(repositories, folder / "cache"), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    assert [x for x in links if "://" not in x and not (page.parent / x).exists()] == []


def test_the_map_has_every_file() -> None:
    """A room's row names its files; rooms of one file stand by the file's name."""
    rows = [re.findall(r"`([\w./-]+)`", row) for row in re.findall(r"^\| `.*$", CONTRIBUTING, re.MULTILINE)]
    mapped = {name.removeprefix("sam2_jax/") for names in rows for name in names}
    mapped |= {f"{names[0]}{name}" for names in rows for name in names[1:] if names[0].endswith("/")}
    files = {path.relative_to(ROOT / "sam2_jax") for path in (ROOT / "sam2_jax").rglob("*.py")}
    there = {path.name if len(path.parts) == 1 else f"{path.parts[0]}/{path.stem}" for path in files}
    assert {name for name in there if not name.endswith("/__init__")} <= mapped


def test_it_can_be_read_in_one_go() -> None:
    assert README.count("\n") < 200
    assert not re.findall(r"\b[A-Z]+_TABLE\b|TODO", README)


@pytest.mark.slow
def test_the_python_code_runs(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict = {}
    exec(compile(PYTHON, "README.md", "exec"), names)
    assert np.array(Image.open(desk / "mask.png")).any()
    assert names["masks"].shape == (1, 3, 512, 512)
    assert len(names["metrics"]) > 0
    printed = capsys.readouterr().out
    assert names["prediction"].mask.shape == (512, 512)
    assert "(2, 1, 512, 512)" in printed  # the batch's two objects
    assert "2 (512, 512)" in printed  # the clip's last frame
    assert "photo.jpg" in printed


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_are_understood(command: list[str]) -> None:
    build_parser().parse_args(command)


@pytest.mark.slow
def test_commands_run(desk: Path) -> None:
    """All but those whose data or weights are not at hand; fewer points where everything is looked for."""
    elsewhere = {"annotations.json", "folder", "tuned", "sam2.1_hiera_tiny.pt", "film.mp4"}
    runnable = [command for command in COMMANDS if not elsewhere & set(command)]
    assert [command[0] for command in runnable] == ["segment", "segment", "segment", "generate", "convert"]
    for command in runnable:
        few = ["--points-per-side", "4"] if command[0] == "generate" else []
        assert main([*command, *few]) == 0, command
    written = {path.name for path in desk.iterdir()}
    assert {"sample_segmented.png", "photo_segmented.png", "masks", "found", "for_transformers"} <= written


def test_parameters_of_the_models_are_those_of_the_table() -> None:
    stated = dict(re.findall(r"\| `([\w./-]+)`.*? \| ([\d.]+) million", README))
    configs = {name: released_config(name) for name in RELEASED_MODELS}
    configs["embedded"] = read_config(EMBEDDED_MODEL / "config.json")
    assert len(stated) == 5
    for name, millions in stated.items():
        count = sum(math.prod(shape) for shape in parameter_shapes(configs[name]).values())
        assert f"{count / 1e6:.1f}" == millions, name


def measured(section: str, row: str) -> list[float]:
    """The numbers of a row of RESULTS.md, without ranges: medians, and what is beside them."""
    text = RESULTS.partition(f"<!-- begin {section} -->")[2].partition("<!-- end")[0]
    line = re.search(rf"^\| {re.escape(row)} \| (.*)$", text, re.MULTILINE)
    assert line, f"RESULTS.md has no row {row}"
    return [float(x) for x in re.findall(r"\d+\.?\d*", re.sub(r"\(.*?\)", "", line[1]))]


def test_speeds_are_those_that_were_measured() -> None:
    stated = []
    for size in ("tiny", "small", "base-plus", "large"):
        _, fp32, bf16, *_ = measured("image cpu", f"{size}, batch 1")
        stated.append(rf"hiera-{size}` \| [\d.]+ million \| {fp32:.1f} \| {bf16:.1f} \|")
    _, ours, _, theirs, *_ = measured("image cpu", "tiny, batch 1")
    stated.append(rf"\| {ours:.2f} s \| transformers {theirs:.2f} s \| {theirs / ours:.2f} times")
    _, ours, _, theirs, *_ = (x / 1000 for x in measured("image cpu", "tiny, 64 prompts"))
    stated.append(rf"\| {ours:.2f} s \| transformers {theirs:.2f} s \| {theirs / ours:.1f} times")
    masks, ours, *_, memory = measured("generate", "sam2_jax")
    same, theirs, *_, more = measured("generate", "Meta")
    assert masks == same
    stated += [
        rf"\| {ours:.0f} s, {memory / 1000:.1f} GB \| Meta's generator {theirs:.0f} s, {more / 1000:.1f} GB",
        rf"{theirs / ours:.1f} times as fast, the same {masks:.0f} masks",
    ]
    ours, theirs = (measured("memory", row)[1] / 1000 for row in ("sam2_jax fp32", "torch eager"))
    stated.append(rf"{ours:.1f} GB \(transformers: {theirs:.1f} GB\)")
    assert [pattern for pattern in stated if not re.search(pattern, README)] == []


def test_errors_of_the_questions_are_those_that_users_meet() -> None:
    asked = re.findall(r"^\| `(.+?)`", README.partition("## Questions and errors")[2], re.MULTILINE)
    pixels = np.zeros((1, 1024, 1024, 3), np.float32)
    for what, call in zip(
        asked[:4],
        (
            lambda: HubFolder("facebook/sam2-hiera-small", local_files_only=True).get("config.json"),
            lambda: check_pixels(pixels[:, :512], Sam2Config()),
            lambda: check_pixels(np.moveaxis(pixels, -1, 1), Sam2Config()),
            lambda: Sam2Processor()(original_sizes=[(600, 800)], input_points=[[500, 375]]),
        ),
        strict=True,
    ):
        with pytest.raises(ValueError, match=re.escape(what)):
            call()
