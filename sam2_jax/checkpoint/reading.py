"""A checkpoint of any kind as flat Flax parameters: what from_pretrained and convert both read it with.

Names, shapes and types are compared with the configuration from the files' headers, before any number is
read: a file cannot ask for more memory than its network has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.hub import WEIGHT_FILES, HubFolder, beside_embedded
from sam2_jax.checkpoint.layouts import is_of_sam2, layout_of, unwrapped
from sam2_jax.checkpoint.meta_names import detect_config, to_transformers
from sam2_jax.checkpoint.names import FOURIER, Tensors, is_video_only
from sam2_jax.checkpoint.parameters import parameter_shapes
from sam2_jax.checkpoint.tensors import BFLOAT16, Header, Headers, check_types, open_tensors, read_numbers
from sam2_jax.checks import cut
from sam2_jax.config import (
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2VideoConfig,
    Sam2VisionConfig,
    read_config_of,
)
from sam2_jax.config.base import BaseConfig
from sam2_jax.config.files import CONFIG_FILE, config_file

# Every checkpoint contains what stands behind it in this list.
_CHECKPOINTS: tuple[type[BaseConfig], ...] = (
    Sam2VideoConfig,
    Sam2Config,
    Sam2VisionConfig,
    Sam2HieraDetConfig,
)
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Checkpoint:
    """Flat Flax parameters of a network and what they are.

    dtype: the parameters' type. stored: the type that holds them as the files do, bfloat16 or float32.
    layout: whose names the files have, "meta", "transformers" or "flax".
    """

    tensors: Tensors
    config: Any
    dtype: np.dtype
    stored: np.dtype
    layout: str

    @property
    def image(self) -> Tensors:
        """The image model's parameters."""
        return {name: tensor for name, tensor in self.tensors.items() if not is_video_only(name)}

    @property
    def memory(self) -> Tensors:
        """What a video model has beside them."""
        return {name: tensor for name, tensor in self.tensors.items() if is_video_only(name)}

    @property
    def image_config(self) -> Sam2Config:
        """Configuration of the image model, which may be a part of the video model."""
        found: Sam2Config = self.config.part(Sam2Config)[0]
        return found


def find_files(folder: HubFolder, layout: str | None = None) -> list[Path]:
    """The files of weights that a name stands for, fetched if need be; layout chooses where both are."""
    return [folder.file] if folder.file is not None else folder.weights(layout)[1]


def has_memory(folder: HubFolder) -> bool:
    """Whether its tensors are a video model's. Raises ValueError if they are of another network."""
    with open_tensors(find_files(folder)) as stored:
        return any(map(is_video_only, _known_names(stored, f"checkpoint {folder.model}")[0]))


def read_checkpoint(
    folder: HubFolder,
    files: list[Path] | None = None,
    *,
    kind: type[BaseConfig] | None = None,
    layout: str | None = None,
    config: BaseConfig | None = None,
    dtype: np.dtype | None = None,
) -> Checkpoint:
    """Read the network of a kind out of a checkpoint, or all that there is, the video model's memory too.

    files: of `find_files`. config: what the checkpoint holds, in place of its own config.json; without both,
    for a single file, a released size is recognised. dtype None: bfloat16 where all tensors are, and float32
    otherwise, which holds float16 exactly; the Fourier matrix is float32 in any case, since rounded it would
    move every position. Raises ValueError if a file is broken, if names, shapes or types are not those of the
    configuration, or numbers are NaN or infinite.
    """
    source = f"checkpoint {folder.model}"
    whole = config
    model_type = None if kind is None else kind.model_type
    if whole is None and folder.file is None:
        whole = _read_config(config_file(folder, model_type), kind)
    files = find_files(folder, layout) if files is None else files
    beside = beside_embedded(folder.model, model_type)
    others = [beside / WEIGHT_FILES["flax"]] if beside else []
    with open_tensors(files) as stored, open_tensors(others) as changed:
        tensors, layout = _known_names(stored | changed, source)
        if whole is None:
            whole = _config_of_file(files, tensors, layout, kind, source)
        whole = _with_or_without_memory(whole, tensors, kind, source)
        network, prefix = whole.part(kind or type(whole))
        prefix = _prefix_in(tensors, kind) or prefix
        is_video = isinstance(network, Sam2VideoConfig)
        own = {
            n: h for n, h in tensors.items() if n.startswith(prefix) and (is_video or not is_video_only(n))
        }
        check_types(own, source)
        _check_shapes(own, parameter_shapes(network), layout, prefix, source)
        flat = _to_flax({name.removeprefix(prefix): header for name, header in own.items()}, layout)
        kept = _stored_type(flat)
        dtype = kept if dtype is None else np.dtype(dtype)
        dtypes = dict.fromkeys(flat, dtype) | {FOURIER: np.dtype(np.float32)}
        return Checkpoint(read_numbers(flat, dtypes, source), network, dtype, kept, layout)


