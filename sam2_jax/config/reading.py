"""The configuration of a whole model from its `config.json`."""

from pathlib import Path

from sam2_jax.config.files import read_config_of
from sam2_jax.config.image import Sam2Config
from sam2_jax.config.video import Sam2VideoConfig


def read_config(path: str | Path) -> Sam2Config | Sam2VideoConfig:
    """Read a transformers `config.json` of the image (`sam2`) or video (`sam2_video`) model.

    Raises ValueError, naming the file, if it is not JSON, is of another model, or has wrong values.
    """
    found: Sam2Config | Sam2VideoConfig = read_config_of(path, Sam2Config, Sam2VideoConfig)
    return found
