"""A model as exported programs: equal to the bit where numbers are known, run by the folder's own loader."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax import export
from quick_compilation import compiling_quickly
from small_models import model_of, smallest_config
from small_video import small_video_model
from tolerances import assert_close

from sam2_jax import Sam2Processor
from sam2_jax.commands import main
from sam2_jax.image.clicks import decode_clicks
from sam2_jax.scale.export import MANIFEST_FILE, about_model, check_target, export_model
from sam2_jax.scale.programs import programs_of

EMBEDDINGS = ("fine", "middle", "coarse")
SIZES = {"batch": 2, "objects": 3, "points": 2, "clicks": 5, "frames": 2, "slots": 7, "pointers": 16}


QUICK = {"encoder", "decoder_automatic", "frame_track"}
# Where the network knows how many clicks there are, it multiplies matrices in the cheaper order; a program
# for any number has one order for all.
ORDERED_BY_SIZE = {"decoder", "decoder_single"}


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation_to_the_bit() -> Iterator[None]:
    jax.clear_caches()  # of what other tests compiled otherwise
    with compiling_quickly(newer_generator=True):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All programs of the small video model, for this machine alone."""
    folder = tmp_path_factory.mktemp("exported") / "programs"
    list(export_model(small_video_model(), folder, platforms=("cpu",), model_name="small"))
    return folder


