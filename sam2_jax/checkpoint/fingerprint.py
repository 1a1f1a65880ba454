"""What tells one model's weights from another's, wherever they lie and whatever they are called."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sam2_jax.checkpoint import names


def fingerprint(params: Mapping[str, Any]) -> str:
    """SHA-256 of a tree of parameters, their names, types, shapes and numbers, in hexadecimal.

    Of the largest model's 900 MB it takes half a second; nothing is kept, so that parameters that were
    replaced have another one.
    """
    found = hashlib.sha256()
    for name, value in sorted(names.flatten(params).items()):
        array = np.ascontiguousarray(value)
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()
