"""Processors in files: transformers' processor_config.json and preprocessor_config.json."""

from pathlib import Path
from typing import Any

from sam2_jax.checkpoint.hub import (
    HUB_OPTIONS,
    IMAGE_PROCESSOR_FILE,
    PROCESSOR_FILE,
    TRANSFORMERS_NAME,
    HubFolder,
    take_source,
)
from sam2_jax.checks import shown
from sam2_jax.json_files import read_json_object

# Of transformers' from_pretrained: which of its implementations is meant. Here there is one.
_IGNORED = ("use_fast", "backend", "trust_remote_code")
LOADING_OPTIONS = (*HUB_OPTIONS, TRANSFORMERS_NAME, *_IGNORED)
"""What a processor's `from_pretrained` takes beside the options of a processor."""


def read_source(model: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """As `take_source`; takes out of options what means nothing here, too."""
    for name in _IGNORED:
        options.pop(name, None)
    return take_source(model, options)


def find_image_processor(folder: HubFolder) -> tuple[Path, dict[str, Any]] | None:
    """Return the file of a model's folder that says how pictures are processed, and what it says of that."""
    for name in (PROCESSOR_FILE, IMAGE_PROCESSOR_FILE):
        path = folder.find(name)
        if path is None:
            continue
        values = read_json_object(path)
        values = values.get("image_processor", values)
        if not isinstance(values, dict):
            raise ValueError(f"{path}: image_processor must be an object; got {shown(values)}")
        # A processor's file may leave this to the other file.
        if "size" in values or "image_processor_type" in values:
            return path, values
    return None
