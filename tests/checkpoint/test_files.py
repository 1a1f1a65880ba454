"""Checkpoints on disk: both layouts, shards, video models, and every way a file can be wrong."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_models import random_tensors, small_config

from sam2_jax import Sam2Model, Sam2VideoConfig
from sam2_jax.atomic import write_together
from sam2_jax.checkpoint import names


@pytest.fixture
def folder(small_model: Sam2Model, tmp_path: Path) -> Path:
    """A small model in transformers' layout."""
    small_model.save_pretrained(tmp_path / "model", layout="transformers")
    return tmp_path / "model"


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def rewrite(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def shard(folder: Path) -> None:
    """Split a folder's weights into two shards with an index, as transformers does."""
    tensors = tensors_of(folder)
    halves = [dict(list(tensors.items())[i::2]) for i in range(2)]
    weight_map = {}
    for i, half in enumerate(halves, 1):
        name = f"model-{i:05d}-of-00002.safetensors"
        save_file(half, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(half, name)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def assert_loads_as(folder: Path, model: Sam2Model) -> None:
    loaded = Sam2Model.from_pretrained(folder)
    assert loaded.config == model.config
    left, right = names.flatten(loaded.params), names.flatten(model.params)
    assert left.keys() == right.keys()
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)


@pytest.mark.parametrize("layout", ["flax", "transformers"])
def test_what_was_saved_is_loaded_bit_for_bit(layout: str, small_model: Sam2Model, tmp_path: Path) -> None:
    small_model.save_pretrained(tmp_path / "a" / "b", layout=layout)
    assert_loads_as(tmp_path / "a" / "b", small_model)


def test_transformers_layout_has_its_names_and_torch_shapes(folder: Path) -> None:
    saved, expected = tensors_of(folder), random_tensors(small_config())
    assert saved.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(saved[name], tensor, err_msg=name)


def test_both_layouts_in_one_folder_need_a_choice(folder: Path, small_model: Sam2Model) -> None:
    small_model.save_pretrained(folder, layout="flax")
    with pytest.raises(ValueError, match=r"layouts \['flax', 'transformers'\]; choose one with layout="):
        Sam2Model.from_pretrained(folder)
    for layout in ("flax", "transformers"):
        Sam2Model.from_pretrained(folder, layout=layout)
    with pytest.raises(ValueError, match="layout must be one of .*; got 'tf'"):
        Sam2Model.from_pretrained(folder, layout="tf")
    with pytest.raises(ValueError, match="layout must be one of .*; got 'tf'"):
        small_model.save_pretrained(folder, layout="tf")


def test_shards_are_joined(folder: Path, small_model: Sam2Model) -> None:
    shard(folder)
    assert_loads_as(folder, small_model)


def test_a_missing_shard_is_named(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match="has no file model-00002-of-00002.safetensors"):
        Sam2Model.from_pretrained(folder)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/x.safetensors", 5])
def test_a_shard_outside_the_folder_is_refused(folder: Path, name: object) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="shards must lie beside the index"):
        Sam2Model.from_pretrained(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_a_broken_index_is_named(folder: Path, text: str) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match="is not valid JSON|is not a safetensors index with a weight_map"):
        Sam2Model.from_pretrained(folder)


def test_a_tensor_in_two_shards_is_refused(folder: Path) -> None:
    shard(folder)
    first = load_file(folder / "model-00001-of-00002.safetensors")
    second = load_file(folder / "model-00002-of-00002.safetensors")
    name = next(iter(first))
    save_file(second | {name: first[name]}, folder / "model-00002-of-00002.safetensors")
    with pytest.raises(ValueError, match=f"repeats tensors of another shard: {name}"):
        Sam2Model.from_pretrained(folder)


