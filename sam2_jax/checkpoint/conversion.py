"""The steps of a conversion: find the source, read it as flat Flax parameters, check them, write a folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import safe_open

from sam2_jax.atomic import write_together
from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.files import cast, read_weights, write_checkpoint
from sam2_jax.checkpoint.hub import PROCESSOR_FILES, WEIGHT_FILES, HubFolder
from sam2_jax.checkpoint.meta_names import detect_config, read_meta, to_transformers
from sam2_jax.checkpoint.names import Tensors, is_video_only
from sam2_jax.checkpoint.pretrained import parameter_shapes
from sam2_jax.config import Sam2Config, Sam2VideoConfig, read_config

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_FLOATS = {np.dtype(np.float64), np.dtype(np.float16), *DTYPES.values()}


@dataclass(frozen=True)
class Source:
    """A checkpoint that was found: its layout, "meta", "transformers" or "flax", and its files of weights."""

    name: str
    layout: str
    files: list[Path]
    folder: HubFolder | None = None


@dataclass(frozen=True)
class Checkpoint:
    """Flat Flax parameters of the image model and of the video model's memory, if any, and what they are."""

    image: Tensors
    memory: Tensors
    config: Sam2Config | Sam2VideoConfig
    dtype: np.dtype

    @property
    def tensors(self) -> Tensors:
        """All parameters, the image model's and the memory's."""
        return self.image | self.memory

    @property
    def image_config(self) -> Sam2Config:
        """Configuration of the image model, which may be a part of the video model."""
        return self.config.image_config if isinstance(self.config, Sam2VideoConfig) else self.config


def find(source: str, layout: str | None = None) -> Source:
    """Find a Meta `.pt` file, or the weights of a folder or hub repository, downloading them if need be.

    layout chooses where a folder holds both. Raises ValueError if there is no such checkpoint.
    """
    path = Path(source)
    if path.is_file() and path.suffix not in (".safetensors", ".json"):
        return Source(source, "meta", [path])
    if path.is_file():
        raise ValueError(f"SOURCE {source} is one file of a checkpoint; give its folder, {path.parent}")
    if path.suffix in (".pt", ".pth", ".bin"):
        raise ValueError(f"SOURCE {source} does not exist; check the path")
    folder = HubFolder(source)
    if layout is None and folder.is_local and all(map(folder.find, WEIGHT_FILES.values())):
        raise ValueError(f"SOURCE {source} holds both layouts; choose one with --source-layout")
    return Source(source, *folder.weights(layout), folder)


def check_target(target: Path, layout: str, source: Source) -> None:
    """Raise ValueError if writing there would harm the source or leave two checkpoints in one folder."""
    if target.exists() and not target.is_dir():
        raise ValueError(f"TARGET_FOLDER {target} must be a folder; it is a file")
    if source.folder is not None and any(file.parent.resolve() == target.resolve() for file in source.files):
        raise ValueError(f"TARGET_FOLDER {target} must not be the source's own folder; choose another")
    for other, file in WEIGHT_FILES.items():
        if other != layout and any((target / name).exists() for name in (file, f"{file}.index.json")):
            raise ValueError(
                f"TARGET_FOLDER {target} already holds weights in layout {other}; choose another folder"
            )


def read(
    source: Source, dtype: np.dtype | None = None, config: Sam2Config | Sam2VideoConfig | None = None
) -> Checkpoint:
    """Read a source's tensors and configuration.

    dtype None keeps bfloat16 where all tensors have it, and is float32 otherwise, which holds float16
    exactly. config is for a `.pt` file of another size than the released ones; folders have their own.
    Raises ValueError if anything cannot be read or is not of SAM 2.
    """
    if source.folder is None:
        image, memory, stored, found = _read_meta(source.files[0], config)
    elif config is not None:
        raise ValueError(f"--config is for .pt files only: {source.name} has its own config.json")
    else:
        found = read_config(source.folder.get("config.json"))
        image, memory = read_weights(source.layout, source.files, np.float32)
        stored = _stored_dtype(source.files)
    if memory and isinstance(found, Sam2Config):
        raise ValueError(
            f"{source.name}: model_type must be sam2_video, since {len(memory)} tensors of the video model's "
            "memory are there; got sam2"
        )
    if isinstance(found, Sam2VideoConfig) and not memory:
        found = found.image_config
    dtype = stored if dtype is None else dtype
    return Checkpoint(cast(image, dtype), cast(memory, dtype), found, dtype)


