"""A file of weights in place of a folder: Meta's, trainers', anyone's names, and what wraps them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from meta_files import as_meta, dictionary, integer, write_archive, write_meta
from safetensors.numpy import save_file
from small_models import model_of, random_tensors, smallest_config

from sam2_jax import (
    AutoModel,
    Sam2Config,
    Sam2HieraDetModel,
    Sam2Model,
    Sam2Processor,
    Sam2VideoConfig,
    Sam2VisionModel,
    pipeline,
    released_config,
)
from sam2_jax.checkpoint import names, reading
from sam2_jax.checkpoint.parameters import parameter_shapes
from sam2_jax.commands import main

CONFIG = smallest_config()
TENSORS = random_tensors(CONFIG)
FLAT = names.to_flax(TENSORS)
META = as_meta(TENSORS)


def prefixed(prefix: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {prefix + name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def bare(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """A state dict that is all of a file."""
    return write_meta(path, tensors, keys=())


def under(*keys: str) -> Callable[[Path, Mapping[str, np.ndarray]], Path]:
    return lambda path, tensors: write_meta(path, tensors, keys=keys, epoch=integer(3))


def safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    save_file(dict(tensors), path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


FILES: dict[str, tuple[Any, dict[str, np.ndarray]]] = {
    "Meta's": (under("model"), META),
    "bare": (bare, META),
    "state_dict": (under("state_dict"), META),
    "another key": (under("weights_of_the_student"), META),
    "deeper": (under("model", "state_dict"), META),
    "DDP": (bare, prefixed("module.", META)),
    "compiled": (under("model"), prefixed("_orig_mod.", META)),
    "compiled DDP": (bare, prefixed("_orig_mod.module.", META)),
    "DDP compiled": (bare, prefixed("module._orig_mod.", META)),
    "compiled encoder": (bare, {n.replace("trunk.", "trunk._orig_mod."): t for n, t in META.items()}),
    "Lightning": (under("state_dict"), prefixed("model.net._orig_mod.", META)),
    "transformers' names": (bare, TENSORS),
    "safetensors, Meta's names": (safetensors, prefixed("module.", META)),
    "safetensors, transformers' names": (safetensors, TENSORS),
    "safetensors, Flax names": (safetensors, prefixed("", FLAT)),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_same_model_comes_out(tmp_path: Path, kind: str) -> None:
    write, tensors = FILES[kind]
    path = write(tmp_path / "x.pt", tensors)
    found = names.flatten(Sam2Model.from_pretrained(path, config=CONFIG).params)
    assert found.keys() == FLAT.keys()
    for name, tensor in FLAT.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def test_parts_and_processors_are_had_of_a_file(tmp_path: Path) -> None:
    path = str(write_meta(tmp_path / "x.pt", META))
    vision = CONFIG.vision_config
    part = "vision_encoder.backbone.pos_embed"
    for loaded in (
        Sam2VisionModel.from_pretrained(path, config=CONFIG),
        Sam2VisionModel.from_pretrained(path, config=vision),
        Sam2HieraDetModel.from_pretrained(path, config=vision),
        Sam2HieraDetModel.from_pretrained(path, config=vision.backbone_config),
    ):
        flat = names.flatten(loaded.params)
        (name,) = [name for name in flat if name.endswith("pos_embed")]
        np.testing.assert_array_equal(flat[name], FLAT[part])
    assert Sam2Processor.from_pretrained(path).target_size == 1024  # as for all of Meta's
    assert Sam2Model.from_pretrained(path, config=CONFIG).processor.target_size == 64


def test_a_file_of_another_size_takes_the_configuration_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_meta(tmp_path / "x.pt", META)
    with pytest.raises(ValueError, match=r"released size, tiny .*got \(8, 5\).*config\.json beside"):
        Sam2Model.from_pretrained(path)
    assert main(["segment", "--model", str(path)]) == 1
    assert "config.json beside" in capsys.readouterr().err
    CONFIG.save_pretrained(tmp_path)
    assert Sam2Model.from_pretrained(path).config == CONFIG
    assert pipeline("mask-generation", model=str(path)).model.config == CONFIG
    assert AutoModel.from_pretrained(str(path)).config == CONFIG
    assert main(["convert", str(path), str(tmp_path / "out"), "--to", "flax"]) == 0
    assert Sam2Model.from_pretrained(tmp_path / "out").config == CONFIG


def test_what_was_saved_is_read_by_its_file_too(tmp_path: Path) -> None:
    model_of(CONFIG).save_pretrained(tmp_path)
    assert Sam2Model.from_pretrained(tmp_path / "flax_model.safetensors").processor.target_size == 64


def test_released_sizes_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By names and shapes, of numbers that need no memory."""
    config = released_config("facebook/sam2.1-hiera-base-plus")
    zeros = {n: np.broadcast_to(np.float32(0), s) for n, s in parameter_shapes(config).items()}
    meta = {name: tensor.shape for name, tensor in as_meta(names.to_torch(zeros)).items()}
    path = tmp_path / "x.pt"
    empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in meta.items()}
    write_meta(path, empty, whole=False)
    read: list[Any] = []
    monkeypatch.setattr(reading, "read_numbers", lambda headers, *_: read.append(headers) or zeros)
    found = reading.read_checkpoint(reading.HubFolder(path), kind=Sam2Config)
    assert found.config == config
    assert names.shapes(read[0]) == parameter_shapes(config)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (dictionary({"epoch": integer(1)}), "tensors by name.*got the keys 'epoch'"),
        (b"]", "got a list"),
        (b"N", "got a NoneType"),
    ],
)
def test_a_file_without_a_model_says_what_it_has(tmp_path: Path, contents: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sam2Model.from_pretrained(write_archive(tmp_path / "x.pt", contents))


def test_the_video_memory_beside_is_left_unread(tmp_path: Path) -> None:
    """Of a file whose memory is not even there."""
    path = safetensors(tmp_path / "x.pt", TENSORS | {"no_object_pointer": np.zeros((1, 3), np.float32)})
    video = Sam2VideoConfig.from_dict(CONFIG.to_dict() | {"model_type": "sam2_video"})
    assert Sam2Model.from_pretrained(path, config=video).config == CONFIG
