"""Reading and writing checkpoints: safetensors and config.json, whole or not at all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sam2_jax.atomic import write_together
from sam2_jax.checkpoint.hub import WEIGHT_FILES
from sam2_jax.checkpoint.names import FOURIER, Tensors, is_video_only, to_flax, to_torch
from sam2_jax.config import Sam2Config, Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig

_FLOATS = ("F64", "F32", "F16", "BF16")  # as safetensors names them
_ARCHITECTURES = {
    "sam2": "Sam2Model",
    "sam2_video": "Sam2VideoModel",
    "sam2_vision_model": "Sam2VisionModel",
    "sam2_hiera_det_model": "Sam2HieraDetModel",
}


def read_safetensors(path: Path) -> Tensors:
    """Read all tensors of one file as numpy arrays (bfloat16 as ml_dtypes').

    Raises ValueError, naming the file, if it is truncated, corrupt, not safetensors or quantised.
    """
    try:
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118
                dtype = file.get_slice(name).get_dtype()
                if dtype not in _FLOATS:
                    raise ValueError(
                        f"{path}: tensor {name} is {dtype}; expected one of {', '.join(_FLOATS)}. Quantised "
                        "checkpoints are not supported: take the float32 or bfloat16 one"
                    )
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as safetensors: it is truncated, corrupt or another format ({error}). "
            "Download or convert it again"
        ) from error


def read_weights(
    layout: str, paths: Sequence[Path], dtype: np.dtype | type, part: str = ""
) -> tuple[Tensors, Tensors]:
    """Read a checkpoint's files as flat Flax parameters: (image model's, video model's own), in `dtype`.

    part: only tensors whose names begin with it, "vision_encoder." say, and without it in their names.
    The Fourier matrix stays float32: rounded, it would move every position.
    Raises ValueError if a file is broken or a tensor stands in two shards.
    """
    tensors: Tensors = {}
    for path in paths:
        shard = {
            name.removeprefix(part): tensor
            for name, tensor in read_safetensors(path).items()
            if name.startswith(part)
        }
        if twice := sorted(tensors.keys() & shard.keys()):
            raise ValueError(f"{path} repeats tensors of another shard: {', '.join(twice[:3])}")
        tensors |= shard
    video = {name: tensor for name, tensor in tensors.items() if is_video_only(name)}
    image = {name: tensor for name, tensor in tensors.items() if name not in video}
    if layout == "transformers":
        image, video = to_flax(image), to_flax(video)
    return cast(image, dtype), cast(video, dtype)


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
) -> None:
    """Write flat Flax parameters and config.json to a folder, in Flax or transformers layout.

    Both files are written aside and then moved into place, so that an interrupted save leaves the old ones
    whole. Raises ValueError if the layout is unknown or the folder cannot be written.
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
            folder / "config.json": lambda path: path.write_text(json.dumps(description, indent=2) + "\n"),
        }
    )
