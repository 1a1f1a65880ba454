"""The rule that maps transformers' tensor names to the Flax parameter tree and back.

`a.blocks.0.attn.qkv.weight` is `a / blocks_0 / attn / qkv / kernel`: dots are levels, a number joins the
name before it, and `weight` is a scale, an embedding or a kernel by its rank and its owner; what torch
itself calls `scale`, in the video model, is a `layer_scale`. Kernels are transposed from torch's (out, in,
height, width) to Flax's (height, width, in, out); transposed convolutions, which torch keeps as (in, out,
height, width), likewise end as (height, width, in, out).

Both copies of the random Fourier matrix that transformers keeps are one parameter here.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from sam2_jax.checks import cut, some_lines

Tensors = dict[str, np.ndarray]

_MOST_ROWS = 21  # with the headings

FOURIER = "shared_image_embedding.positional_embedding"
FOURIER_COPY = "prompt_encoder.shared_embedding.positional_embedding"

_TORCH_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "layer_scale": "scale"}
_EMBEDDINGS = re.compile(r"(_embed|_token|_tokens)$")
_TRANSPOSED_CONVOLUTION = re.compile(r"(^|\.)upscale_conv\d$")
# Kept channels-first by torch outside any convolution: (1, C, H, W).
_CHANNELS_FIRST = re.compile(r"(^|\.)pos_embed(_window)?$")
# The video model's own tensors, which its checkpoints hold beside the image model's.
_VIDEO_ONLY = re.compile(
    r"^(memory_attention|memory_encoder|mask_downsample|object_pointer_proj"
    r"|temporal_positional_encoding_projection_layer)\."
    r"|^(memory_temporal_positional_encoding|no_memory_positional_encoding|no_object_pointer"
    r"|occlusion_spatial_embedding_parameter)$"
)


def is_video_only(name: str) -> bool:
    """Whether a transformers tensor name belongs to the memory of the video model."""
    return _VIDEO_ONLY.search(name) is not None


def _axes(owner: str, leaf: str, rank: int) -> tuple[int, ...] | None:
    """Axes that turn a torch tensor into its Flax form, None to leave it as it is."""
    if _CHANNELS_FIRST.search(leaf):
        return (0, 2, 3, 1)
    if leaf != "weight" or _EMBEDDINGS.search(owner):
        return None
    if rank == 4:
        return (2, 3, 0, 1) if _TRANSPOSED_CONVOLUTION.search(owner) else (2, 3, 1, 0)
    return (1, 0) if rank == 2 else None


def flax_name(name: str, rank: int) -> str:
    """Flax name, levels joined by dots, of a transformers tensor: `blocks_0.attn.qkv.kernel`."""
    owner, _, leaf = re.sub(r"\.(\d+)(?=\.|$)", r"_\1", name).rpartition(".")
    if leaf == "weight":
        leaf = "embedding" if _EMBEDDINGS.search(owner) else "scale" if rank == 1 else "kernel"
    elif leaf == "scale":
        leaf = "layer_scale"
    return f"{owner}.{leaf}" if owner else leaf


def torch_name(name: str) -> str:
    """Transformers name of a Flax parameter, levels joined by dots; the inverse of `flax_name`."""
    owner, _, leaf = name.rpartition(".")
    owner = re.sub(r"_(\d+)(?=\.|$)", r".\1", owner)
    leaf = _TORCH_LEAVES.get(leaf, leaf)
    return f"{owner}.{leaf}" if owner else leaf


def one_fourier(tensors: Mapping[str, Any], fetch: Callable[[Any], np.ndarray]) -> dict[str, Any]:
    """Leave one of the two copies of the Fourier matrix; fetch gives a tensor's numbers.

    Raises ValueError if they differ, since no single network then fits.
    """
    tensors = dict(tensors)
    copy = tensors.pop(FOURIER_COPY, None)
    original = tensors.setdefault(FOURIER, copy) if copy is not None else None
    if original is not copy and not np.array_equal(fetch(original), fetch(copy), equal_nan=True):
        raise ValueError(
            f"{FOURIER} and {FOURIER_COPY} must be equal and are not: a randomly initialised "
            "transformers model has this defect; copy one over the other before saving it"
        )
    return tensors


def to_flax(tensors: Mapping[str, Any], fetch: Callable[[Any], np.ndarray] = np.asarray) -> dict[str, Any]:
    """Rename and transpose transformers tensors to flat Flax parameters; views where possible.

    Raises ValueError if the two copies of the Fourier matrix differ, which fetch gives the numbers of.
    """
    flat = {}
    for name, tensor in one_fourier(tensors, fetch).items():
        owner, _, leaf = name.rpartition(".")
        axes = _axes(owner, leaf, tensor.ndim)
        flat[flax_name(name, tensor.ndim)] = tensor if axes is None else tensor.transpose(axes)
    return flat


def to_torch(flat: Mapping[str, np.ndarray]) -> Tensors:
    """Rename and transpose flat Flax parameters to transformers tensors; the inverse of `to_flax`.

    The tensors are contiguous, since safetensors writes memory as it lies.
    """
    tensors = {}
    for name, tensor in flat.items():
        torch, axes = _torch_form(name, tensor.ndim)
        tensors[torch] = np.ascontiguousarray(tensor if axes is None else tensor.transpose(axes))
    if FOURIER in tensors:
        tensors[FOURIER_COPY] = tensors[FOURIER]
    return tensors


def flax_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names and shapes that `to_flax` gives transformers tensors of these names and shapes."""
    flat = {}
    for name, shape in shapes.items():
        owner, _, leaf = name.rpartition(".")
        axes = _axes(owner, leaf, len(shape))
        flat[flax_name(name, len(shape))] = shape if axes is None else tuple(shape[axis] for axis in axes)
    return flat


