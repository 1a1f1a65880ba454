"""Conversion: Meta's names, the command, what it writes and what it refuses."""

import json
import math
import os
import re
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from meta_files import as_meta, dictionary, integer, meta_name, text, view, write_archive, write_meta
from safetensors.numpy import load_file
from small_models import random_tensors, smallest_config, smallest_video_config

from convert import verify
from convert.__main__ import main
from sam2_jax import RELEASED_MODELS, Sam2Config, Sam2Model, released_config
from sam2_jax.checkpoint import files, names
from sam2_jax.checkpoint.files import write_checkpoint
from sam2_jax.checkpoint.meta_names import detect_config, to_transformers, transformers_names
from sam2_jax.checkpoint.pretrained import parameter_shapes
from sam2_jax.checkpoint.tensors import Header
from sam2_jax.config import read_config, released_video_config

# Of each part of the video model's memory one tensor or more, Meta's name -> transformers'.
MEMORY = {
    "maskmem_tpos_enc": "memory_temporal_positional_encoding",
    "no_mem_pos_enc": "no_memory_positional_encoding",
    "no_obj_ptr": "no_object_pointer",
    "mask_downsample.weight": "mask_downsample.weight",
    "obj_ptr_proj.layers.0.weight": "object_pointer_proj.proj_in.weight",
    "obj_ptr_proj.layers.1.weight": "object_pointer_proj.layers.0.weight",
    "obj_ptr_proj.layers.2.bias": "object_pointer_proj.proj_out.bias",
    "memory_attention.norm.weight": "memory_attention.layer_norm.weight",
    "memory_attention.layers.3.norm2.bias": "memory_attention.layers.3.layer_norm2.bias",
    "memory_attention.layers.0.linear1.weight": "memory_attention.layers.0.linear1.weight",
    "memory_attention.layers.1.cross_attn_image.out_proj.weight": (
        "memory_attention.layers.1.cross_attn_image.o_proj.weight"
    ),
    "memory_encoder.mask_downsampler.encoder.1.weight": (
        "memory_encoder.mask_downsampler.layers.0.layer_norm.weight"
    ),
    "memory_encoder.mask_downsampler.encoder.9.weight": (
        "memory_encoder.mask_downsampler.layers.3.conv.weight"
    ),
    "memory_encoder.mask_downsampler.encoder.12.bias": "memory_encoder.mask_downsampler.final_conv.bias",
    "memory_encoder.pix_feat_proj.weight": "memory_encoder.feature_projection.weight",
    "memory_encoder.fuser.layers.1.dwconv.weight": (
        "memory_encoder.memory_fuser.layers.1.depthwise_conv.weight"
    ),
    "memory_encoder.fuser.layers.0.gamma": "memory_encoder.memory_fuser.layers.0.scale",
    "memory_encoder.fuser.layers.0.pwconv2.bias": "memory_encoder.memory_fuser.layers.0.pointwise_conv2.bias",
    "memory_encoder.out_proj.bias": "memory_encoder.projection.bias",
    "no_obj_embed_spatial": "occlusion_spatial_embedding_parameter",
    "obj_ptr_tpos_proj.weight": "temporal_positional_encoding_projection_layer.weight",
}


def headers(tensors: Mapping[str, np.ndarray]) -> dict[str, Header]:
    return {name: Header.of(tensor) for name, tensor in tensors.items()}


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path, dict[str, np.ndarray]]:
    """A small image model as Meta would keep it: the `.pt` file, its config.json, transformers' tensors."""
    tensors = random_tensors(smallest_config())
    config = tmp_path / "small.json"
    config.write_text(json.dumps(smallest_config().to_dict()))
    return write_meta(tmp_path / "small.pt", as_meta(tensors)), config, tensors


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def same(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype
        and a[name].shape == b[name].shape
        and a[name].tobytes() == b[name].tobytes()
        for name in a
    )


# Names


