"""Checkpoints on disk: both layouts, shards, video models, and every way a file can be wrong."""

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_models import random_tensors, small_config

from sam2_jax import (
    Sam2Config,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam2VideoConfig,
    Sam2VisionModel,
)
from sam2_jax.atomic import write_together
from sam2_jax.checkpoint import hub, names


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


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_numbers_are_refused(folder: Path, number: float) -> None:
    tensors = tensors_of(folder)
    for name in ("no_memory_embedding", "mask_decoder.conv_s0.bias"):
        tensors[name] = tensors[name].copy()
        tensors[name].flat[-1] = number
    rewrite(folder, tensors)
    with pytest.raises(ValueError, match="2 of [0-9]+ tensors hold NaN or infinity") as error:
        Sam2Model.from_pretrained(folder)
    assert "no_memory_embedding" in str(error.value)
    assert "mask_decoder.conv_s0.bias" in str(error.value)


def test_numbers_too_large_for_float32_are_refused(folder: Path) -> None:
    tensors = {name: tensor.astype(np.float64) for name, tensor in tensors_of(folder).items()}
    tensors["no_memory_embedding"][...] = 1e300
    rewrite(folder, tensors)
    with pytest.raises(ValueError, match="numbers too large for their type"):
        Sam2Model.from_pretrained(folder)


def write_header(path: Path, tensors: dict[str, tuple[str, tuple[int, ...], int]]) -> None:
    """A safetensors file of these names, types, shapes and bytes, whose numbers are a hole in the file."""
    header, start = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + start)


def test_a_tensor_of_an_unknown_name_is_refused_unread(folder: Path) -> None:
    """In a file of 8 GB, of which nothing is on the disk."""
    known = {name: ("F32", t.shape, 4 * t.size) for name, t in tensors_of(folder).items()}
    write_header(folder / "model.safetensors", known | {"extra": ("F32", (2**31,), 2**33)})
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"1 of [0-9]+ tensors(.|\n)*extra +- +\(2147483648,\)"):
        Sam2Model.from_pretrained(folder)
    peak = tracemalloc.get_traced_memory()[1]  # of the whole process, in which other threads may be at work
    tracemalloc.stop()
    assert peak < 2**29


def test_a_type_of_the_same_size_is_refused(folder: Path) -> None:
    """Complex numbers in place of two real ones each: no other numbers are read silently."""
    known = {name: ("F32", t.shape, 4 * t.size) for name, t in tensors_of(folder).items()}
    known["no_memory_embedding"] = ("C64", (1, 1, 16), 128)
    write_header(folder / "model.safetensors", known)
    with pytest.raises(ValueError, match="no_memory_embedding is C64; expected one of float64"):
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "mask"}, "padding must be one of"),
        ({"paddings": "masked"}, r"'paddings' of Sam2Model\.from_pretrained: did you mean padding"),
        ({"revison": "v1"}, "did you mean revision"),
        ({"device_maps": "auto"}, "did you mean device_map"),
        ({"quantization_config": {}}, "unknown option 'quantization_config'.*there are"),
        ({"dtype": "float16"}, "dtype must be float32 or bfloat16; got 'float16'"),
        ({"param_dtype": "auto"}, "param_dtype must be float32 or bfloat16"),
        ({"dtype": "auto", "torch_dtype": "auto"}, "dtype and torch_dtype are one thing"),
        ({"layout": "tf"}, "layout must be one of"),
        ({"revision": 3}, "revision must be text or None; got 3"),
        ({"subfolder": 3}, "subfolder must be text or None; got 3"),
        ({"cache_dir": 3}, "cache_dir must be text, a Path or None; got 3"),
        ({"token": 3}, "token must be text, a bool or None; got 3"),
        ({"local_files_only": "no"}, "local_files_only must be True or False; got 'no'"),
        ({"force_download": 1}, "force_download must be True or False; got 1"),
        ({"config": 3}, "config must be a Sam2Config, or a folder"),
    ],
)
def test_options_are_checked_before_anything_is_asked_of_the_hub(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: Any, **__: Any) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(hub, "get_hf_file_metadata", ask)
    with pytest.raises(ValueError, match=message):
        Sam2Model.from_pretrained("facebook/sam2.1-hiera-tiny", **options)


