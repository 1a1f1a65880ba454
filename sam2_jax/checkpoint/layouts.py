"""Whose names a file's tensors have, Meta's, transformers' or Flax's, and what wraps these names."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sam2_jax.checks import cut

# What DDP, FSDP and torch.compile put into the names of what they wrap, at any place.
_WRAPPERS = re.compile(r"(^|(?<=\.))(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_OF_META = {"image_encoder", "sam_prompt_encoder", "sam_mask_decoder"}
_OF_OURS = {"vision_encoder", "prompt_encoder", "mask_decoder", "shared_image_embedding"}


def unwrapped(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The same tensors by SAM 2's own names, without what wrappers and the model's owner put before them.

    Raises ValueError if two tensors get one name.
    """
    plain = {name: _WRAPPERS.sub("", name) for name in tensors}
    owner = _owner(plain.values())
    found: dict[str, Any] = {}
    for name, tensor in tensors.items():
        own = plain[name].removeprefix(owner)
        if own in found:
            raise ValueError(f"tensor {cut(name)} becomes {cut(own)}, as another tensor does; remove one")
        found[own] = tensor
    return found


def _owner(tensor_names: Iterable[str]) -> str:
    """What most names begin with before a part of SAM 2: "model." where a trainer's module holds it."""
    owners: Counter[str] = Counter()
    for name in tensor_names:
        levels = name.split(".")
        for i, level in enumerate(levels):
            if level in _OF_META or level in _OF_OURS:
                owners[".".join(levels[:i]) + "." * (i > 0)] += 1
                break
    return owners.most_common(1)[0][0] if owners else ""


def layout_of(tensor_names: Iterable[str]) -> str:
    """Whose names these are: "meta", "transformers" or "flax"."""
    names = list(tensor_names)
    if any(name.split(".")[0] in _OF_META for name in names):
        return "meta"
    return "flax" if any(name.endswith(".kernel") for name in names) else "transformers"


def is_of_sam2(tensor_names: Iterable[str]) -> bool:
    """Whether any of these names has a part of SAM 2 in it."""
    return any(not (_OF_META | _OF_OURS).isdisjoint(name.split(".")) for name in tensor_names)