def test_a_video_checkpoint_gives_its_image_model(folder: Path, small_model: Sam2Model) -> None:
    config = Sam2VideoConfig.from_dict(small_model.config.to_dict() | {"model_type": "sam2_video"})
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    memory = {
        "memory_attention.layers.0.self_attn.q_proj.weight": np.zeros((4, 4), np.float32),
        "memory_temporal_positional_encoding": np.zeros((7, 1, 1, 4), np.float32),
        "no_object_pointer": np.zeros((1, 4), np.float32),
        "mask_downsample.weight": np.zeros((1, 1, 4, 4), np.float32),
    }
    rewrite(folder, tensors_of(folder) | memory)
    assert_loads_as(folder, small_model)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floating_types_are_read(folder: Path, small_model: Sam2Model, dtype: str) -> None:
    rewrite(folder, {name: tensor.astype(jnp.dtype(dtype)) for name, tensor in tensors_of(folder).items()})
    loaded = Sam2Model.from_pretrained(folder)
    for name, value in names.flatten(loaded.params).items():
        assert value.dtype == jnp.float32
        expected = np.asarray(names.flatten(small_model.params)[name]).astype(jnp.dtype(dtype))
        np.testing.assert_array_equal(value, expected.astype(np.float32), err_msg=name)


def test_parameters_can_be_kept_in_bfloat16(folder: Path, tmp_path: Path) -> None:
    model = Sam2Model.from_pretrained(folder, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    dtypes = {name: value.dtype for name, value in names.flatten(model.params).items()}
    assert dtypes.pop(names.FOURIER) == jnp.float32  # rounded, it would move every position
    assert set(dtypes.values()) == {jnp.dtype(jnp.bfloat16)}
    model.save_pretrained(tmp_path / "bf16")
    again = Sam2Model.from_pretrained(tmp_path / "bf16", param_dtype=jnp.bfloat16)
    name = "no_memory_embedding"
    np.testing.assert_array_equal(model.params[name], again.params[name])


def test_missing_unexpected_and_misshaped_tensors_stand_side_by_side(folder: Path) -> None:
    tensors = tensors_of(folder)
    tensors["mask_decoder.extra.weight"] = np.zeros((2, 3), np.float32)
    del tensors["no_memory_embedding"]
    tensors["mask_decoder.conv_s0.bias"] = np.zeros((9,), np.float32)
    rewrite(folder, tensors)
    with pytest.raises(ValueError, match="does not fit the configured network: 3 of") as error:
        Sam2Model.from_pretrained(folder)
    rows = [line.split("  ") for line in str(error.value).splitlines()]
    cells = {row[1]: [cell.strip() for cell in row[2:] if cell.strip()] for row in rows if len(row) > 2}
    assert cells["mask_decoder.conv_s0.bias"] == ["(4,)", "(9,)"]
    assert cells["mask_decoder.extra.weight"] == ["-", "(2, 3)"]
    assert cells["no_memory_embedding"] == ["(1, 1, 32)", "-"]


def test_quantised_weights_are_refused(folder: Path) -> None:
    tensors = tensors_of(folder)
    tensors["no_memory_embedding"] = np.zeros((1, 1, 32), np.int8)
    rewrite(folder, tensors)
    with pytest.raises(ValueError, match="no_memory_embedding is I8; expected one of float64, float32"):
        Sam2Model.from_pretrained(folder)


@pytest.mark.parametrize("keep", [0, 4, 200, 100_000])
def test_truncated_weights_are_named(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read as safetensors: it is truncated"):
        Sam2Model.from_pretrained(folder)


def test_corrupt_weights_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[:16] = os.urandom(8) + b"not json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="truncated, corrupt or another format"):
        Sam2Model.from_pretrained(folder)


def test_an_empty_folder_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no file config.json"):
        Sam2Model.from_pretrained(tmp_path)


@pytest.mark.parametrize("failing", ["model.safetensors", "config.json"])
def test_an_interrupted_save_leaves_the_old_files_whole(
    failing: str, folder: Path, small_model: Sam2Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = Sam2Model(small_model.config, jax.tree.map(lambda x: x + 1, small_model.params))
    replaced = os.fsync
    calls = []

    def stop_at_file(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == ["model.safetensors", "config.json"].index(failing) + 1:
            raise KeyboardInterrupt
        replaced(descriptor)

    monkeypatch.setattr(os, "fsync", stop_at_file)
    with pytest.raises(KeyboardInterrupt):
        other.save_pretrained(folder, layout="transformers")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_unwritable_target_is_named(small_model: Sam2Model, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot write .*Choose a folder you may write to"):
        small_model.save_pretrained(tmp_path / "file")


def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_together({tmp_path / "new": lambda path: path.write_text("x")})
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