def test_unknown_options_name_the_class_that_was_called() -> None:
    with pytest.raises(ValueError, match=r"unknown option 'foo' of Sam2VisionModel\.from_pretrained"):
        Sam2VisionModel.from_pretrained("facebook/sam2.1-hiera-tiny", foo=1)


def test_arguments_of_transformers_are_taken(folder: Path, small_model: Sam2Model) -> None:
    loaded = Sam2Model.from_pretrained(
        pretrained_model_name_or_path=folder,
        torch_dtype="bfloat16",
        device_map="auto",
        attn_implementation="sdpa",
        low_cpu_mem_usage=True,
        use_safetensors=None,
        trust_remote_code=False,
        padding="transformers",
    )
    assert loaded.module.dtype == jnp.bfloat16
    assert loaded.padding == "transformers"
    assert Sam2Model.from_pretrained(folder, dtype="auto").module.dtype == jnp.float32
    assert Sam2Model.from_pretrained(folder, dtype=None).module.dtype == jnp.float32
    for twice in ({"model": folder, "pretrained_model_name_or_path": folder}, {}):
        with pytest.raises(ValueError, match="model"):
            Sam2Model.from_pretrained(**twice)
    fourier = {names.FOURIER, names.FOURIER_COPY}
    half = {n: t if n in fourier else t.astype(jnp.bfloat16) for n, t in tensors_of(folder).items()}
    rewrite(folder, half)
    assert Sam2Model.from_pretrained(folder, dtype="auto").module.dtype == jnp.bfloat16


def test_a_configuration_given_replaces_the_folders(folder: Path, small_model: Sam2Model) -> None:
    (folder / "config.json").unlink()
    config = small_model.config.with_image_size(64)
    assert Sam2Model.from_pretrained(folder, config=config).config == config
    config.save_pretrained(folder.parent / "other")
    assert Sam2Model.from_pretrained(folder, config=folder.parent / "other").processor.target_size == 64
    with pytest.raises(ValueError, match="does not fit the configured network"):
        Sam2Model.from_pretrained(folder, config=Sam2Config())


def test_a_model_of_another_size_is_saved_with_a_processor_that_fits(
    folder: Path, small_model: Sam2Model
) -> None:
    own = Sam2Processor(Sam2ImageProcessor(size=128, image_mean=(0.1, 0.2, 0.3)), point_pad_value=-20)
    own.save_pretrained(folder)
    resized = Sam2Model.from_pretrained(folder).with_image_size(64)
    for target in (folder.parent / "new", folder):  # into the folder with the old processor too
        resized.save_pretrained(target, layout="transformers")
        for processor in (Sam2Processor.from_pretrained(target), Sam2Model.from_pretrained(target).processor):
            assert processor.target_size == 64
            assert processor.image_processor.mask_size == {"height": 16, "width": 16}
            assert tuple(processor.image_processor.image_mean) == (0.1, 0.2, 0.3)
            assert processor.point_pad_value == -20
    # An older processor beside a newer configuration: the model's own fits.
    own.save_pretrained(folder)
    assert Sam2Processor.from_pretrained(folder).target_size == 128
    assert Sam2Model.from_pretrained(folder).processor.target_size == 64


def test_a_processor_that_fits_is_left_as_it_is(folder: Path, small_model: Sam2Model) -> None:
    Sam2Processor(Sam2ImageProcessor(size=128, image_mean=(0.1, 0.2, 0.3))).save_pretrained(folder)
    before = (folder / "processor_config.json").read_bytes()
    small_model.save_pretrained(folder, layout="transformers")
    assert (folder / "processor_config.json").read_bytes() == before
