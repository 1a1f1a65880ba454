"""Configurations from files: transformers' `config.json`."""

from pathlib import Path
from typing import Any

from sam2_jax.checks import shown
from sam2_jax.config.base import BaseConfig
from sam2_jax.config.image import Sam2Config
from sam2_jax.config.video import Sam2VideoConfig
from sam2_jax.json_files import read_json


def read_config(path: str | Path) -> Sam2Config | Sam2VideoConfig:
    """Read a transformers `config.json` of the image (`sam2`) or video (`sam2_video`) model.

    Raises ValueError, naming the file, if it is not JSON, is of another model, or has wrong values.
    """
    return read_config_of(path, Sam2Config, Sam2VideoConfig)


def read_config_of(path: str | Path, *kinds: type[BaseConfig]) -> Any:
    """Read a transformers `config.json` whose model_type is that of one of the kinds; as `read_config`."""
    path = Path(path)
    values = read_json(path)
    by_type = {kind.model_type: kind for kind in kinds}
    model_type = values.get("model_type") if isinstance(values, dict) else None
    if not isinstance(model_type, str) or model_type not in by_type:
        raise ValueError(f"{path}: model_type must be one of {sorted(by_type)}; got {shown(model_type)}")
    try:
        return by_type[model_type].from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
