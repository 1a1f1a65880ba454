"""Pictures of every kind as arrays [height, width, channels]; cropping and normalising them."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_TRANSPARENT_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


PICTURES = (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""How the names of a folder's pictures end; a file named in prompts.json may end in any way."""


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, by name; hidden files are left out."""
    files = (file for file in folder.iterdir() if file.suffix.lower() in PICTURES)
    return sorted(file for file in files if not file.name.startswith("."))


def open_image(path: str | Path) -> Image.Image:
    """Open a picture file as people see it: upright by its EXIF orientation, an animation's first frame.

    Raises ValueError, naming the file, if it is missing, not a picture, broken or too large; warns if frames
    are left out.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                frames = getattr(file, "n_frames", 1)
                image = ImageOps.exif_transpose(file)
    except FileNotFoundError as error:
        remedy = ": download it first" if "://" in str(path) else ""
        raise ValueError(f"there is no picture {path}{remedy}") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not a picture in a format that Pillow reads") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path} is too large to be a photo: {error}. Make it smaller first") from error
    except (IsADirectoryError, PermissionError) as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # Pillow's decoders meet broken files with errors of every kind
        raise ValueError(f"{path} cannot be read: the picture is truncated or broken ({error})") from error
    if frames > 1:
        warnings.warn(f"{path} has {frames} frames; only the first is used", stacklevel=2)
    return image


def to_rgb(image: Any, input_data_format: str | None = None) -> np.ndarray:
    """Return a picture as uint8 [H, W, 3]: `to_pixels` for pictures of 8 and 16 bits a channel.

    Raises ValueError for what `to_pixels` refuses, and for arrays of floating point.
    """
    pixels = to_pixels(image, input_data_format)
    if pixels.dtype != np.uint8:
        raise ValueError(
            f"an image must have integers, 0 to 255, here; got {np.asarray(image).dtype}: convert it to uint8"
        )
    return pixels


def to_pixels(image: Any, input_data_format: str | None = None, *, do_convert_rgb: bool = True) -> np.ndarray:
    """Return a picture as an array [H, W, 3], uint8 or float32, transparency laid on white.

    image: a path; a PIL image (taken as it lies, without EXIF rotation); or an array [H, W], [H, W, 1, 3 or
    4] or [1, 3 or 4, H, W] of integers 0 to 255, uint16 (scaled to 8 bits) or floating point (kept as it is).
    input_data_format: "channels_last", "channels_first", "none" for [H, W], or None to see it from the shape,
    channels last if either would do. do_convert_rgb=False refuses whatever has not three channels already.
    Raises ValueError for anything else.
    """
    if isinstance(image, (str, Path)):
        image = open_image(image)
    if isinstance(image, Image.Image):
        if not do_convert_rgb and image.mode != "RGB":
            raise ValueError(f"an image must be RGB if do_convert_rgb is False; got mode {image.mode}")
        return _pil_to_rgb(image)
    pixels = _to_8_bits_or_float(_channels_last(image, input_data_format))
    channels = pixels.shape[2]
    if channels == 3:
        return pixels
    if not do_convert_rgb:
        raise ValueError(f"an image must have 3 channels if do_convert_rgb is False; got {channels}")
    return np.repeat(pixels, 3, axis=2) if channels == 1 else _lay_on_white(pixels)


_FORMATS = ("channels_last", "channels_first", "none")


def _channels_last(image: Any, input_data_format: str | None) -> np.ndarray:
    """An array of a picture as [H, W, C], C of 1, 3 or 4."""
    if input_data_format is not None and input_data_format not in _FORMATS:
        raise ValueError(f"input_data_format must be one of {_FORMATS} or None; got {input_data_format!r}")
    array = np.asarray(image)
    layout = input_data_format
    if layout is None:
        is_first = array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4)
        layout = "none" if array.ndim == 2 else "channels_first" if is_first else "channels_last"
    fits = array.ndim == (2 if layout == "none" else 3) and array.dtype.kind in "uif"
    if fits:
        array = array[:, :, None] if layout == "none" else array
        array = np.moveaxis(array, 0, -1) if layout == "channels_first" else array
    if not fits or array.shape[2] not in (1, 3, 4):
        wanted = "" if input_data_format is None else f", laid out as input_data_format {layout!r} says"
        raise ValueError(
            "an image must be a path, a PIL image or an array [height, width], [height, width, 1, 3 or 4] or "
            f"[1, 3 or 4, height, width] of numbers{wanted}; got {type(image).__name__} of shape "
            f"{np.shape(image)} and type {array.dtype}"
        )
    if array.size == 0:
        raise ValueError(f"an image must have pixels; got shape {array.shape}")
    return array


def _to_8_bits_or_float(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ValueError("an image must have finite numbers; got NaN or infinity")
        return array.astype(np.float32)
    if array.dtype == np.uint16:
        return _to_8_bits(array)
    if array.dtype != np.uint8 and (array.min() < 0 or array.max() > 255):
        raise ValueError(
            f"an image of {array.dtype} must have values 0 to 255; got {array.min()} to {array.max()}"
        )
    return array.astype(np.uint8)


def _lay_on_white(rgba: np.ndarray) -> np.ndarray:
    """Lay RGBA pixels [H, W, 4] on white; like the reference, cut and not rounded to 8 bits."""
    is_8_bit = rgba.dtype == np.uint8
    values = rgba.astype(np.float32) * np.float32(1 / 255 if is_8_bit else 1)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(
            "an image with transparency in floating point must have values 0 to 1, and then "
            f"do_rescale=False; got {values.min():g} to {values.max():g}"
        )
    colour, alpha = values[..., :3], values[..., 3:]
    blended = colour * alpha + (1 - alpha)
    return (blended * np.float32(255.999)).astype(np.uint8) if is_8_bit else blended


def _pil_to_rgb(image: Image.Image) -> np.ndarray:
    if 0 in image.size:
        raise ValueError(f"an image must have pixels; got {image.width} x {image.height}")
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion would clip at 255
        array = np.asarray(image)
        if array.min() < 0 or array.max() > 65535:
            raise ValueError(
                f"a grey image of mode {image.mode} must have values 0 to 65535; convert it to 8 bits"
            )
        return np.repeat(_to_8_bits(array)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("an image of mode F has no known range; convert it to 8 bits first")
    if image.mode in _TRANSPARENT_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _to_8_bits(array: np.ndarray) -> np.ndarray:
    return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def center_crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cut [height, width, C] out of the middle of image [H, W, C]; what it lacks is zeros."""
    pads = []
    for size, wanted in zip(image.shape[:2], (height, width), strict=True):
        missing = max(wanted - size, 0)
        pads.append((missing // 2, missing - missing // 2))
    image = np.pad(image, (*pads, (0, 0)))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def normalize(
    image: np.ndarray, mean: Sequence[float], std: Sequence[float], rescale_factor: float = 1 / 255
) -> np.ndarray:
    """Rescale and normalise image [H, W, C] in one step, as float32: (x - mean / factor) / (std / factor)."""
    unit = np.float32(1 / rescale_factor)
    return (image.astype(np.float32) - np.asarray(mean, np.float32) * unit) / (
        np.asarray(std, np.float32) * unit
    )
