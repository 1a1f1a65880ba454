"""The rooms of the project and who may import whom."""

import ast
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Room -> the rooms of sam2_jax it may import. A module that is no room of its own is named here too.
MAY_IMPORT = {
    "config": set(),
    "atomic": set(),
    "compilation": set(),
    "hub": {"config"},
    "model": {"config"},
    "outputs": {"model"},
    "processing": {"config", "hub", "atomic"},
    "checkpoint": {"config", "hub", "atomic", "model"},
    "arguments": {"config", "model"},
    "pretrained": {"compilation", "config", "hub", "model", "checkpoint"},
    "vision": {"config", "model", "outputs", "arguments", "pretrained"},
    "predictor": {"config", "model", "arguments", "processing"},
    "batch": {"config", "atomic", "model", "arguments", "processing"},
    "predict": {
        *("config", "model", "outputs", "arguments", "checkpoint", "pretrained", "vision"),
        *("processing", "predictor", "batch"),
    },
    "generate": {"config", "processing", "predict", "predictor"},
    "embedded": {"hub"},
    "pipelines": {"processing", "predict", "generate", "embedded"},
    "training": {"config", "atomic", "checkpoint", "model", "processing", "batch", "predict"},
    "finetune": {"atomic", "embedded", "predict", "training"},
    "annotate": {"atomic", "processing", "batch", "generate"},
    "cli": {
        *("config", "atomic", "hub", "model", "processing", "checkpoint", "predict", "predictor", "batch"),
        *("generate", "pipelines", "annotate", "embedded", "finetune"),
    },
    "__main__": {"cli"},
    "__init__": {
        *("compilation", "config", "outputs", "predict", "vision", "processing", "predictor", "batch"),
        *("generate", "pipelines", "embedded"),
    },
}
PROCESSING_NEEDS = {"numpy", "PIL", "scipy", "sam2_jax", *sys.stdlib_module_names}
FORBIDDEN = {"torch", "transformers", "torchvision", "convert", "tests", "benchmarks", "pickle"}
FILES = sorted((ROOT / "sam2_jax").rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(ROOT / "sam2_jax").parts[0].removesuffix(".py")


class WithoutTypes(ast.NodeTransformer):
    """Leaves out what stands under `if TYPE_CHECKING:`, which is never run."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        is_typing = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if is_typing else self.generic_visit(node)


def imports(path: Path, nodes: Iterable[ast.AST] | None = None) -> set[str]:
    """Full names of what a file imports when it runs, anywhere or in some of its nodes."""
    found = set()
    tree = WithoutTypes().visit(ast.parse(path.read_text()))
    for node in ast.walk(tree) if nodes is None else nodes:
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
            assert rest.split(".")[0] in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("path", [p for p in FILES if room(p) == "processing"], ids=lambda p: p.name)
def test_processing_needs_numpy_pillow_and_scipy_only(path: Path) -> None:
    """JAX may be imported inside a function, where arrays of JAX were asked for."""
    at_module_level = imports(path, ast.parse(path.read_text()).body)
    assert {name.partition(".")[0] for name in at_module_level} <= PROCESSING_NEEDS
    assert {name.partition(".")[0] for name in imports(path)} <= PROCESSING_NEEDS | {"jax"}