@pytest.mark.parametrize(
    ("meta", "transformers"),
    [
        ("no_mem_embed", "no_memory_embedding"),
        ("image_encoder.trunk.pos_embed_window", "vision_encoder.backbone.pos_embed_window"),
        ("image_encoder.trunk.patch_embed.proj.bias", "vision_encoder.backbone.patch_embed.projection.bias"),
        ("image_encoder.trunk.blocks.1.proj.weight", "vision_encoder.backbone.blocks.1.proj.weight"),
        ("image_encoder.trunk.blocks.10.norm2.bias", "vision_encoder.backbone.blocks.10.layer_norm2.bias"),
        (
            "image_encoder.trunk.blocks.3.mlp.layers.1.bias",
            "vision_encoder.backbone.blocks.3.mlp.proj_out.bias",
        ),
        ("image_encoder.neck.convs.3.conv.weight", "vision_encoder.neck.convs.3.weight"),
        ("sam_prompt_encoder.mask_downscaling.4.bias", "prompt_encoder.mask_embed.layer_norm2.bias"),
        ("sam_prompt_encoder.mask_downscaling.6.bias", "prompt_encoder.mask_embed.conv3.bias"),
        ("sam_mask_decoder.output_upscaling.3.bias", "mask_decoder.upscale_conv2.bias"),
        (
            "sam_mask_decoder.iou_prediction_head.layers.1.bias",
            "mask_decoder.iou_prediction_head.layers.0.bias",
        ),
        (
            "sam_mask_decoder.output_hypernetworks_mlps.2.layers.2.weight",
            "mask_decoder.output_hypernetworks_mlps.2.proj_out.weight",
        ),
        (
            "sam_mask_decoder.transformer.layers.0.self_attn.out_proj.bias",
            "mask_decoder.transformer.layers.0.self_attn.o_proj.bias",
        ),
        (
            "sam_mask_decoder.transformer.norm_final_attn.bias",
            "mask_decoder.transformer.layer_norm_final_attn.bias",
        ),
        *MEMORY.items(),
    ],
)
def test_names(meta: str, transformers: str) -> None:
    assert transformers_names(meta) == (transformers,)
    assert meta_name(transformers) == meta


def test_names_equal_the_reference_table(reference_dir: Path) -> None:
    table = json.loads((reference_dir / "spec" / "meta_to_hf_names_tiny.json").read_text())
    assert {meta: transformers_names(meta)[0] for meta, name in table.items() if name != "(special)"} == {
        meta: name for meta, name in table.items() if name != "(special)"
    }
    shapes = json.loads((reference_dir / "spec" / "meta_tiny_shapes.json").read_text())
    for version in ("2.0", "2.1"):
        only_2_1 = () if version == "2.1" else ("no_obj_embed_spatial", "obj_ptr_tpos_proj")
        tensors = {
            name: np.broadcast_to(np.float32(0), shape)
            for name, shape in shapes.items()
            if not name.startswith(only_2_1 or "?")
        }
        expected = json.loads((reference_dir / "spec" / f"hf_video_{version}_tiny_shapes.json").read_text())
        renamed = names.shapes(to_transformers(headers(tensors)))
        assert renamed == {name: tuple(shape) for name, shape in expected.items()}
        model = f"facebook/sam2{'' if version == '2.0' else '.1'}-hiera-tiny"
        assert detect_config(renamed) == released_video_config(model)


SIZES = [model for model, (version, _) in RELEASED_MODELS.items() if version == "2.1"]


@pytest.mark.slow
@pytest.mark.parametrize("model", SIZES)
def test_names_of_all_sizes_follow_from_those_of_tiny(reference_dir: Path, model: str) -> None:
    """Meta names the blocks of all sizes alike; the first block of every stage but the first has a `proj`."""
    table = json.loads((reference_dir / "spec" / "meta_to_hf_names_tiny.json").read_text())
    backbone = released_config(model).vision_config.backbone_config
    block = re.compile(r"(image_encoder\.trunk\.blocks\.)(\d+)(\..*)")
    leaves = {match[3] for name in table if (match := block.match(name)) and match[2] == "1"}
    meta = [name for name in table if not block.match(name)]
    for i in range(sum(backbone.blocks_per_stage)):
        is_wider = i - 1 in backbone.stage_ends[:-1]
        meta += [
            f"image_encoder.trunk.blocks.{i}{leaf}"
            for leaf in leaves
            if is_wider or not leaf.startswith(".proj")
        ]
    found = {name for m in meta for name in transformers_names(m) if not names.is_video_only(name)}
    assert found == {names.torch_name(name) for name in parameter_shapes(released_config(model))} | {
        names.FOURIER_COPY
    }


