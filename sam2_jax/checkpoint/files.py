"""Writing checkpoints: safetensors, config.json and what belongs beside them, whole or not at all."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from sam2_jax.atomic import write_together
from sam2_jax.checkpoint.hub import WEIGHT_FILES
from sam2_jax.checkpoint.names import FOURIER, Tensors, to_torch
from sam2_jax.config import Sam2Config, Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig

_ARCHITECTURES = {
    "sam2": "Sam2Model",
    "sam2_video": "Sam2VideoModel",
    "sam2_vision_model": "Sam2VisionModel",
    "sam2_hiera_det_model": "Sam2HieraDetModel",
}


def cast(tensors: Tensors, dtype: np.dtype | type) -> Tensors:
    """Bring flat Flax parameters to one type, contiguous; the Fourier matrix to float32 in any case."""
    return {
        name: np.ascontiguousarray(tensor, np.float32 if name == FOURIER else dtype)
        for name, tensor in tensors.items()
    }


def write_checkpoint(
    folder: str | Path,
    flat: Mapping[str, np.ndarray],
    config: Sam2Config | Sam2VideoConfig | Sam2VisionConfig | Sam2HieraDetConfig,
    layout: str = "flax",
    beside: Mapping[str, str] | None = None,
) -> None:
    """Write flat Flax parameters and config.json to a folder, in Flax or transformers layout.

    beside: texts of other files, by name. All are written aside and then moved into place, so that an
    interrupted save leaves the old ones whole. Raises ValueError if the layout is unknown or the folder
    cannot be written.
    """
    if layout not in WEIGHT_FILES:
        raise ValueError(f"layout must be one of {sorted(WEIGHT_FILES)}; got {layout!r}")
    flat = {name: np.ascontiguousarray(tensor) for name, tensor in flat.items()}
    tensors = to_torch(flat) if layout == "transformers" else flat
    metadata = {"format": "pt" if layout == "transformers" else "flax"}
    dtype = str(next(iter(tensors.values())).dtype)
    description = config.to_dict() | {"architectures": [_ARCHITECTURES[config.model_type]], "dtype": dtype}

    def write_weights(path: Path) -> None:
        try:
            save_file(tensors, path, metadata=metadata)
        except SafetensorError as error:  # its own word for a full disk
            raise OSError(str(error)) from error

    folder = Path(folder)
    write_together(
        {
            folder / WEIGHT_FILES[layout]: write_weights,
            folder / "config.json": partial(_write_text, text=json.dumps(description, indent=2) + "\n"),
            **{folder / name: partial(_write_text, text=text) for name, text in (beside or {}).items()},
        }
    )


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
