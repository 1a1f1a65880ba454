"""Conversion: `.pt` files read without PyTorch and without trust, Meta's names, the command."""

import json
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from small_models import random_tensors, small_config

from convert import verify
from convert.__main__ import main
from sam2_jax import RELEASED_MODELS, Sam2Config, Sam2Model, Sam2VideoConfig, released_config
from sam2_jax.checkpoint import files, names
from sam2_jax.checkpoint.files import read_safetensors, write_checkpoint
from sam2_jax.checkpoint.meta_names import FRAGMENTS, detect_config, to_transformers, transformers_names
from sam2_jax.checkpoint.pretrained import parameter_shapes
from sam2_jax.checkpoint.torch_file import TorchFile
from sam2_jax.checkpoint.torch_pickle import StoredTensor
from sam2_jax.config import read_config, released_video_config

# PyTorch files written by hand, so that all of this runs without PyTorch

STORAGES = {
    "float32": "Float",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "int64": "Long",
    "float64": "Double",
}


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def integers(values: tuple[int, ...]) -> bytes:
    return tuple_of(*map(integer, values))


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def dictionary(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def stored_tensor(key: str, kind: str, count: int, offset: int, shape: bytes, strides: bytes) -> bytes:
    storage = (
        tuple_of(text("storage"), named("torch", f"{kind}Storage"), text(key), text("cpu"), integer(count))
        + b"Q"
    )
    hooks = named("collections", "OrderedDict") + b")R"
    arguments = tuple_of(storage, integer(offset), shape, strides, b"\x89", hooks)
    return named("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def view(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, count: int = 6) -> bytes:
    """Pickle of a float32 tensor that is this view of storage "0"."""
    return stored_tensor("0", "Float", count, offset, integers(shape), integers(strides))


def write_archive(
    path: Path,
    pickled: bytes,
    storages: Mapping[str, bytes] | None = None,
    *,
    compression: int = 0,
    **extra: bytes,
) -> Path:
    entries = {"data.pkl": b"\x80\x02" + pickled + b".", "byteorder": b"little", **extra}
    entries |= {f"data/{key}": data for key, data in (storages or {}).items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)
    return path


def write_meta(path: Path, tensors: Mapping[str, np.ndarray], **beside: bytes) -> Path:
    """Write {"model": tensors, ...} as torch.save does."""
    pickled, storages = {}, {}
    for key, (name, tensor) in enumerate(tensors.items()):
        strides = tuple(stride // tensor.itemsize for stride in np.empty(tensor.shape, tensor.dtype).strides)
        kind = STORAGES[tensor.dtype.name]
        pickled[name] = stored_tensor(
            str(key), kind, tensor.size, 0, integers(tensor.shape), integers(strides)
        )
        storages[str(key)] = tensor.tobytes()
    return write_archive(path, dictionary({"model": dictionary(pickled), **beside}), storages)


# Meta's checkpoints

FOURIER = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
# Of the video model's memory: one tensor or more of each part, Meta's name -> transformers', and its shape.
MEMORY_2_0: dict[str, tuple[str, tuple[int, ...]]] = {
    "maskmem_tpos_enc": ("memory_temporal_positional_encoding", (7, 1, 1, 4)),
    "no_mem_pos_enc": ("no_memory_positional_encoding", (1, 1, 8)),
    "no_obj_ptr": ("no_object_pointer", (1, 8)),
    "mask_downsample.weight": ("mask_downsample.weight", (1, 1, 4, 4)),
    "obj_ptr_proj.layers.0.weight": ("object_pointer_proj.proj_in.weight", (8, 8)),
    "obj_ptr_proj.layers.1.weight": ("object_pointer_proj.layers.0.weight", (8, 8)),
    "obj_ptr_proj.layers.2.bias": ("object_pointer_proj.proj_out.bias", (8,)),
    "memory_attention.norm.weight": ("memory_attention.layer_norm.weight", (8,)),
    "memory_attention.layers.3.norm2.bias": ("memory_attention.layers.3.layer_norm2.bias", (8,)),
    "memory_attention.layers.0.linear1.weight": ("memory_attention.layers.0.linear1.weight", (16, 8)),
    "memory_attention.layers.1.cross_attn_image.out_proj.weight": (
        "memory_attention.layers.1.cross_attn_image.o_proj.weight",
        (8, 8),
    ),
    "memory_encoder.mask_downsampler.encoder.1.weight": (
        "memory_encoder.mask_downsampler.layers.0.layer_norm.weight",
        (4,),
    ),
    "memory_encoder.mask_downsampler.encoder.9.weight": (
        "memory_encoder.mask_downsampler.layers.3.conv.weight",
        (8, 4, 3, 3),
    ),
    "memory_encoder.mask_downsampler.encoder.12.bias": (
        "memory_encoder.mask_downsampler.final_conv.bias",
        (8,),
    ),
    "memory_encoder.pix_feat_proj.weight": ("memory_encoder.feature_projection.weight", (8, 8, 1, 1)),
    "memory_encoder.fuser.layers.1.dwconv.weight": (
        "memory_encoder.memory_fuser.layers.1.depthwise_conv.weight",
        (8, 1, 7, 7),
    ),
    "memory_encoder.fuser.layers.0.gamma": ("memory_encoder.memory_fuser.layers.0.scale", (8,)),
    "memory_encoder.fuser.layers.0.pwconv2.bias": (
        "memory_encoder.memory_fuser.layers.0.pointwise_conv2.bias",
        (8,),
    ),
    "memory_encoder.out_proj.bias": ("memory_encoder.projection.bias", (4,)),
}
MEMORY_2_1 = MEMORY_2_0 | {
    "no_obj_embed_spatial": ("occlusion_spatial_embedding_parameter", (1, 4)),
    "obj_ptr_tpos_proj.weight": ("temporal_positional_encoding_projection_layer.weight", (4, 8)),
}


def meta_name(name: str) -> str:
    """Meta's name of a transformers tensor, by the converter's table read backwards."""
    backwards = {value: key for key, value in FRAGMENTS.items()}
    longest_first = sorted(backwards, key=len, reverse=True)
    fragment = rf"(?<![^.])({'|'.join(map(re.escape, longest_first))})(?![^.])"
    return re.sub(fragment, lambda match: backwards[match[0]], name)


def as_meta(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same tensors as Meta keeps them."""
    meta = {}
    for name, tensor in tensors.items():
        if name == names.FOURIER:
            meta[FOURIER] = tensor
        elif name == "prompt_encoder.point_embed.weight":
            rows = {f"sam_prompt_encoder.point_embeddings.{k}.weight": tensor[k : k + 1] for k in range(4)}
            meta |= rows
        elif name != names.FOURIER_COPY:
            meta[meta_name(name)] = tensor
    return meta


def memory(table: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, (_, shape) in table.items()}


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path, dict[str, np.ndarray]]:
    """A small image model as Meta would keep it: the `.pt` file, its config.json, transformers' tensors."""
    tensors = random_tensors(small_config())
    config = tmp_path / "small.json"
    config.write_text(json.dumps(small_config().to_dict()))
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


# Reading .pt files


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.float64])
def test_reads_tensors_of_every_kind(tmp_path: Path, dtype: Any) -> None:
    expected = {
        "a": np.arange(6).reshape(2, 3).astype(dtype),
        "scalar": np.array(3, dtype),
        "": np.ones(1, dtype),
    }
    with TorchFile(write_meta(tmp_path / "x.pt", expected, epoch=integer(7))) as file:
        found = {name: file.read(tensor) for name, tensor in file.contents["model"].items()}
        assert same(found, expected)
        assert file.contents["epoch"] == 7


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "expected"),
    [
        ((3, 2), (1, 3), 0, [[0, 3], [1, 4], [2, 5]]),
        ((2,), (2,), 3, [3, 5]),
        ((), (), 5, 5),
        ((0, 4), (4, 1), 6, np.zeros((0, 4))),
    ],
)
def test_reads_views(tmp_path: Path, shape: Any, strides: Any, offset: int, expected: Any) -> None:
    path = write_archive(
        tmp_path / "x.pt", view(shape, strides, offset), {"0": np.arange(6, dtype="<f4").tobytes()}
    )
    with TorchFile(path) as file:
        np.testing.assert_array_equal(file.read(file.contents), expected)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((2, 3), (4, 1), 0),
        ((6,), (1,), 1),
        ((), (), 6),
        ((2, 3), (-3, 1), 3),
        ((2, 3), (3, 1), -1),
        ((-2, 3), (3, 1), 0),
        ((2, 3), (3,), 0),
        ((1000, 1000), (0, 0), 0),
        ((2**62, 2), (2**62, 1), 0),
        ((0,), (1,), 7),
        ((1,) * 40, (1,) * 40, 0),
    ],
)
def test_views_beyond_their_storage_are_refused(
    tmp_path: Path, shape: Any, strides: Any, offset: int
) -> None:
    path = write_archive(tmp_path / "x.pt", view(shape, strides, offset), {"0": bytes(24)})
    with pytest.raises(ValueError, match=r"x\.pt: its pickle is malformed"):
        TorchFile(path)