@pytest.mark.parametrize("model", RELEASED_MODELS)
def test_released_models_are_recognised(model: str) -> None:
    config = released_video_config(model)
    shapes = names.torch_shapes(parameter_shapes(config.image_config))
    assert detect_config(shapes) == config.image_config
    assert detect_config(names.torch_shapes(parameter_shapes(config))) == config


@pytest.mark.parametrize("version", ["2.0", "2.1"])
def test_the_video_network_is_that_of_the_reference(reference_dir: Path, version: str) -> None:
    expected = json.loads((reference_dir / "spec" / f"hf_video_{version}_tiny_shapes.json").read_text())
    video = released_video_config(f"facebook/sam2{'.1' * (version == '2.1')}-hiera-tiny")
    found = names.torch_shapes(parameter_shapes(video))
    assert found == {name: tuple(shape) for name, shape in expected.items()}


# Conversion


def test_round_trip_is_bitwise(tmp_path: Path, small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    source, config, tensors = small
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert run(source, first, "--to", "transformers", "--config", config) == 0
    options = '{"pred_iou_thresh": 0.5}'
    (first / "mask_generation.json").write_text(options)
    assert run(first, second, "--to", "flax") == 0
    assert run(second, third, "--to", "transformers") == 0
    assert same(load_file(first / "model.safetensors"), tensors)
    assert same(load_file(third / "model.safetensors"), tensors)
    assert same(load_file(second / "flax_model.safetensors"), names.to_flax(tensors))
    assert (third / "mask_generation.json").read_text() == options
    for folder in (first, second, third):
        assert read_config(folder / "config.json") == smallest_config()
        processor = json.loads((folder / "processor_config.json").read_text())
        assert processor["image_processor"]["size"] == {"height": 64, "width": 64}
    out, err = capsys.readouterr()
    assert "image model" in out
    assert "float32" in out
    for step in ("finding", "checking and reading", "writing"):
        assert len(re.findall(rf"{step}.* s$", err, re.MULTILINE)) == 3


def test_what_another_model_left_in_the_folder_is_not_taken_for_this_ones(tmp_path: Path, small: Any) -> None:
    source, config, _ = small
    first, target = tmp_path / "first", tmp_path / "target"
    assert run(source, first, "--to", "transformers", "--config", config) == 0
    processor = json.loads((first / "processor_config.json").read_text())["image_processor"]
    (first / "processor_config.json").unlink()
    (first / "preprocessor_config.json").write_text(json.dumps(processor | {"image_mean": [0.1, 0.2, 0.3]}))
    assert run(source, target, "--to", "flax", "--config", config) == 0
    (target / "mask_generation.json").write_text('{"points_per_side": 7}')
    assert run(first, target, "--to", "flax") == 0
    model = Sam2Model.from_pretrained(target)
    assert model.processor.image_processor.image_mean == (0.1, 0.2, 0.3)
    assert model.generation_options == {}


@pytest.mark.parametrize("version", ["2.0", "2.1"])
def test_video_memory_is_kept(tmp_path: Path, version: str) -> None:
    video = smallest_video_config(version)
    tensors = random_tensors(video)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(video.to_dict()))
    source = write_meta(tmp_path / "x.pt", as_meta(tensors))
    assert run(source, tmp_path / "flax", "--to", "flax", "--config", config) == 0
    assert run(tmp_path / "flax", tmp_path / "transformers", "--to", "transformers") == 0
    assert same(load_file(tmp_path / "transformers" / "model.safetensors"), tensors)
    assert read_config(tmp_path / "transformers" / "config.json") == video


