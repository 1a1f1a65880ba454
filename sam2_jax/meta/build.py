"""Models by Meta's names of configurations and checkpoints."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sam2_jax.checks import check_options, read_flag, shown
from sam2_jax.config import RELEASED_MODELS, released_config, released_video_config
from sam2_jax.image.model import Sam2Model
from sam2_jax.video.model import Sam2VideoModel

_SIZES = {"t": "tiny", "s": "small", "b+": "base-plus", "l": "large"}
_CONFIG_FILE = re.compile(r"sam2(\.1)?_hiera_(t|s|b\+|l)(\.yaml)?$")
Model = TypeVar("Model", Sam2Model, Sam2VideoModel)

_BUILDING = ("device", "mode", "hydra_overrides_extra", "apply_postprocessing")


def build_sam2(
    config_file: str | None = None,
    ckpt_path: str | Path | None = None,
    device: Any = None,
    mode: str | None = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    **options: Any,
) -> Sam2Model:
    """Load a model as Meta's function of this name does.

    config_file: Meta's name of a configuration, "configs/sam2.1/sam2.1_hiera_l.yaml" say, which the
    checkpoint must be of; None leaves it to the checkpoint. ckpt_path: what `Sam2Model.from_pretrained`
    reads; None for random weights. device is accepted for Meta's sake: JAX computes on its default device.
    apply_postprocessing=False: a single mask that is not stable no longer gives way to the best of three.
    options: those of `Sam2Model.from_pretrained`. Raises ValueError for what cannot be loaded or meant.
    """
    building = {
        "device": device,
        "mode": mode,
        "hydra_overrides_extra": hydra_overrides_extra,
        "apply_postprocessing": apply_postprocessing,
    }
    return load(Sam2Model, config_file, ckpt_path, **building, **options)


def load(
    kind: type[Model],
    config_file: str | None,
    ckpt_path: str | Path | None,
    device: Any = None,
    mode: str | None = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    **options: Any,
) -> Model:
    """Load a model of either kind; see `build_sam2`."""
    if mode not in (None, "eval"):
        raise ValueError(f'mode must be "eval": models here have no other; got {shown(mode)}')
    if len(hydra_overrides_extra or ()) > 0:
        raise ValueError(
            f"hydra_overrides_extra cannot be followed here; got {shown(hydra_overrides_extra)}: give a "
            "predictor's options by their names, or change the configuration, "
            f"{kind.__name__}(dataclasses.replace(model.config, ...), model.params)"
        )
    apply_postprocessing = read_flag("apply_postprocessing", apply_postprocessing)
    kind.check_loading(**options)
    released: Any = released_config if kind is Sam2Model else released_video_config
    expected = None if config_file is None else released(_released_name(config_file))
    if ckpt_path is not None:
        model = kind.from_pretrained(ckpt_path, **options)
    elif expected is None:
        raise ValueError("config_file or ckpt_path must be given")
    else:
        model = kind(expected, **options)
    if expected is not None and _backbone(model.config) != _backbone(expected):
        raise ValueError(f"{ckpt_path} is not of the configuration {config_file}: give None to take its own")
    return model if apply_postprocessing else _without_postprocessing(model)


def build_sam2_hf(model_id: str | Path, **options: Any) -> Sam2Model:
    """Load a model by its hub id or from a folder; options as of `build_sam2`, errors too."""
    return build_sam2(None, model_id, **options)


def _backbone(config: Any) -> Any:
    return config.vision_config.backbone_config


def _released_name(config_file: str) -> str:
    found = _CONFIG_FILE.search(str(config_file))
    if found is None:
        names = ", ".join(f"sam2.1_hiera_{size}.yaml" for size in _SIZES)
        raise ValueError(f"config_file must be one of Meta's, such as {names}; got {shown(config_file)}")
    wanted = ("2.1" if found[1] else "2.0", _SIZES[found[2]])
    return next(name for name, kind in RELEASED_MODELS.items() if kind == wanted)


def _without_postprocessing(model: Model) -> Model:
    decoder = replace(model.config.mask_decoder_config, dynamic_multimask_via_stability=False)
    config: Any = replace(model.config, mask_decoder_config=decoder)
    padding: dict[str, Any] = {"padding": model.padding} if isinstance(model, Sam2Model) else {}
    changed = type(model)(config, model.params, dtype=model.module.dtype, **padding)
    changed.processor = model.processor
    return changed


def split_options(options: dict[str, Any], own: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of `build_sam2` and those of a class's own; ValueError for a name that neither has."""
    check_options(options, (*own, *_BUILDING, *Sam2Model.loading_options()), "from_pretrained")
    building = {name: value for name, value in options.items() if name not in own}
    return building, {name: value for name, value in options.items() if name in own}
