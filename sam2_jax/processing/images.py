"""Pictures of every kind as arrays [height, width, channels]; cropping and normalising them."""

import io
import os
import re
import stat
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from sam2_jax.checks import read_array, shown

Result = TypeVar("Result")

MAX_PIXELS = 300_000_000
"""Pixels of the largest picture that is read unless max_pixels says otherwise; phones make 200 million."""

LARGEST_VALUE = 1e9
"""No number of a picture in floating point may be larger: what is made of them then stays within float32."""

PICTURES = (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""How the names of a folder's pictures end; a file named in prompts.json may end in any way."""

# Resizing keeps a few numbers for each column or row of the picture.
_LONGEST_SIDE = 2**20
_TRANSPARENT_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
_FORMATS = ("channels_last", "channels_first", "none")


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, by name; hidden files are left out."""
    files = (file for file in folder.iterdir() if file.suffix.lower() in PICTURES)
    return sorted(file for file in files if not file.name.startswith("."))


def natural_order(name: str) -> list[tuple[bool, int, str]]:
    """A key that sorts frames of a clip by their names: numbers as numbers, frame2 before frame10."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def open_image(
    source: str | os.PathLike[str] | bytes, max_pixels: int = MAX_PIXELS, name: str | None = None
) -> Image.Image:
    """Open a picture file as people see it: upright by its EXIF orientation, an animation's first frame.

    source: its path, or its bytes. max_pixels: how large it may be; the size is read before the pixels. name:
    what messages call it, by default its path. Raises ValueError, naming the file, if it is missing, not a
    picture, broken or too large; warns if frames are left out. Safe in threads: Pillow's own limit, which the
    whole process shares, is not used.
    """
    name = _name(source, name)

    def read(file: Image.Image) -> tuple[Image.Image, int]:
        check_pixels(file.size, max_pixels, name)
        frames = getattr(file, "n_frames", 1)
        image = ImageOps.exif_transpose(file)
        if file.format == "PPM" and image.mode == "I":  # Pillow spreads 16 bits over 0 to 65535, as 32 bits
            image = Image.fromarray(np.asarray(image).astype(np.uint16))
        return image, frames

    image, frames = _read(source, read, name)
    if frames > 1:
        warnings.warn(f"{name} has {frames} frames; only the first is used", stacklevel=2)
    return image


def image_size(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) of a picture as `open_image` returns it, from its header; ValueError likewise."""

    def read(file: Any) -> tuple[int, int]:
        check_pixels(file.size, max_pixels, _name(path))
        width, height = file.size
        if file.format == "TIFF":  # its size is turned already
            width, height = (
                file.tag_v2[tag] for tag in (ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength)
            )
        # PNG's own getexif decodes the pixels to look behind them.
        is_behind = file.format == "PNG" and _has_more_behind_pixels(file)
        exif = file.getexif() if is_behind else Image.Image.getexif(file)
        turned = exif.get(ExifTags.Base.Orientation) in _TURNED
        return (width, height) if turned else (height, width)

    try:
        return _read(path, read)
    except ValueError:  # such as EXIF that is broken; what is wrong with the picture, opening it finds too
        image = open_image(path, max_pixels)
        return image.height, image.width


def _has_more_behind_pixels(file: Any) -> bool:
    """Whether a PNG file has words or EXIF behind its pixels."""
    at, names = file.fp.tell(), []
    file.fp.seek(8)
    while len(head := file.fp.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        names.append(name)
        file.fp.seek(length + 4, os.SEEK_CUR)
    file.fp.seek(at)
    behind = names[names.index(b"IDAT") :] if b"IDAT" in names else []
    return not {b"eXIf", b"iTXt", b"tEXt", b"zTXt"}.isdisjoint(behind)


class _TooLargeError(ValueError):
    """Says that a picture has too many pixels."""


def _read(source: Any, read: Callable[[Image.Image], Result], name: str | None = None) -> Result:
    """Let read look at a picture file as `reading` gives it."""
    with reading(source, name=name) as file:
        return read(file)


@contextmanager
def reading(source: Any, max_pixels: int | None = None, name: str | None = None) -> Iterator[Image.Image]:
    """A picture file whose header alone has been read, to be read on; ValueError for all that fails.

    source and name: see `open_image`. max_pixels: how large it may be, None if that is seen to by whoever
    reads on.
    """
    name = _name(source, name)
    if not isinstance(source, (str, os.PathLike, bytes)):
        raise ValueError(f"a picture's path must be text or a Path; got {shown(source)}")
    try:
        with _opened(source) as file:
            image = _identify(file, name if isinstance(source, bytes) else os.fspath(source))
            if max_pixels is not None:
                check_pixels(image.size, max_pixels, name)
            yield image
    except _TooLargeError:
        raise
    except FileNotFoundError as error:
        remedy = ": download it first" if "://" in str(source) else ""
        raise ValueError(f"there is no picture {name}{remedy}") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is not a picture in a format that Pillow reads") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{name} is larger than Pillow decodes files of this format: make it smaller first, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except OSError as error:
        why = error.strerror or f"the picture is truncated or broken ({_short(error)})"
        raise ValueError(f"{name} cannot be read: {why}") from error
    except Exception as error:  # Pillow's decoders meet broken files with errors of every kind
        raise ValueError(
            f"{name} cannot be read: the picture is truncated or broken ({_short(error)})"
        ) from error


def _opened(source: str | os.PathLike[str] | bytes) -> IO[bytes]:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    # A pipe or a device would be waited for, or read without end.
    if not stat.S_ISREG(os.stat(source).st_mode):
        raise IsADirectoryError(0, "it is not a file")
    return open(source, "rb")


def _identify(file: IO[bytes], name: str) -> Image.Image:
    """As `Image.open`, but for its limit on pixels, a warning at first, which the user's filters rule."""
    prefix = file.read(16)
    tried: set[str] = set()
    for load_plugins in (Image.preinit, Image.init):  # the usual formats, then all
        load_plugins()
        for format_, (factory, accepts) in Image.OPEN.copy().items():
            if format_ in tried:
                continue
            tried.add(format_)
            try:
                fits = accepts is None or accepts(prefix)
                if fits and not isinstance(fits, str):  # a text says why the format is not read here
                    file.seek(0)
                    return factory(file, name)
            except (SyntaxError, IndexError, TypeError, struct.error):  # as Pillow has it: another may fit
                continue
    raise UnidentifiedImageError


