"""Pictures as arrays: reading, resizing exactly as the reference does, normalising."""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_TRANSPARENT_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


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
        raise ValueError(f"there is no picture {path}") from error
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


def to_rgb(image: Any) -> np.ndarray:
    """Return a picture as uint8 [H, W, 3], transparency laid on white as the reference does.

    image: a path, a PIL image (taken as it lies, without EXIF rotation), or a uint8 or uint16
    array [H, W] or [H, W, 1, 3 or 4]. 16 bits a channel are scaled to 8. Raises ValueError for anything else.
    """
    if isinstance(image, (str, Path)):
        image = open_image(image)
    if isinstance(image, Image.Image):
        return _pil_to_rgb(image)
    array = np.asarray(image)
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if not shaped or array.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            "an image must be a path, a PIL image or a uint8 or uint16 array [height, width, 1, 3 or 4]; got "
            f"{type(image).__name__} of shape {array.shape} and type {array.dtype}"
        )
    if array.size == 0:
        raise ValueError(f"an image must have pixels; got shape {array.shape}")
    if array.dtype == np.uint16:
        array = _to_8_bits(array)
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return _pil_to_rgb(Image.fromarray(array)) if array.shape[2] == 4 else array


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


@lru_cache(maxsize=64)
def _antialias_taps(size_in: int, size_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Source indices and weights [size_out, taps] of antialiased bilinear resizing along one axis.

    A triangle of radius max(scale, 1) around each target pixel's centre, cut at the border and normalised.
    """
    scale = size_in / size_out
    support = max(scale, 1.0)
    centre = scale * (np.arange(size_out) + 0.5)
    low = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    high = np.minimum((centre + support + 0.5).astype(np.int64), size_in)
    index = low[:, None] + np.arange((high - low).max())
    weights = np.maximum(1 - np.abs((index - centre[:, None] + 0.5) / support), 0)
    weights[index >= high[:, None]] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return np.minimum(index, size_in - 1), weights


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 [H, W, C] to [height, width, C], bit for bit as torch's antialiased bilinear does.

    Fixed-point weights, width first, rounded to uint8 after each axis (torch's `upsample_bilinear2d_aa`).
    """
    return _resize_axis(_resize_axis(image, 1, width), 0, height)


def _resize_axis(image: np.ndarray, axis: int, size: int) -> np.ndarray:
    if image.shape[axis] == size:
        return image
    index, weights = _antialias_taps(image.shape[axis], size)
    bits = 0
    while bits < 22 and 0.5 + weights.max() * 2 ** (bits + 1) < 2**15:
        bits += 1
    integers = (0.5 + weights * 2**bits).astype(np.int32)
    shape = [1] * image.ndim
    shape[axis] = size
    total = np.full(
        [*image.shape[:axis], size, *image.shape[axis + 1 :]], 2 ** (bits - 1) if bits else 0, np.int32
    )
    for tap in range(index.shape[1]):
        total += image.take(index[:, tap], axis=axis) * integers[:, tap].reshape(shape)
    return np.clip(total >> bits, 0, 255).astype(np.uint8)


def normalize(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Normalise uint8 [H, W, C] to float32: (x - 255 mean) / (255 std)."""
    scaled_mean = np.asarray(mean, np.float32) * np.float32(255)
    scaled_std = np.asarray(std, np.float32) * np.float32(255)
    return (image.astype(np.float32) - scaled_mean) / scaled_std
