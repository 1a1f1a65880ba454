"""Processors in files: transformers' processor_config.json and preprocessor_config.json."""

from pathlib import Path
from typing import Any

from sam2_jax.checkpoint.hub import HUB_OPTIONS, IMAGE_PROCESSOR_FILE, PROCESSOR_FILE, HubFolder
from sam2_jax.checks import shown
from sam2_jax.json_files import read_json_object

TRANSFORMERS_NAME = "pretrained_model_name_or_path"
"""What transformers calls the model that `from_pretrained` reads."""


def take_source(model: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Take out of options what says which folder is meant: the model by either name, `HubFolder`'s own."""
    other = options.pop(TRANSFORMERS_NAME, None)
    if (model is None) == (other is None):
        raise ValueError(
            f"model must be given, once, also as {TRANSFORMERS_NAME}; got {shown((model, other))}"
        )
    of_hub = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
    return (other if model is None else model), of_hub


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
