"""What README promises is run as it is written: its commands and its code, without a network.

A local stand-in for the hub gives the embedded model in the real one's place. The sample is photo.jpg.
"""

import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_stand_in import hub_of
from PIL import Image

from sam2_jax import RELEASED_MODELS, released_config
from sam2_jax.checkpoint.embedded import EMBEDDED_MODEL, SAMPLE_PICTURE
from sam2_jax.checkpoint.pretrained import parameter_shapes
from sam2_jax.commands import build_parser, main
from sam2_jax.config import read_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
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
    """The folder in which README's reader works: it has photo.jpg, and the hub has the default model."""
    folder = tmp_path_factory.mktemp("desk")
    Image.open(SAMPLE_PICTURE).convert("RGB").save(folder / "photo.jpg")
    repositories = {"facebook/sam2.1-hiera-tiny": EMBEDDED_MODEL}
    with hub_of(repositories, folder / "cache"), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    assert [x for x in links if "://" not in x and not (page.parent / x).exists()] == []


def test_the_map_has_every_room() -> None:
    rooms = {path.name for path in (ROOT / "sam2_jax").iterdir() if path.name != "__pycache__"}
    entries = re.findall(r"^\| (`.*?) \|", CONTRIBUTING, re.MULTILINE)
    mapped = {
        code.removeprefix("sam2_jax/").rstrip("/") for row in entries for code in re.findall(r"`(.+?)`", row)
    }
    assert rooms <= mapped


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
    assert "photo.jpg" in printed


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_are_understood(command: list[str]) -> None:
    build_parser().parse_args(command)


def test_commands_run(desk: Path) -> None:
    """Those that need nothing but photo.jpg, with few points where everything is looked for."""
    runnable = [x for x in COMMANDS if x[0] in ("segment", "generate") and "tuned" not in x]
    assert len(runnable) == 4
    for command in runnable:
        few = ["--points-per-side", "4"] if command[0] == "generate" else []
        assert main([*command, *few]) == 0, command
    written = {path.name for path in desk.iterdir()}
    assert {"sample_segmented.png", "photo_segmented.png", "masks", "found"} <= written


def test_parameters_of_the_models_are_those_of_the_table() -> None:
    stated = dict(re.findall(r"\| `([\w./-]+)`.*? \| ([\d.]+) million", README))
    configs = {name: released_config(name) for name in RELEASED_MODELS}
    configs["embedded"] = read_config(EMBEDDED_MODEL / "config.json")
    assert len(stated) == 5
    for name, millions in stated.items():
        count = sum(math.prod(shape) for shape in parameter_shapes(configs[name]).values())
        assert f"{count / 1e6:.1f}" == millions, name
