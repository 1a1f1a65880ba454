"""What masks are made by, so that results are recognised: a model's weights and all settings."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from sam2_jax.checkpoint.fingerprint import fingerprint
from sam2_jax.image.model import Sam2Model
from sam2_jax.processing.processor import Sam2Processor

# Options that change how much memory is used and no mask.
_OF_MEMORY_ONLY = {"points_per_batch"}


def made_of(
    model: Sam2Model, processor: Sam2Processor, options: Mapping[str, Any], model_name: str = ""
) -> dict[str, Any]:
    """A model's name, for people; its weights; settings on which masks depend, options among them."""
    settings = {name: value for name, value in options.items() if name not in _OF_MEMORY_ONLY}
    processing = processor.image_processor.to_dict()
    processing.pop("mask_size", None)  # of label maps, which are not read here
    settings |= {
        "dtype": str(jnp.dtype(model.module.dtype)),
        "padding": model.padding,
        "image_processor": processing,
        "configuration": model.config.to_dict(),
    }
    plain = json.loads(json.dumps(settings, default=lambda array: array.tolist()))
    return {"model": model_name, "weights": fingerprint(model.params), "settings": plain}


def hash_of(made: Mapping[str, Any]) -> str:
    """What tells results apart, 32 hexadecimal digits: of weights and settings, not of the model's name."""
    kept = {name: made[name] for name in ("weights", "settings")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:32]