def _name(source: Any, name: str | None = None) -> str:
    """A picture file as messages name it, by its name or path: of a very long one the end."""
    named = source if name is None else name
    name = " ".join(str(named).split()) if isinstance(named, (str, os.PathLike)) else shown(named)
    return name if len(name) <= 200 else f"... {name[-100:]}"


def _short(error: Exception) -> str:
    return shown(str(error))[1:-1]


def check_pixels(size: Sequence[int], max_pixels: int, name: str = "an image") -> None:
    """Raise ValueError for a picture of (width, height) that is larger than one wants to wait for."""
    width, height = size
    if width * height > max_pixels:
        raise _TooLargeError(
            f"{name} is too large to be a photo: {width} x {height} pixels are more than the limit of "
            f"{max_pixels:,}. Make it smaller first, or raise max_pixels"
        )
    if max(size) > _LONGEST_SIDE:
        raise _TooLargeError(
            f"{name} is too large to be a photo: {width} x {height} pixels; a side may have {_LONGEST_SIDE:,}"
        )


def to_rgb(image: Any, input_data_format: str | None = None, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return a picture as uint8 [H, W, 3]: `to_pixels` for pictures of 8 and 16 bits a channel.

    Raises ValueError for what `to_pixels` refuses, and for arrays of floating point.
    """
    return require_8_bits(image, to_pixels(image, input_data_format, max_pixels=max_pixels))


def require_8_bits(image: Any, pixels: np.ndarray) -> np.ndarray:
    """Return the pixels of an image, or raise ValueError if they are not uint8."""
    if pixels.dtype != np.uint8:
        found = getattr(image, "dtype", pixels.dtype)
        raise ValueError(f"an image must have integers, 0 to 255, here; got {found}: convert it to uint8")
    return pixels


def to_pixels(
    image: Any,
    input_data_format: str | None = None,
    *,
    do_convert_rgb: bool = True,
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Return a picture as an array [H, W, channels], uint8 or float32; as RGB, transparency laid on white.

    image: a path; a PIL image (taken as it lies, without EXIF rotation); or an array [H, W], [H, W, 1, 3 or
    4] or [1, 3 or 4, H, W].

    What numbers mean hangs on their type alone, and not on their byte order or on what holds them: uint16
    (PIL's I;16) is 0 to 65535 and scaled to 8 bits; every other integer (PIL's I) is 0 to 255; floating point
    (PIL's F) is kept as it is. Pictures of uint16 without a value above 4095 are warned of.

    input_data_format: "channels_last", "channels_first", "none" for [H, W], or None to see it from the shape,
    channels last if either would do. do_convert_rgb=False leaves the channels as they are, and refuses a
    picture that has not `channels` of them already. max_pixels: how large the picture may be. Raises
    ValueError for anything else.
    """
    if isinstance(image, (str, os.PathLike)):
        image = open_image(image, max_pixels)
    if isinstance(image, Image.Image):
        image = _pil_to_array(image, do_convert_rgb, channels, max_pixels)
        input_data_format = "channels_last" if image.ndim == 3 else "none"
    usual = (1, 3, 4) if do_convert_rgb else (1, 3, 4, channels)
    array = _channels_last(image, input_data_format, usual)
    check_pixels((array.shape[1], array.shape[0]), max_pixels)
    found = array.shape[2]
    if not do_convert_rgb and found != channels:
        raise ValueError(
            f"an image must have {channels} channels if do_convert_rgb is False; got {found}: image_mean and "
            "image_std are for as many as the network has"
        )
    pixels = _to_8_bits_or_float(array)
    if not do_convert_rgb or found == 3:
        return pixels
    return np.repeat(pixels, 3, axis=2) if found == 1 else _lay_on_white(pixels)


def _channels_last(image: Any, input_data_format: str | None, channels: Sequence[int]) -> np.ndarray:
    """An array of a picture as [H, W, C], C of those channels."""
    layout = read_layout(input_data_format)
    wanted = "" if layout is None else f", laid out as input_data_format {layout!r} says"
    counts = f"{', '.join(map(str, channels[:-1]))} or {channels[-1]}"
    expected = (
        f"a path, a PIL image or an array [height, width], [height, width, {counts}] or [{counts}, height, "
        f"width] of numbers{wanted}"
    )
    array = read_array("an image", image, expected)
    if layout is None:
        is_first = array.ndim == 3 and array.shape[2] not in channels and array.shape[0] in channels
        layout = "none" if array.ndim == 2 else "channels_first" if is_first else "channels_last"
    fits = array.ndim == (2 if layout == "none" else 3) and array.dtype.kind in "uif"
    if fits:
        array = array[:, :, None] if layout == "none" else array
        array = np.moveaxis(array, 0, -1) if layout == "channels_first" else array
    if not fits or array.shape[2] not in channels:
        raise ValueError(
            f"an image must be {expected}; got {type(image).__name__} of shape {np.shape(image)} and type "
            f"{array.dtype}"
        )
    if array.size == 0:
        raise ValueError(f"an image must have pixels; got shape {array.shape}")
    return array


def read_layout(input_data_format: Any) -> str | None:
    """Return the layout of arrays that is meant, None if it is left open; ValueError for others."""
    if input_data_format is None:
        return None
    for layout in _FORMATS:
        if isinstance(input_data_format, str) and input_data_format == layout:
            return layout
    raise ValueError(f"input_data_format must be one of {_FORMATS} or None; got {shown(input_data_format)}")


def _to_8_bits_or_float(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ValueError("an image must have finite numbers; got NaN or infinity")
        if max(-float(array.min()), float(array.max())) > LARGEST_VALUE:
            raise ValueError(
                f"an image must have numbers of at most {LARGEST_VALUE:g} in size; got {array.min():g} to "
                f"{array.max():g}"
            )
        return array.astype(np.float32)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        if 0 < array.max() < 2**12:
            warnings.warn(
                f"an image of uint16 has no value above {array.max()}; uint16 means 0 to 65535, so it is "
                "nearly black: if it has fewer bits, scale them up, or convert it to uint8",
                stacklevel=4,
            )
        return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if array.dtype != np.uint8 and (array.min() < 0 or array.max() > 255):
        raise ValueError(
            f"an image of {array.dtype} must have values 0 to 255; got {array.min()} to {array.max()}: if it "
            "has 16 bits, convert it to uint16"
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


def _pil_to_array(image: Image.Image, do_convert_rgb: bool, channels: int, max_pixels: int) -> np.ndarray:
    """Pixels [H, W, 3], or those [H, W, channels] that it has, or [H, W] of numbers beyond 8 bits."""
    if 0 in image.size:
        raise ValueError(f"an image must have pixels; got {image.width} x {image.height}")
    check_pixels(image.size, max_pixels)
    try:
        image.load()
    except Exception as error:  # as of files
        raise ValueError(f"an image cannot be read: it is truncated or broken ({_short(error)})") from error
    if image.mode.startswith(("I", "F")):
        return np.asarray(image)
    if not do_convert_rgb:
        if image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK") or len(image.getbands()) != channels:
            wanted = {3: "RGB", 4: "RGBA or CMYK"}.get(channels, f"of {channels} channels")
            raise ValueError(f"an image must be {wanted} if do_convert_rgb is False; got mode {image.mode}")
        return np.asarray(image)
    if image.mode in _TRANSPARENT_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def in_float(picture: np.ndarray) -> np.ndarray:
    """A picture of 8 bits as float32, to be resized without rounding; one of 0 and 1 alone as it is.

    For that is black, but in floating point it would pass for black and white.
    """
    return picture.astype(np.float32) if picture.max() > 1 else picture


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