@pytest.fixture(scope="module")
def load(folder: Path) -> Any:
    """The loader that lies in the folder."""
    spec = spec_from_file_location("exported_load", folder / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load


def inputs_of(program: Any, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Random arrays for a program."""
    rng = np.random.default_rng(0)
    found = {}
    for name, kind in program.inputs.items():
        shape = tuple(side if isinstance(side, int) else sizes[str(side)] for side in kind.shape)
        if kind.dtype in (np.int32, np.bool_):
            found[name] = rng.integers(0, 2, shape).astype(kind.dtype)
        else:
            scale = 64 if name in ("points", "clicks") else 1
            found[name] = (scale * rng.standard_normal(shape)).astype(kind.dtype)
    return found


def assert_equal(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for name in found:
        assert found[name].dtype == expected[name].dtype, name
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(expected[name]), name)


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in programs_of(small_video_model().module)
    ],
)
def test_an_exported_program_equals_the_network_to_the_bit(name: str, folder: Path, load: Any) -> None:
    model = small_video_model()
    program = programs_of(model.module)[name]
    inputs = inputs_of(program, SIZES)
    found, expected = load(folder, name)(**inputs), jax.jit(program.call)(model.params, inputs)
    if name in ORDERED_BY_SIZE:
        assert_close("masks", "an export and its network", found["masks"], expected["masks"])
        assert_close("scores", "an export and its network", found["iou_scores"], expected["iou_scores"])
        of_these_sizes = export.export(jax.jit(program.call), platforms=("cpu",))(model.params, inputs)
        found = jax.jit(of_these_sizes.call)(model.params, inputs)
    assert_equal(found, expected)


@pytest.mark.slow
def test_one_program_is_for_any_number(folder: Path, load: Any) -> None:
    model = small_video_model()
    program, run = programs_of(model.module)["decoder"], load(folder, "decoder")
    for batch, objects in ((1, 1), (3, 2)):
        inputs = inputs_of(program, SIZES | {"batch": batch, "objects": objects})
        found, expected = run(**inputs), jax.jit(program.call)(model.params, inputs)
        # A network that knows of a single image or object is another program: equal but for rounding.
        assert_close("masks", "an export and its network", found["masks"], expected["masks"])
        assert_close("scores", "an export and its network", found["iou_scores"], expected["iou_scores"])


@pytest.mark.slow
def test_a_model_for_pictures_gives_what_its_classes_give(tmp_path: Path, load: Any) -> None:
    model = model_of(smallest_config())
    names = ("encoder", "decoder_automatic")
    assert list(export_model(model, tmp_path / "out", platforms=("cpu",), only=names)) == list(names)
    pixels = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype(np.float32)
    embeddings = load(tmp_path / "out", "encoder")(pixel_values=pixels)
    expected = model.get_image_embeddings(pixels)
    assert_equal(embeddings, dict(zip(EMBEDDINGS, expected, strict=True)))
    clicks = np.array([[4, 5], [20, 30], [60, 9], [33, 33]], np.float32)
    found = load(tmp_path / "out", "decoder_automatic")(
        **embeddings, clicks=clicks, min_score=np.float32(0.4)
    )
    masks, scores = decode_clicks(model, expected, clicks, min_score=0.4)
    np.testing.assert_array_equal(np.asarray(found["masks"]), np.asarray(masks)[0])
    np.testing.assert_array_equal(np.asarray(found["iou_scores"]), np.asarray(scores)[0])


def test_the_manifest_names_everything(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    assert {path.name for path in folder.iterdir()} == {
        *(about["file"] for about in manifest["programs"].values()),
        *("load.py", MANIFEST_FILE, manifest["weights"]),
    }
    decoder = manifest["programs"]["decoder"]
    shapes = {x["name"]: (x["shape"], x["dtype"]) for x in decoder["inputs"] + decoder["outputs"]}
    assert shapes["points"] == (["batch", "objects", "points", 2], "float32")
    assert shapes["labels"] == (["batch", "objects", "points"], "int32")
    assert shapes["masks"] == (["batch", "objects", 3, 16, 16], "float32")
    assert not any(name.startswith("vision_encoder.") for name in decoder["weights"])
    assert manifest["model"]["name"] == "small"
    used = {name for about in manifest["programs"].values() for name in about["weights"]}
    assert used == set(manifest["tensors"])


def test_what_another_program_takes_is_refused(folder: Path, load: Any) -> None:
    """Left aside, a mask or a click would be missed in the result alone."""
    program = programs_of(small_video_model().module)["frame_remember"]
    run, inputs = load(folder, "frame_remember"), inputs_of(program, SIZES)
    with pytest.raises(ValueError, match=r"frame_remember takes .*; got .*, mask, mask is wrong"):
        run(**inputs, mask=np.zeros((3, 64, 64), np.float32))
    with pytest.raises(ValueError, match="got score, .* is wrong"):
        run(score=inputs["score"])


def test_the_manifest_says_all_that_makes_pixels() -> None:
    model = model_of(smallest_config())
    own = model.processor.image_processor.replace(do_normalize=False, resample=3)
    model.processor = Sam2Processor(own)
    pixels = about_model(model, "")["pixels"]
    for name in ("do_normalize", "do_rescale", "do_resize", "do_convert_rgb", "resample", "image_mean"):
        assert np.all(pixels[name] == np.asarray(own.to_dict()[name])), name
    assert (pixels["do_normalize"], pixels["resample"]) == (False, 3)


_ALONE = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from load import load
pixels = np.load(sys.argv[2])["pixels"]
found = load(sys.argv[1], "encoder")(pixel_values=pixels)
np.savez(sys.argv[3], **{name: np.asarray(x) for name, x in found.items()})
others = {"sam2_jax", "flax", "safetensors", "flatbuffers", "PIL"} & set(sys.modules)
assert not others, others
"""


def test_the_loader_imports_jax_and_numpy_alone(folder: Path, tmp_path: Path) -> None:
    """Elsewhere, where this package is not found; SAM2_JAX_BARE_PYTHON may name a bare environment."""
    python = os.environ.get("SAM2_JAX_BARE_PYTHON", sys.executable)
    pixels = np.random.default_rng(1).standard_normal((1, 64, 64, 3)).astype(np.float32)
    np.savez(tmp_path / "in.npz", pixels=pixels)
    arguments = [str(folder), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    environment = {name: x for name, x in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    subprocess.run([python, "-c", _ALONE, *arguments], check=True, cwd=tmp_path, env=environment)
    model = small_video_model()
    encode = jax.jit(lambda params, x: model.module.apply({"params": params}, x, method="encode_image"))
    expected = encode(model.params, pixels)
    with np.load(tmp_path / "out.npz") as found:
        for name, array in zip(EMBEDDINGS, expected, strict=True):
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)


_FOR_TPU = """
import sys, os
sys.path.insert(0, sys.argv[1])
os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
os.environ |= {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4"}
import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
import load as loader
device = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0]
on_tpu = SingleDeviceSharding(device)
found = []
def compile_instead(call):
    def run(*arrays):
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=on_tpu) for x in arrays]
        found.append(jit(call).trace(*shapes).lower(lowering_platforms=("tpu",)).compile().as_text())
        return [None] * 3
    return run
import numpy as np
program = loader.load(sys.argv[1], "encoder")
jit, cells = jax.jit, dict(zip(program.__code__.co_freevars, program.__closure__))
cells["run"].cell_contents = compile_instead(cells["run"].cell_contents)
program(pixel_values=np.zeros((2, 64, 64, 3), np.float32))
print(len(found[0]), "T(8,128)" in found[0])
"""


def test_the_programs_are_compiled_for_a_tpu(tmp_path: Path) -> None:
    python = os.environ.get("SAM2_JAX_TPU_PYTHON")
    if not python:
        pytest.skip("needs libtpu in an environment of its own: set SAM2_JAX_TPU_PYTHON to its Python")
    list(export_model(small_video_model(), tmp_path / "out", only=("encoder",)))
    command = [python, "-c", _FOR_TPU, str(tmp_path / "out")]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("True\n")  # laid out in tiles of a TPU


def test_an_export_holds_the_programs_of_three_platforms(tmp_path: Path) -> None:
    list(export_model(small_video_model(), tmp_path / "out", only=("frame_remember",)))
    manifest = json.loads((tmp_path / "out" / MANIFEST_FILE).read_text())
    assert manifest["platforms"] == ["cpu", "cuda", "tpu"]
    program = programs_of(small_video_model().module)["frame_remember"]
    call = export.export(jax.jit(program.call), platforms=manifest["platforms"])
    exported = call(small_video_model().params, dict(program.inputs))
    assert "_platform_index" in exported.mlir_module()


def test_the_command_writes_a_folder_whole_or_not_at_all(tmp_path: Path, capsys: Any) -> None:
    small_video_model().save_pretrained(tmp_path / "model")
    out = tmp_path / "out"
    command = ["export", "--model", str(tmp_path / "model"), "--output", str(out), "--platforms", "cpu"]
    assert main([*command, "cpu", "--programs", "frame_remember"]) == 0
    assert "1 program for cpu\n" in capsys.readouterr().out
    assert json.loads((out / MANIFEST_FILE).read_text())["platforms"] == ["cpu"]
    assert sorted(json.loads((out / MANIFEST_FILE).read_text())["programs"]) == ["frame_remember"]
    for wrong, said in (
        (["--programs", "frame_remeber"], "did you mean frame_remember?"),
        (["--platforms", "gpu"], "there is no 'gpu'; there are cpu, cuda,"),
        (["--objects", "3"], "--objects is for --onnx"),
        (["--onnx", "--points", "0"], "--points must be a whole number of at least 1"),
        (["--output", str(tmp_path / "model")], "has something else in it"),
    ):
        assert main([*command, *wrong]) == 1
        assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]
    assert (out / "frame_remember.stablehlo").exists()


def test_a_folder_that_holds_more_than_an_export_is_left_alone(tmp_path: Path) -> None:
    own, page = tmp_path / "own", tmp_path / "page"
    (own / "__pycache__").mkdir(parents=True)
    (own / MANIFEST_FILE).write_text('{"programs": {"a": {"file": "a.stablehlo"}}}')
    for name in ("a.stablehlo", "load.py", "weights.safetensors"):
        (own / name).touch()
    check_target(own)
    (own / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"something else in it, 'notes.txt'"):
        check_target(own)
    page.mkdir()
    check_target(page)
    (page / MANIFEST_FILE).write_text('{"name": "an extension of a browser"}')
    with pytest.raises(ValueError, match=r"something else in it, 'manifest.json'"):
        check_target(page)


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64:UserWarning")  # by jax2onnx itself
def test_onnx_gives_the_same_masks(tmp_path: Path) -> None:
    pytest.importorskip("jax2onnx", reason="needs jax2onnx: pip install 'sam2_jax[onnx]'")
    import onnxruntime

    from sam2_jax.scale.onnx import export_onnx

    model = model_of(smallest_config())
    names = list(export_onnx(model, tmp_path / "out", sizes={"objects": 3}))
    for name in names:
        program = programs_of(model.module)[name]
        inputs = inputs_of(program, SIZES | {"batch": 1, "points": 4})
        expected = jax.jit(program.call)(model.params, inputs)
        run = onnxruntime.InferenceSession(tmp_path / "out" / f"{name}.onnx")
        found = run.run(list(expected), inputs)
        for array, key in zip(found, expected, strict=True):
            np.testing.assert_allclose(array, expected[key], rtol=1e-3, atol=1e-3)