def _read_config(path: Path, kind: type[BaseConfig] | None) -> BaseConfig:
    last = _CHECKPOINTS.index(Sam2Config if kind is None else kind)
    found: BaseConfig = read_config_of(path, *_CHECKPOINTS[: last + 1])
    return found


def _known_names(stored: Headers, source: str) -> tuple[Headers, str]:
    """The tensors under transformers' or Flax names, and whose names they had."""
    try:
        tensors = unwrapped(stored)
        layout = layout_of(tensors)
        return (to_transformers(tensors) if layout == "meta" else tensors), layout
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _config_of_file(
    files: list[Path], tensors: Headers, layout: str, kind: type[BaseConfig] | None, source: str
) -> BaseConfig:
    """The configuration of a single file: of its size, if that is a released one, or the one beside it.

    Meta's files come without one, and what lies beside them may belong to another file: they are looked at
    first. What this package and transformers write has its configuration beside it.
    """
    shapes = names.shapes(tensors)
    beside = files[0].parent / CONFIG_FILE
    if beside.is_file() and layout != "meta":
        return _read_config(beside, kind)
    if not is_of_sam2(tensors):
        some = ", ".join(list(tensors)[:5])
        raise ValueError(f"{source} has no tensors named as SAM 2's are; got {cut(some)}")
    try:
        return detect_config(names.torch_shapes(shapes) if layout == "flax" else shapes)
    except ValueError as error:
        if beside.is_file():
            return _read_config(beside, kind)
        raise ValueError(f"{source}: {error}") from error


def _with_or_without_memory(
    whole: BaseConfig, tensors: Headers, kind: type[BaseConfig] | None, source: str
) -> BaseConfig:
    """The configuration of what is there: of a video model without its memory the image model is left."""
    count = sum(map(is_video_only, tensors))
    if kind is Sam2VideoConfig and count == 0:
        raise ValueError(
            f"{source} must hold a video model, and has no tensor of a memory: it is an image model's, for "
            "Sam2Model"
        )
    if kind is None and isinstance(whole, Sam2VideoConfig) and count == 0:
        return whole.image_config
    if kind is None and not isinstance(whole, Sam2VideoConfig) and count:
        raise ValueError(
            f"{source}: model_type must be sam2_video, since {count} tensors of the video model's memory are "
            "there; got sam2"
        )
    return whole


def _prefix_in(tensors: Headers, kind: type[BaseConfig] | None) -> str:
    """Where the names of a part's tensors begin in a file, which may hold more than its part."""
    parts: dict[type[BaseConfig] | None, tuple[str, ...]] = {
        Sam2VisionConfig: ("vision_encoder.",),
        Sam2HieraDetConfig: ("vision_encoder.backbone.", "backbone."),
    }
    return next((p for p in parts.get(kind, ()) if any(name.startswith(p) for name in tensors)), "")


def _check_shapes(found: Headers, expected: Shapes, layout: str, prefix: str, source: str) -> None:
    """Compare names and shapes in the words of the file."""
    shapes = names.shapes(found)
    if layout != "flax":
        expected = names.torch_shapes(expected)
        for one, other in ((names.FOURIER, names.FOURIER_COPY), (names.FOURIER_COPY, names.FOURIER)):
            if one in shapes and other not in shapes:  # one copy is enough
                expected.pop(other, None)
    names.check_names({prefix + name: shape for name, shape in expected.items()}, shapes, source)


def _to_flax(tensors: Headers, layout: str) -> dict[str, Header]:
    return dict(tensors) if layout == "flax" else names.to_flax(tensors, lambda header: header.fetch())


def _stored_type(headers: Mapping[str, Header]) -> np.dtype:
    kinds = {header.dtype for name, header in headers.items() if name != FOURIER}
    return BFLOAT16 if kinds == {"bfloat16"} else np.dtype(np.float32)