@pytest.mark.parametrize("layout", ["meta", "flax", "transformers"])
def test_a_memory_that_does_not_fit_is_refused(
    tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    video = smallest_video_config()
    config = tmp_path / "config.json"
    config.write_text(json.dumps(video.to_dict()))
    missing, longer = "memory_attention.layers.1.linear2.bias", "memory_temporal_positional_encoding"
    tensors = random_tensors(video)
    del tensors[missing]
    tensors[longer] = np.zeros((21, 1, 1, 8), np.float32)
    if layout == "meta":
        source = [write_meta(tmp_path / "x.pt", as_meta(tensors)), "--config", config]
    else:
        write_checkpoint(tmp_path / "x", names.to_flax(tensors), video, layout)
        source = [tmp_path / "x"]
    capsys.readouterr()
    assert run(*source, tmp_path / "out", "--to", "flax") == 1
    said = capsys.readouterr().err
    assert "2 of" in said
    assert re.search(rf"{longer} +\(7, 1, 1, 8\) +\(21, 1, 1, 8\)", said)
    assert re.search(r"memory_attention\.layers[._]1\.linear2\.bias +\(16,\) +-", said)
    assert not (tmp_path / "out").exists()
    # The image model in it is whole.
    Sam2Model.from_pretrained(source[0], config=video)


def test_image_only_fine_tune(tmp_path: Path, small: Any) -> None:
    """What a trainer saves beside the model is ignored, unreadable storages included."""
    _, config, tensors = small
    optimizer = dictionary({"state": view((6,), (1,)).replace(text("0"), text("999"))})
    source = write_meta(tmp_path / "tuned.pt", as_meta(tensors), optimizer=optimizer, epoch=integer(3))
    assert run(source, tmp_path / "out", "--to", "flax", "--config", config) == 0
    assert isinstance(read_config(tmp_path / "out" / "config.json"), Sam2Config)
    Sam2Model.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize(
    ("stored", "asked", "written"),
    [
        (np.float32, None, np.float32),
        (np.float16, None, np.float32),
        (np.float64, None, np.float32),
        (ml_dtypes.bfloat16, None, ml_dtypes.bfloat16),
        (ml_dtypes.bfloat16, "float32", np.float32),
        (np.float32, "bfloat16", ml_dtypes.bfloat16),
    ],
)
def test_dtypes(tmp_path: Path, small: Any, stored: Any, asked: str | None, written: Any) -> None:
    _, config, tensors = small
    tensors = {name: tensor.astype(stored) for name, tensor in tensors.items()}
    source = write_meta(tmp_path / "x.pt", as_meta(tensors))
    options = ["--config", config, *(["--dtype", asked] if asked else [])]
    assert run(source, tmp_path / "out", "--to", "transformers", *options) == 0
    fourier = {names.FOURIER, names.FOURIER_COPY}  # always float32: rounded, it would move every position
    expected = {name: t.astype(np.float32 if name in fourier else written) for name, t in tensors.items()}
    assert same(load_file(tmp_path / "out" / "model.safetensors"), expected)
    assert run(tmp_path / "out", tmp_path / "flax", "--to", "flax") == 0
    found = load_file(tmp_path / "flax" / "flax_model.safetensors")
    assert found.pop(names.FOURIER).dtype == np.float32
    assert {tensor.dtype for tensor in found.values()} == {np.dtype(written)}


def test_reads_shards(tmp_path: Path, small: Any) -> None:
    source, config, tensors = small
    folder = tmp_path / "shards"
    assert run(source, folder, "--to", "transformers", "--config", config) == 0
    (folder / "model.safetensors").unlink()
    shard_of = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for shard in set(shard_of.values()):
        part = {name: np.ascontiguousarray(t) for name, t in tensors.items() if shard_of[name] == shard}
        files.save_file(part, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shard_of}))
    assert run(folder, tmp_path / "whole", "--to", "transformers") == 0
    assert same(load_file(tmp_path / "whole" / "model.safetensors"), tensors)
    assert run(folder, folder, "--to", "transformers") == 1


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail; return its error message."""
    capsys.readouterr()
    assert run(*arguments) == 1
    errors = re.findall(r"^error: .*", capsys.readouterr().err, re.MULTILINE)
    assert len(errors) == 1
    return errors[0]


def test_errors_of_the_source(tmp_path: Path, small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, config, tensors = small
    out, path = tmp_path / "out", tmp_path / "x.pt"
    meta = as_meta(tensors)

    def error(*options: object) -> str:
        return failure(capsys, path, out, "--to", "flax", *options)

    assert "does not exist" in error()
    write_archive(path, dictionary({"state_dict": b"}", "epoch": integer(1)}))
    assert "must hold a model's tensors by name" in error()
    assert "the keys 'state_dict', 'epoch'" in error()
    write_archive(path, b"]")
    assert "got a list" in error()
    write_archive(path, dictionary({"model": dictionary({"a": integer(1)})}))
    assert "must hold a model's tensors by name" in error()
    write_meta(path, {"a": np.ones(1, np.float32)})
    assert "has no tensors named as SAM 2's are; got a" in error()
    write_meta(path, meta)
    assert (
        "of a released size, tiny (96, 12), small (96, 16), base-plus (112, 24), large (144, 48); got (8, 5)"
        in (error())
    )
    write_meta(path, {name: tensor for name, tensor in meta.items() if "point_embeddings.2" not in name})
    assert "x.pt does not fit the configured network: 4 of" in error("--config", config)
    write_meta(path, {("extra" if name == "no_mem_embed" else name): tensor for name, tensor in meta.items()})
    assert "x.pt does not fit the configured network: 2 of" in error("--config", config)
    write_meta(path, meta | {"no_mem_embed": np.ones((1, 1, 16), np.int64)})
    assert "tensor no_memory_embedding is int64; expected one of" in error("--config", config)
    write_meta(path, as_meta(random_tensors(smallest_video_config())))
    assert "model_type must be sam2_video" in error("--config", config)
    path.write_text("not a checkpoint")
    assert "is not a PyTorch .pt file" in error()
    assert not out.exists()


def test_errors_of_the_target(tmp_path: Path, small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    source, config, _ = small
    folder = tmp_path / "folder"
    assert run(source, folder, "--to", "flax", "--config", config) == 0
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert "must not be the source's own folder" in failure(capsys, folder, folder, "--to", "flax")
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert "must not be the source's own folder" in failure(capsys, folder, link, "--to", "transformers")
    message = failure(capsys, source, folder, "--to", "transformers", "--config", config)
    assert "already holds weights in layout flax" in message
    assert "it is a file" in failure(capsys, source, config, "--to", "flax", "--config", config)
    assert "must not be the source's own folder" in failure(
        capsys, folder / "flax_model.safetensors", folder, "--to", "flax"
    )
    assert "--config is for single files only" in failure(
        capsys, folder, tmp_path / "o", "--to", "transformers", "--config", config
    )
    write_checkpoint(
        folder, names.to_flax(random_tensors(smallest_config())), smallest_config(), "transformers"
    )
    assert "choose one with --source-layout" in failure(capsys, folder, tmp_path / "o", "--to", "flax")
    assert run(folder, tmp_path / "o", "--to", "flax", "--source-layout", "transformers") == 0
    (folder / "model.safetensors").unlink()
    assert {path: path.read_bytes() for path in before if path.name != "config.json"} == {
        path: content for path, content in before.items() if path.name != "config.json"
    }


@pytest.mark.parametrize("interruption", [OSError("disk full"), KeyboardInterrupt()])
def test_interrupted_write_leaves_the_old_files_whole(
    tmp_path: Path, small: Any, monkeypatch: pytest.MonkeyPatch, interruption: BaseException
) -> None:
    source, config, _ = small
    out = tmp_path / "out"
    assert run(source, out, "--to", "flax", "--config", config) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def save_half(tensors: Any, path: Path, **_: Any) -> None:
        Path(path).write_bytes(b"half")
        raise interruption

    monkeypatch.setattr(files, "save_file", save_half)
    status = 1 if isinstance(interruption, OSError) else 130
    assert run(source, out, "--to", "flax", "--config", config, "--dtype", "bfloat16") == status
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_command_needs_no_torch(tmp_path: Path, small: Any) -> None:
    source, config, _ = small
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    command = [sys.executable, "-m", "convert", source, tmp_path / "out", "--to", "flax", "--config", config]
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "flax_model.safetensors").is_file()


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "python -m convert sam2.1_hiera_tiny.pt" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["source", "target"])
    assert stop.value.code == 2


# Verification


def test_verify_without_torch(
    tmp_path: Path, small: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, config, _ = small
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run(source, tmp_path / "out", "--to", "flax", "--config", config, "--verify") == 0
    out = capsys.readouterr().out
    assert "reload bit for bit" in out
    assert "not compared with transformers" in out


def test_verify_finds_a_changed_tensor(
    tmp_path: Path, small: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, config, _ = small
    save = files.save_file

    def save_changed(tensors: Any, path: Path, **options: Any) -> None:
        changed = "no_memory_embedding"
        save(tensors | {changed: np.nextafter(tensors[changed], np.float32(9))}, path, **options)

    monkeypatch.setattr(files, "save_file", save_changed)
    message = failure(capsys, source, tmp_path / "out", "--to", "flax", "--config", config, "--verify")
    assert "does not reload as it was written: no_memory_embedding" in message


def test_verify_against_transformers(
    tmp_path: Path, small: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    source, config, _ = small
    folder = tmp_path / "transformers"
    assert run(source, folder, "--to", "transformers", "--config", config, "--verify") == 0
    assert run(folder, tmp_path / "flax", "--to", "flax", "--dtype", "bfloat16", "--verify") == 0
    found = re.findall(r"features (\S+), IoU scores (\S+), mask logits (\S+) ", capsys.readouterr().out)
    assert len(found) == 2
    assert all(float(number) < 1e-4 for numbers in found for number in numbers)

    monkeypatch.setattr(verify, "TOLERANCE", 0.0)
    message = failure(capsys, folder, tmp_path / "flax", "--to", "flax", "--verify")
    assert "must agree with transformers" in message


@pytest.mark.slow
@pytest.mark.parametrize("version", ["2.0", "2.1"])
def test_full_size_video_checkpoint(
    tmp_path: Path, reference_dir: Path, version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint of hiera-tiny as Meta's trainer saves it, from torch.save to transformers' own modules."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    shapes = json.loads((reference_dir / "spec" / "meta_tiny_shapes.json").read_text())
    if version == "2.0":
        only_2_1 = ("no_obj_embed_spatial", "obj_ptr_tpos_proj")
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith(only_2_1)}
    image = as_meta(random_tensors(released_config("facebook/sam2-hiera-tiny")))
    generator = torch.Generator().manual_seed(0)
    model = {
        name: torch.from_numpy(image[name].copy())
        if name in image
        # Not wider than trained weights: scores of hundreds make of the softmax a choice that rounding turns.
        else torch.randn(shape, generator=generator) / math.prod(shape[1:]) ** 0.5
        for name, shape in shapes.items()
    }
    torch.save({"model": OrderedDict(model), "epoch": 1, "steps": {"train": 9}}, tmp_path / "tiny.pt")
    assert run(tmp_path / "tiny.pt", tmp_path / "out", "--to", "transformers", "--verify") == 0
    said = capsys.readouterr().out
    assert "verified: differs from transformers by" in said
    assert re.search(r"memory encoder \S+, memory attention \S+, object pointers \S+ \(relative", said)
    video, info = transformers.Sam2VideoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    memory_encoder = video.state_dict()["memory_encoder.memory_fuser.layers.0.scale"]
    assert torch.equal(memory_encoder, model["memory_encoder.fuser.layers.0.gamma"])
