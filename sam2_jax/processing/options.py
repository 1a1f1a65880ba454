"""Options of an image processor: their names, and the gate that their values pass."""

from collections.abc import Callable, Mapping
from typing import Any

from sam2_jax.checks import check_options, read_flag, read_number, read_numbers, read_whole, shown
from sam2_jax.processing.images import read_layout
from sam2_jax.processing.inputs import read_size
from sam2_jax.processing.resampling import RESAMPLING

# Options of transformers' that change nothing here: there is one way to do it, on the CPU.
_WITHOUT_EFFECT = ("device", "disable_grouping", "default_to_square", "image_seq_length")
SWITCHES = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
# Beyond these, pixels might not fit float32. No camera's numbers come near.
_LEAST, _MOST = 1e-9, 1e9
_PADDING = {"do_pad": (False,), "pad_size": (), "data_format": ("channels_last",)}
"""Options of transformers' -> the values, beside None, that ask for what is done here anyway."""


def read_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check options of an image processor and return those that were given and mean something here.

    Raises ValueError for unknown names and for values that cannot be meant.
    """
    check_options(options, OPTIONS, "the image processor")
    check_padding({name: value for name, value in options.items() if name in _PADDING})
    return {
        name: _READERS[name](name, value)
        for name, value in options.items()
        if name in _READERS and value is not None
    }


def check_padding(options: Mapping[str, Any]) -> None:
    """Raise ValueError for options that ask for padding or for another layout of the pixels."""
    for name, value in options.items():
        if value is None or (isinstance(value, (bool, str)) and value in _PADDING[name]):
            continue
        if name == "data_format":
            raise ValueError(
                f'data_format must be "channels_last", as the model takes pixels; got {shown(value)}: for '
                "another network, numpy.moveaxis(pixel_values, -1, 1)"
            )
        raise ValueError(f"do_pad must be false: SAM 2 pads nothing; leave out {name}, {shown(value)}")


def _read_filter(name: str, value: Any) -> int:
    try:
        number = read_whole(name, value)
    except ValueError:
        number = -1
    if number not in RESAMPLING:
        raise ValueError(
            f"{name} must be one of Pillow's filters {RESAMPLING} (nearest, Lanczos, bilinear, bicubic); got "
            f"{shown(value)}"
        )
    return number


def _read_positive(name: str, value: Any) -> float:
    number = read_number(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be positive; got {shown(value)}")
    return read_number(name, value, _LEAST, _MOST)


def _read_statistic(name: str, value: Any) -> float | tuple[float, ...]:
    """A number for all channels or one for each."""
    numbers = read_numbers(name, value, "three numbers, for red, green and blue, or one for all", _MOST)
    if numbers.ndim > 1 or numbers.size == 0:
        raise ValueError(f"{name} must be three numbers, for red, green and blue; got {shown(value)}")
    if name == "image_std":
        for number in numbers.ravel():
            _read_positive(name, number)
    return float(numbers) if numbers.ndim == 0 else tuple(numbers.tolist())


_READERS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(SWITCHES, read_flag),
    **dict.fromkeys(("size", "crop_size", "mask_size"), read_size),
    "resample": _read_filter,
    "rescale_factor": _read_positive,
    "image_mean": _read_statistic,
    "image_std": _read_statistic,
    "input_data_format": lambda _, value: read_layout(value),
    "max_pixels": lambda name, value: read_whole(name, value, 1),
}
OPTIONS = (*_READERS, *_WITHOUT_EFFECT, *_PADDING)
"""Names of all options that an image processor takes."""
