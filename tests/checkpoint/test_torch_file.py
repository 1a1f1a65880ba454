"""`.pt` files, read without PyTorch and without trust."""

import os
import pickle
import random
import re
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from meta_files import dictionary, integer, named, text, view, write_archive, write_meta

from convert.__main__ import main
from sam2_jax.checkpoint.torch_file import TorchFile
from sam2_jax.checkpoint.torch_pickle import StoredTensor


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.float64])
def test_reads_tensors_of_every_kind(tmp_path: Path, dtype: Any) -> None:
    expected = {
        "a": np.arange(6).reshape(2, 3).astype(dtype),
        "scalar": np.array(3, dtype),
        "": np.ones(1, dtype),
    }
    with TorchFile(write_meta(tmp_path / "x.pt", expected, epoch=integer(7))) as file:
        found = {name: file.read(tensor) for name, tensor in file.contents["model"].items()}
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert found[name].dtype == tensor.dtype
            np.testing.assert_array_equal(found[name], tensor)
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


def test_a_damaged_name_is_not_repeated_whole(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.pt", view((6,), (1,)), {"0": bytes(24)})
    data = bytearray(path.read_bytes())
    start = data.index(b"archive/data/0") - 4  # in the entry's own header: how long its name is
    data[start : start + 2] = b"\xff\x00"
    path.write_bytes(data + bytes(300))
    with pytest.raises(ValueError, match="damaged") as error, TorchFile(path) as file:
        file.read(file.contents)
    assert len(str(error.value)) < 400


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
    assert main([str(tmp_path / "x.pt"), str(tmp_path / "out"), "--to", "flax"]) == 1
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