def test_storage_must_be_whole(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "short.pt", view((6,), (1,)), {"0": bytes(20)})
    with TorchFile(path) as file, pytest.raises(ValueError, match=r"storage '0' must be of 24 bytes; got 20"):
        file.read(file.contents)
    path = write_archive(tmp_path / "missing.pt", view((6,), (1,)))
    with TorchFile(path) as file, pytest.raises(ValueError, match="lacks its entry data/0"):
        file.read(file.contents)
    whole = write_archive(tmp_path / "whole.pt", view((6,), (1,)), {"0": b"abcdefgh" * 3}).read_bytes()
    path.write_bytes(whole.replace(b"abcdefgh", b"abcdefgX"))
    with TorchFile(path) as file, pytest.raises(ValueError, match="data/0 cannot be read"):
        file.read(file.contents)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a PyTorch .pt file"),
        (b"<!DOCTYPE html><html>Not Found</html>", "begins with b'<!DOCTYPE html>"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2), "legacy format"),
        (b"\0" * 257 + b"ustar\0" + b"\0" * 300, "legacy format"),
    ],
)
def test_other_files_are_told_apart(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        TorchFile(path)
    assert str(path) in str(error.value)


def test_damaged_archives(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.pt", view((6,), (1,)), {"0": bytes(24)})
    whole = path.read_bytes()
    for length in range(4, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="truncated or damaged"):
            TorchFile(path)
    write_archive(path, b"N", **{"notes/\u00e9": b""})
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xff\xff"))
    with pytest.raises(ValueError, match="truncated or damaged"):
        TorchFile(path)
    with pytest.raises(ValueError, match=r"cannot read .*absent\.pt"):
        TorchFile(tmp_path / "absent.pt")
    with pytest.raises(ValueError, match="compressed or overlapping"):
        TorchFile(write_archive(path, view((6,), (1,)), {"0": bytes(24)}, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="byteorder must be little; got b'big'"):
        TorchFile(write_archive(path, b"N", byteorder=b"big"))
    with pytest.raises(ValueError, match=r"data.pkl must be at most 16777216 bytes"):
        TorchFile(write_archive(path, b"N" * 2**24))
    with pytest.raises(ValueError, match=r"expected one data.pkl in it, got 2"):
        TorchFile(write_archive(path, b"N", **{"more/data.pkl": b"N."}))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no checkpoint")
    with pytest.raises(ValueError, match=r"expected one data.pkl in it, got 0"):
        TorchFile(path)


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    """A directory that lists one entry many times unpacks to more than the file holds."""
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
        archive.writestr("archive/data/0", bytes(10_000))
        first = archive.infolist()[-1]
        for key in range(1, 4):
            copy = zipfile.ZipInfo(f"archive/data/{key}")
            copy.header_offset, copy.CRC = first.header_offset, first.CRC
            copy.file_size = copy.compress_size = first.file_size
            archive.filelist.append(copy)
    with pytest.raises(ValueError, match="compressed or overlapping"):
        TorchFile(path)


# Files that mean harm


class Harm:
    """Unpickles by running a shell command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


ORDERED = named("collections", "OrderedDict")
HARMFUL: dict[str, tuple[bytes, str]] = {
    "os.system": (named("os", "system") + b"(COMMANDtR", "'os.system'"),
    "posix.system": (named("posix", "system") + b"(COMMANDtR", "'posix.system'"),
    "eval": (named("builtins", "eval") + b"(EXPRESSIONtR", "'builtins.eval'"),
    "getattr": (named("builtins", "getattr") + b"(" + ORDERED + text("pop") + b"tR", "'builtins.getattr'"),
    "dotted name": (text("torch._utils") + text("sys.modules") + b"\x93", "'torch._utils.sys.modules'"),
    "dunder": (text("torch") + text("Size.__base__") + b"\x93", "'torch.Size.__base__'"),
    "in arguments": (
        named("torch._utils", "_rebuild_parameter") + b"(" + named("os", "system") + b"(COMMANDtR\x89NtR",
        "'os.system'",
    ),
    "as storage": (
        b"(" + text("storage") + named("os", "system") + text("0") + text("cpu") + b"K\x01tQ",
        "'os.system'",
    ),
    "INST": (b"(COMMANDios\nsystem\n", "INST"),
    "OBJ": (b"(" + ORDERED + b"o", "OBJ"),
    "NEWOBJ": (ORDERED + b")\x81", "NEWOBJ"),
    "NEWOBJ_EX": (ORDERED + b")}\x92", "NEWOBJ_EX"),
    "EXT1": (b"\x82\x01", "EXT1"),
    "PERSID": (b"P0\n", "PERSID"),
    "BUILD shadows a method": (ORDERED + b")R}" + text("items") + ORDERED + b"sb", "BUILD"),
    "BUILD on a function": (
        named("torch._utils", "_rebuild_tensor_v2") + b"}" + text("x") + b"K\x01sb",
        "BUILD",
    ),
    "BUILD sets defaults": (
        named("torch._utils", "_rebuild_tensor_v2") + b"N}" + text("__defaults__") + b"K\x01s\x86b",
        "BUILD",
    ),
    "BUILD sets slots": (
        ORDERED + b")RN}" + text("x") + b"K\x01s\x86b",
        "a dict must stand where a tuple does",
    ),
    "call of a dtype": (named("torch", "float32") + b")R", "torch.float32"),
    "call of a string": (b"COMMAND)R", "malformed"),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_harmful_pickles_run_nothing(tmp_path: Path, name: str) -> None:
    evidence = tmp_path / "evidence"
    pickled, message = HARMFUL[name]
    pickled = pickled.replace(b"COMMAND", text(f"touch {evidence}"))
    pickled = pickled.replace(b"EXPRESSION", text(f"open({str(evidence)!r}, 'w')"))
    path = write_archive(tmp_path / "x.pt", dictionary({"model": pickled}))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        TorchFile(path)
    assert "Nothing of the file was executed" in str(error.value)
    assert str(path) in str(error.value)
    assert not evidence.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_harms_under_pickle_is_refused_here(tmp_path: Path, protocol: int) -> None:
    evidence = tmp_path / "evidence"
    harm = pickle.dumps({"model": Harm(f"touch {evidence}")}, protocol)
    pickle.loads(harm)
    assert evidence.exists()
    evidence.unlink()
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("archive/data.pkl", harm)
    with pytest.raises(ValueError, match="Nothing of the file was executed"):
        TorchFile(tmp_path / "x.pt")
    assert run(tmp_path / "x.pt", tmp_path / "out", "--to", "flax") == 1
    assert not evidence.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"(" * 200_000,
        b"]" * 200_000 + b"a" * 199_999,
        b")" + b"\x85" * 200_000,
        b"}" + b")" + b"\x85" * 200_000 + b"Ns",
        b"r\xff\xff\xff\xff",
        b"\x8b\xff\xff\xff\x7f",
        b"\x8d" + b"\xff" * 8,
        named("torch", "Size") + b"(" + b")" + b"\x85" * 200_000 + b"\x85tR",
    ],
)
def test_pathological_pickles_end_in_an_error_or_a_value(tmp_path: Path, pickled: bytes) -> None:
    try:
        TorchFile(write_archive(tmp_path / "x.pt", pickled)).__exit__()
    except ValueError:
        return


@pytest.mark.filterwarnings("ignore:invalid escape")  # pickletools' remark on some damaged names
def test_damaged_pickles_raise_only_value_errors(tmp_path: Path) -> None:
    whole = dictionary({"model": dictionary({"a": view((2, 3), (3, 1))}), "epoch": integer(1)})
    storages = {"0": bytes(24)}
    rng = random.Random(0)
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 4))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        end = rng.choice((len(whole), rng.randrange(len(whole))))
        try:
            with TorchFile(write_archive(tmp_path / "x.pt", bytes(damaged[:end]), storages)) as file:
                for tensor in _tensors(file.contents):
                    assert file.read(tensor).size <= 6
        except ValueError:
            continue


def _tensors(contents: Any) -> list[StoredTensor]:
    if isinstance(contents, dict):
        return [tensor for value in contents.values() for tensor in _tensors(value)]
    return [contents] if isinstance(contents, StoredTensor) else []


def test_equals_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    shared = torch.arange(12.0).reshape(3, 4)
    saved = {
        "plain": shared,
        "transposed": shared.T,
        "part": shared[1:, ::2],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "half": torch.ones(3, dtype=torch.float16),
        "bfloat16": torch.linspace(0, 1, 5, dtype=torch.bfloat16),
        "integers": torch.arange(4),
        "bool": torch.tensor([True, False]),
        "uint16": torch.tensor([0, 65535], dtype=torch.uint16),
        "float8": torch.ones(2, dtype=torch.float8_e4m3fn),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(2.5),
    }
    others = {"size": torch.Size([1, 2]), "device": torch.device("cpu"), "dtype": torch.float32, "none": None}
    module = torch.nn.Linear(2, 3).state_dict()
    for protocol in (2, 4):
        torch.save({"model": saved, "module": module, **others}, tmp_path / "x.pt", pickle_protocol=protocol)
        with TorchFile(tmp_path / "x.pt") as file:
            assert file.contents["size"] == (1, 2)
            for name, tensor in saved.items():
                found = file.read(file.contents["model"][name])
                expected = tensor.detach()
                assert found.shape == tuple(expected.shape)
                np.testing.assert_array_equal(found.astype(np.float64), expected.to(torch.float64).numpy())
            assert list(file.contents["module"]) == ["weight", "bias"]


def test_legacy_files_of_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"model": {}}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="legacy format"):
        TorchFile(tmp_path / "x.pt")


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
        *((meta, name) for meta, (name, _) in MEMORY_2_1.items()),
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
        renamed = to_transformers(tensors)
        assert names.shapes(renamed) == {name: tuple(shape) for name, shape in expected.items()}
        model = f"facebook/sam2{'' if version == '2.0' else '.1'}-hiera-tiny"
        assert detect_config(renamed) == released_video_config(model)


SIZES = [model for model, (version, _) in RELEASED_MODELS.items() if version == "2.1"]


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
    shapes = parameter_shapes(config.image_config)
    flat = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    meta = as_meta(names.to_torch(flat))
    table = MEMORY_2_0 if RELEASED_MODELS[model][0] == "2.0" else MEMORY_2_1
    assert detect_config(to_transformers(meta | memory(table))) == config
    assert detect_config(to_transformers(meta)) == config.image_config


# Conversion


def test_round_trip_is_bitwise(tmp_path: Path, small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    source, config, tensors = small
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert run(source, first, "--to", "transformers", "--config", config) == 0
    assert run(first, second, "--to", "flax") == 0
    assert run(second, third, "--to", "transformers") == 0
    assert same(read_safetensors(first / "model.safetensors"), tensors)
    assert same(read_safetensors(third / "model.safetensors"), tensors)
    assert same(read_safetensors(second / "flax_model.safetensors"), names.to_flax(tensors))
    for folder in (first, second, third):
        assert read_config(folder / "config.json") == small_config()
        processor = json.loads((folder / "processor_config.json").read_text())
        assert processor["image_processor"]["size"] == {"height": 128, "width": 128}
    out, err = capsys.readouterr()
    assert "image model" in out
    assert "float32" in out
    for step in ("finding", "reading", "checking", "writing"):
        assert len(re.findall(rf"{step}.* s$", err, re.MULTILINE)) == 3


@pytest.mark.parametrize("table", [MEMORY_2_0, MEMORY_2_1], ids=["2.0", "2.1"])
def test_video_memory_is_kept(tmp_path: Path, table: Any) -> None:
    tensors = random_tensors(small_config())
    kept = memory(table)
    small_video = Sam2VideoConfig.from_dict(small_config().to_dict() | {"model_type": "sam2_video"})
    config = tmp_path / "config.json"
    config.write_text(json.dumps(small_video.to_dict()))
    source = write_meta(tmp_path / "x.pt", as_meta(tensors) | kept)
    assert run(source, tmp_path / "flax", "--to", "flax", "--config", config) == 0
    assert run(tmp_path / "flax", tmp_path / "transformers", "--to", "transformers") == 0
    expected = tensors | {name: kept[meta] for meta, (name, _) in table.items()}
    assert same(read_safetensors(tmp_path / "transformers" / "model.safetensors"), expected)
    assert isinstance(read_config(tmp_path / "transformers" / "config.json"), Sam2VideoConfig)


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
    assert same(read_safetensors(tmp_path / "out" / "model.safetensors"), expected)
    assert run(tmp_path / "out", tmp_path / "flax", "--to", "flax") == 0
    found = read_safetensors(tmp_path / "flax" / "flax_model.safetensors")
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
    assert same(read_safetensors(tmp_path / "whole" / "model.safetensors"), tensors)
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
    assert "must hold a dictionary with the key 'model'" in error()
    assert "the keys 'state_dict', 'epoch'" in error()
    write_archive(path, b"]")
    assert "got a list" in error()
    write_archive(path, dictionary({"model": dictionary({"a": integer(1)})}))
    assert "'model' must be a state dict, tensors by name; got the keys 'a'" in error()
    write_meta(path, meta)
    assert (
        "of a released size, tiny (96, 12), small (96, 16), base-plus (112, 24), large (144, 48); got (16, 8)"
        in (error())
    )
    write_meta(path, {name: tensor for name, tensor in meta.items() if "point_embeddings.2" not in name})
    assert "sam_prompt_encoder.point_embeddings.2.weight is missing" in error("--config", config)
    write_meta(path, {("extra" if name == "no_mem_embed" else name): tensor for name, tensor in meta.items()})
    assert "x.pt does not fit the configured network: 2 of 260 tensors" in error("--config", config)
    write_meta(path, meta | {"no_mem_embed": np.ones((1, 1, 32), np.int64)})
    assert "tensor no_mem_embed must be floating point of 16 to 64 bits; got int64" in error(
        "--config", config
    )
    write_meta(path, meta | memory(MEMORY_2_0))
    assert "model_type must be sam2_video" in error("--config", config)
    path.write_text("not a checkpoint")
    assert "is not a PyTorch .pt file" in error()
    assert not out.exists()


def test_incomplete_memory_is_an_error(small: Any) -> None:
    backbone = "vision_encoder.backbone"
    tensors = {f"{backbone}.blocks.{i}.norm": np.ones(1) for i in range(12)}
    tensors[f"{backbone}.patch_embed.projection.weight"] = np.ones((96, 3, 7, 7))
    for table, missing in [
        (MEMORY_2_1, "occlusion_spatial_embedding_parameter"),
        (MEMORY_2_0, "no_object_pointer"),
    ]:
        kept = {name: np.ones(1) for name, _ in table.values() if name != missing}
        with pytest.raises(ValueError, match=rf"must hold the whole memory .*; {missing} is missing"):
            detect_config(tensors | kept)


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
    assert "give its folder" in failure(
        capsys, folder / "flax_model.safetensors", tmp_path / "o", "--to", "flax"
    )
    assert "--config is for .pt files only" in failure(
        capsys, folder, tmp_path / "o", "--to", "transformers", "--config", config
    )
    write_checkpoint(folder, names.to_flax(random_tensors(small_config())), small_config(), "transformers")
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
    command[3] = tmp_path / "absent.pt"
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[-1]
        == f"error: SOURCE {tmp_path / 'absent.pt'} does not exist; check the path"
    )


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
        else torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }
    torch.save({"model": OrderedDict(model), "epoch": 1, "steps": {"train": 9}}, tmp_path / "tiny.pt")
    assert run(tmp_path / "tiny.pt", tmp_path / "out", "--to", "transformers", "--verify") == 0
    assert "verified: differs from transformers by" in capsys.readouterr().out
    video, info = transformers.Sam2VideoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    memory_encoder = video.state_dict()["memory_encoder.memory_fuser.layers.0.scale"]
    assert torch.equal(memory_encoder, model["memory_encoder.fuser.layers.0.gamma"])
