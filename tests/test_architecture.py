"""The rooms of the project and who may import whom."""

import ast
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_FILES = {"checks", "atomic", "json_files", "hub"}
# Room -> the rooms of sam2_jax it may import, each of which stands before it: there is no circle.
MAY_IMPORT = {
    "checks": set(),
    "atomic": set(),
    "compilation": set(),
    "progress": set(),
    "signals": set(),
    "devices": {"checks"},
    "json_files": {"checks", "atomic"},
    "hub": {"checks", "json_files"},
    "config": {"checks", "json_files", "hub"},
    "model": {"config"},
    "checkpoint": {*_FILES, "compilation", "devices", "config", "model"},
    "embedded": {"checkpoint"},
    "processing": {"checks", "atomic", "json_files", "hub", "config"},
    "image": {*_FILES, "compilation", "devices", "progress", "config", "model", "checkpoint", "processing"},
    "video": {*_FILES, "devices", "progress", "config", "model", "checkpoint", "processing", "image"},
    "auto": {*_FILES, "config", "checkpoint", "processing", "image", "video"},
    "clips": {*_FILES, "progress", "signals", "processing", "video"},
    "scale": {
        *(*_FILES, "devices", "progress", "config", "model", "checkpoint"),
        *("processing", "image", "video", "clips"),
    },
    "demo": {"checks", "json_files", "processing", "image", "video", "clips"},
    "training": {
        *(*_FILES, "progress", "signals", "config", "model", "checkpoint"),
        *("processing", "image", "video"),
    },
    "commands": {
        *(*_FILES, "signals", "devices", "config", "model", "checkpoint", "processing"),
        *("image", "video", "auto", "clips", "scale", "demo", "training"),
    },
    "meta": {"checks", "config", "model", "checkpoint", "processing", "image", "video", "clips"},
    "__main__": {"commands"},
    "__init__": {"compilation", "config", "checkpoint", "processing", "image", "video", "auto", "clips"},
}
# Lies in the room of checkpoints and stands below: it knows where files are, and nothing of what is in them.
HUB = "checkpoint.hub"
PROCESSING_NEEDS = {"numpy", "PIL", "scipy", "sam2_jax", *sys.stdlib_module_names}
FORBIDDEN = {"torch", "transformers", "torchvision", "convert", "tests", "benchmarks", "pickle"}
FILES = sorted((ROOT / "sam2_jax").rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(path) for path in FILES}


def room(path: Path) -> str:
    return room_of(dotted(path).removeprefix("sam2_jax").removeprefix(".") or "__init__")


def room_of(name: str) -> str:
    """The room of a module, or of what is imported from it, by its name within sam2_jax."""
    return "hub" if f"{name}.".startswith(HUB + ".") else name.split(".")[0]


def imports(path: Path, nodes: Iterable[ast.AST] | None = None) -> set[str]:
    """Full names of what a file imports, anywhere, for type checkers too, or in some of its nodes."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    allowed = MAY_IMPORT[room(path)] | {room(path)}
    for name in imports(path):
        top, _, rest = name.partition(".")
        assert top not in FORBIDDEN, f"{path} imports {name}"
        if top == "sam2_jax":
            assert room_of(rest) in allowed, f"{path} imports {name}"


def test_rooms_stand_in_an_order() -> None:
    order = list(MAY_IMPORT)
    for name, allowed in MAY_IMPORT.items():
        assert allowed <= set(order[: order.index(name)])


def modules_imported(path: Path) -> set[str]:
    """Modules of sam2_jax that a file imports, by their dotted names."""
    found = set()
    for name in imports(path):
        while name.startswith("sam2_jax.") and name not in MODULES:
            name = name.rpartition(".")[0]
        found |= {name} & MODULES
    return found


def test_no_modules_import_one_another() -> None:
    waiting = {dotted(path): modules_imported(path) - {"sam2_jax"} for path in FILES}
    while free := {name for name, needs in waiting.items() if not needs & waiting.keys() - {name}}:
        waiting = {name: needs for name, needs in waiting.items() if name not in free}
    assert not waiting


@pytest.mark.parametrize("path", [p for p in FILES if room(p) == "processing"], ids=lambda p: p.name)
def test_processing_needs_numpy_pillow_and_scipy_only(path: Path) -> None:
    """JAX may be imported inside a function, where arrays of JAX were asked for."""
    at_module_level = imports(path, ast.parse(path.read_text()).body)
    assert {name.partition(".")[0] for name in at_module_level} <= PROCESSING_NEEDS
    assert {name.partition(".")[0] for name in imports(path)} <= PROCESSING_NEEDS | {"jax"}


def test_no_two_files_of_tests_have_one_name() -> None:
    """Without packages around them, pytest would import the first for both."""
    files = (ROOT / "tests").rglob("test_*.py")
    found = Counter(path.name for path in files if not (path.parent / "__init__.py").exists())
    assert [name for name, count in found.items() if count > 1] == []