def torch_shapes(flat_shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names and shapes that `to_torch` gives flat Flax parameters of these names and shapes."""
    shapes = {}
    for name, shape in flat_shapes.items():
        torch, axes = _torch_form(name, len(shape))
        shapes[torch] = shape if axes is None else tuple(shape[axis] for axis in axes)
    if FOURIER in shapes:
        shapes[FOURIER_COPY] = shapes[FOURIER]
    return shapes


def _torch_form(name: str, rank: int) -> tuple[str, list[int] | None]:
    """Transformers name of a Flax parameter, and the axes that turn it into its torch form."""
    torch = torch_name(name)
    owner, _, leaf = torch.rpartition(".")
    axes = _axes(owner, leaf, rank)
    return torch, None if axes is None else np.argsort(axes).tolist()


def flatten(params: Any) -> dict[str, Any]:
    """Flatten a parameter tree to names joined by dots."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {".".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Build the parameter tree from names joined by dots; the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *levels, last = name.split(".")
        node = tree
        for level in levels:
            node = node.setdefault(level, {})
        node[last] = leaf
    return tree


def check_names(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], source: str
) -> None:
    """Raise ValueError, every difference side by side, unless expected and found agree."""
    problems = []
    for name in sorted(expected.keys() | found.keys()):
        left, right = expected.get(name), found.get(name)
        if left != right:
            problems.append((name, "-" if left is None else str(left), "-" if right is None else str(right)))
    if problems:
        raise ValueError(
            f"{source} does not fit the configured network: {len(problems)} of {len(expected)} tensors are "
            "missing (found is -), unexpected (expected is -) or of another shape. Check that the "
            f"configuration belongs to these weights.\n{_table([('tensor', 'expected', 'found'), *problems])}"
        )


def _table(rows: list[tuple[str, ...]]) -> str:
    cells = [tuple(cut(cell) for cell in row) for row in rows]
    widths = [max(len(row[i]) for row in cells[:_MOST_ROWS]) for i in range(len(rows[0]))]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return some_lines(lines, _MOST_ROWS)


def shapes(tensors: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of named tensors."""
    return {name: tuple(tensor.shape) for name, tensor in dict(tensors).items()}
