"""The examples of transformers' documentation page of SAM 2, run as the page has them, after README's edits.

The page's text is in the reference folder. A small random model stands in for those that it names, on a local
stand-in for the hub; the pictures that are not at hand are noise of their sizes. That real weights give the
reference's numbers for these prompts is shown in tests/image/test_real_weights.py.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_stand_in import hub_of
from PIL import Image
from small_models import model_of, smallest_config

README = Path(__file__).parent.parent / "README.md"
PAGE = "transformers_documentation_page.txt"

# README's table: what an example has, by its pattern, and what takes its place. Whole lines may be left out.
EDITS = {
    "from transformers import": (r"from transformers import", "from sam2_jax import"),
    "import torch": (r"^import torch\n", ""),
    "device = ...": (r"^device = .*\n", ""),
    ".to(device)": (r"\.to\(device\)", ""),
    ".cpu()": (r"\.cpu\(\)", ""),
    'return_tensors="pt"': (r',\s*return_tensors="pt"', ""),
    "with torch.no_grad():": (r"^with torch\.no_grad\(\):\n((?: {4}.*\n)+)", lambda m: dedented(m[1])),
    "torch.argmax(x)": (r"torch\.argmax\((.*?\(\))\)", r"\1.argmax()"),
    "import requests": (r"^import requests\n", ""),
    "requests.get(address, stream=True).raw": (r"requests\.get\((\w+), stream=True\)\.raw", r"\1"),
    "https://.../photo.jpg": (r"https://[\w./-]*/([\w-]+\.\w+)", r"\1"),
}
# What is wrong on the page itself: with transformers 5.23, too, these examples end in an error.
MISTAKES = {
    "Sam2config()": "Sam2Config()",
    "import (\n    Sam2VisionConfig,": "import (\n    Sam2Config,\n    Sam2VisionConfig,",
    # Points of three levels where there are four, and sizes that the processor does not return.
    "input_points = [[[400, 650]]]  #": "input_points = [[[[400, 650]]]]  #",
    ', inputs["reshaped_input_sizes"]': "",
}
# Name -> height and width of the pictures that the examples open.
PICTURES = {
    "truck.jpg": (1500, 2250),
    "groceries.jpg": (534, 800),
    "dog-sam.png": (300, 800),
    "sam-car.png": (700, 500),
}

pytestmark = pytest.mark.usefixtures("quick_compilation_of_module")


def dedented(block: str) -> str:
    return re.sub(r"^ {4}", "", block, flags=re.MULTILINE)


def edited(code: str) -> str:
    """An example after README's edits, and without the page's mistakes."""
    for wrong, right in MISTAKES.items():
        code = code.replace(wrong, right)
    for pattern, replacement in EDITS.values():
        code = re.sub(pattern, replacement, code, flags=re.MULTILINE)
    return code


def examples(page: str) -> list[str]:
    """The page's examples in their order: lines of code, apart from one another by a line of prose."""
    found: list[list[str]] = [[]]
    last = ""
    for line in page.splitlines():
        if line.startswith((">>> ", "... ")):
            found[-1].append(line[4:] + "\n")
        elif line.strip() and not last.startswith((">>>", "...")):  # what follows code at once is its output
            found.append([])
        last = line
    return ["".join(lines) for lines in found if lines]


@pytest.fixture(scope="module")
def page(reference_dir: Path) -> list[str]:
    return examples((reference_dir / "spec" / PAGE).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the page's pictures, and a hub with its models."""
    folder = tmp_path_factory.mktemp("desk")
    rng = np.random.default_rng(0)
    sizes = {
        "truck.jpg": (1500, 2250),
        "groceries.jpg": (534, 800),
        "dog-sam.png": (300, 800),
        "sam-car.png": (700, 500),
    }
    for name, size in sizes.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)
    model = model_of(smallest_config())
    model.save_pretrained(folder / "model", layout="transformers")
    model.processor.save_pretrained(folder / "model")
    hub = dict.fromkeys(("yonigozlan/sam2.1_hiera_large_hf", "danelcsb/sam2.1_hiera_tiny"), folder / "model")
    with hub_of(hub, folder / "cache"), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.mark.slow
def test_every_example_runs_as_text(page: list[str], desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for number, code in enumerate(page):
        exec(compile(edited(code), f"example {number} of {PAGE}", "exec"), names)
    assert capsys.readouterr().out.splitlines() == [
        "Generated 3 masks with shape (1, 3, 1500, 2250)",
        "Generated masks for 2 objects",
        "Processed 2 images, each with 1 objects",
        "Processed 2 images with 4 and 4 boxes respectively",
    ]
    assert names["refined_outputs"].pred_masks.shape == (1, 1, 1, 16, 16)
    assert names["config"] == names["configuration"]
    assert [mask.shape for mask in names["masks"]] == [(1, 3, 700, 500)]


def test_every_edit_is_needed_and_in_readme(page: list[str]) -> None:
    text = "".join(page)
    assert [name for name, (pattern, _) in EDITS.items() if not re.search(pattern, text, re.MULTILINE)] == []
    assert [wrong for wrong in MISTAKES if wrong not in text] == []
    table = README.read_text(encoding="utf-8").partition("| there | here |")[2].partition("\n\n")[0]
    stated = {code for row in table.splitlines()[2:] for code in re.findall(r"`(.+?)`", row.split(" | ")[0])}
    assert stated == set(EDITS)