def _read_meta(
    path: Path, config: Sam2Config | Sam2VideoConfig | None
) -> tuple[Tensors, Tensors, np.dtype, Sam2Config | Sam2VideoConfig]:
    tensors = read_meta(path)
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS:
            raise ValueError(
                f"{path}: tensor {name} must be floating point of 16 to 64 bits; got {tensor.dtype}"
            )
    try:
        tensors = to_transformers(tensors)
        config = detect_config(tensors) if config is None else config
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    memory = {name: tensor for name, tensor in tensors.items() if is_video_only(name)}
    image = {name: tensor for name, tensor in tensors.items() if name not in memory}
    is_bfloat16 = {tensor.dtype for tensor in tensors.values()} == {DTYPES["bfloat16"]}
    return (
        names.to_flax(image),
        names.to_flax(memory),
        DTYPES["bfloat16" if is_bfloat16 else "float32"],
        config,
    )


def _stored_dtype(files: list[Path]) -> np.dtype:
    found = set()
    for path in files:
        with safe_open(path, framework="np") as file:
            weights = set(file.keys()) - {names.FOURIER, names.FOURIER_COPY}  # always kept in float32
            found |= {file.get_slice(name).get_dtype() for name in weights}
    return DTYPES["bfloat16" if found == {"BF16"} else "float32"]


def check(checkpoint: Checkpoint, source: Source) -> None:
    """Raise ValueError, showing all differences, unless names and shapes are those of the image model."""
    names.check_names(parameter_shapes(checkpoint.image_config), names.shapes(checkpoint.image), source.name)


def write(checkpoint: Checkpoint, source: Source, target: Path, layout: str) -> None:
    """Write weights, config.json and the processor's configuration; each file appears whole or not at all.

    Raises ValueError if the folder cannot be written.
    """
    files = _processor_files(checkpoint, source)
    write_together({target / name: partial(_write_text, text=text) for name, text in files.items()})
    write_checkpoint(target, checkpoint.tensors, checkpoint.config, layout)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _processor_files(checkpoint: Checkpoint, source: Source) -> Mapping[str, str]:
    """The source's own configuration of its processor; for a `.pt` file, which has none, Meta's values."""
    if source.folder is not None:
        found = {name: source.folder.find(name) for name in PROCESSOR_FILES}
        return {name: path.read_text(encoding="utf-8") for name, path in found.items() if path is not None}
    height, width = checkpoint.image_config.image_size
    image_processor: dict[str, Any] = {
        "image_processor_type": "Sam2ImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "mask_size": {"height": height // 4, "width": width // 4},
    }
    processor = {
        "image_processor": image_processor,
        "processor_class": "Sam2Processor",
        "target_size": height,
        "point_pad_value": -10,
    }
    return {PROCESSOR_FILES[0]: json.dumps(processor, indent=2) + "\n"}


def check_reload(checkpoint: Checkpoint, target: Path, layout: str) -> None:
    """Raise ValueError unless the folder's tensors are those of the checkpoint, bit for bit."""
    image, memory = read_weights(*HubFolder(target).weights(layout), checkpoint.dtype)
    written, reread = checkpoint.tensors, image | memory
    differing = sorted(written.keys() ^ reread.keys())
    differing += [
        name for name in sorted(written.keys() & reread.keys()) if not _same(written[name], reread[name])
    ]
    if differing:
        raise ValueError(
            f"{target} does not reload as it was written: {', '.join(differing[:5])}; convert again"
        )


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
