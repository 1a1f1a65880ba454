"""Processors in files: transformers' processor_config.json and preprocessor_config.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sam2_jax.atomic import write_text
from sam2_jax.checkpoint.hub import IMAGE_PROCESSOR_FILE, PROCESSOR_FILE, HubFolder


def find_image_processor(folder: HubFolder) -> tuple[Path, dict[str, Any]] | None:
    """Return the file of a model's folder that says how pictures are processed, and what it says of that."""
    for name in (PROCESSOR_FILE, IMAGE_PROCESSOR_FILE):
        path = folder.find(name)
        if path is None:
            continue
        values = read_json(path)
        values = values.get("image_processor", values)
        if not isinstance(values, dict):
            raise ValueError(f"{path}: image_processor must be an object; got {values!r}")
        # A processor's file may leave this to the other file.
        if "size" in values or "image_processor_type" in values:
            return path, values
    return None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises ValueError, naming the file, if it is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not a SAM 2 processor's configuration ({error}); download it again"
        ) from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} is not a SAM 2 processor's configuration: it holds no object")
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object in transformers' style, whole or not at all."""
    write_text(path, json.dumps(values, indent=2, sort_keys=True) + "\n")
