"""The steps of a conversion: find the source, read and check it, write a folder, read that again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sam2_jax.checkpoint.files import write_checkpoint
from sam2_jax.checkpoint.hub import GENERATION_FILE, PROCESSOR_FILES, WEIGHT_FILES, HubFolder
from sam2_jax.checkpoint.reading import Checkpoint, find_files, read_checkpoint
from sam2_jax.checkpoint.tensors import BFLOAT16
from sam2_jax.config import Sam2Config, Sam2VideoConfig

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": BFLOAT16}


@dataclass(frozen=True)
class Source:
    """A checkpoint that was found: what it was called, and its files of weights."""

    folder: HubFolder
    files: list[Path]


def find(source: str, layout: str | None = None) -> Source:
    """Find a single file, or the weights of a folder or hub repository, downloading them if need be.

    layout chooses where a folder holds both. Raises ValueError if there is no such checkpoint.
    """
    folder = HubFolder(source)
    is_folder = folder.is_local and folder.file is None
    if layout is None and is_folder and all(map(folder.find, WEIGHT_FILES.values())):
        raise ValueError(f"SOURCE {source} holds both layouts; choose one with --source-layout")
    return Source(folder, find_files(folder, layout))


def check_target(target: Path, layout: str, source: Source) -> None:
    """Raise ValueError if writing there would harm the source or leave two checkpoints in one folder."""
    if any(file.parent.resolve() == target.resolve() for file in source.files):
        raise ValueError(f"TARGET_FOLDER {target} must not be the source's own folder; choose another")
    for other, file in WEIGHT_FILES.items():
        if other != layout and any((target / name).exists() for name in (file, f"{file}.index.json")):
            raise ValueError(
                f"TARGET_FOLDER {target} already holds weights in layout {other}; choose another folder"
            )


def read(
    source: Source, dtype: np.dtype | None = None, config: Sam2Config | Sam2VideoConfig | None = None
) -> Checkpoint:
    """Read a source's tensors and configuration, checked against one another, the video memory too.

    config is for a single file of another size than the released ones; folders have their own. Raises
    ValueError as `read_checkpoint` does.
    """
    if config is not None and source.folder.file is None:
        raise ValueError(f"--config is for single files only: {source.folder.model} has its own config.json")
    return read_checkpoint(source.folder, source.files, config=config, dtype=dtype)


def write(checkpoint: Checkpoint, source: Source, target: Path, layout: str) -> None:
    """Write weights, config.json and what lies beside them; each file appears whole or not at all.

    A processor or options that another model left in the folder go. Raises ValueError if the folder cannot be
    written.
    """
    beside = _files_beside(checkpoint, source)
    write_checkpoint(target, checkpoint.tensors, checkpoint.config, layout, beside)
    for name in {*PROCESSOR_FILES, GENERATION_FILE} - beside.keys():  # they would be taken for this model's
        (target / name).unlink(missing_ok=True)


def _files_beside(checkpoint: Checkpoint, source: Source) -> Mapping[str, str]:
    """The source's own configuration of its processor, for a single file, which has none, Meta's values; and
    the options that suit it.
    """
    if source.folder.file is None:
        names = (*PROCESSOR_FILES, *((GENERATION_FILE,) if source.folder.is_local else ()))
        found = {name: source.folder.find(name) for name in names}
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
    written = checkpoint.tensors
    reread = read_checkpoint(HubFolder(target), layout=layout, dtype=checkpoint.dtype).tensors
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
