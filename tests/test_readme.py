"""The README's claims that a machine can check: its links lead somewhere and its code runs."""

import re
from pathlib import Path

import pytest
from quick_compilation import compiling_quickly

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_relative_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.findall(r"\b[A-Z]+_TABLE\b|TODO", README)


@pytest.mark.slow
@pytest.mark.usefixtures("pixels_encoded_once")
def test_the_python_code_runs(reference_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        weights = reference_dir / "weights" / "sam2-hiera-tiny-image"
        code = code.replace("facebook/sam2.1-hiera-tiny", str(weights))
        code = code.replace("points_per_side=16", "points_per_side=8")
        code = code.replace("photo.jpg", str(reference_dir / "images" / "truck.jpg"))
        with compiling_quickly("training" in code):  # compiling is most of training two steps
            exec(compile(code, "README.md", "exec"), names)
    assert "(1, 3, 1200, 1800)" in capsys.readouterr().out
    assert [level.shape[-1] for level in names["embeddings"]] == [32, 64, 256]
