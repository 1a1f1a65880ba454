"""COCO run lengths of masks: lists and compressed strings, equal to pycocotools' byte for byte.

A mask is read column by column; its runs are counted in turn outside and inside, the outside first. A
compressed string holds each count as its difference from the count two before, in digits of five bits, the
lowest first; a sixth bit says that more follow, and each digit is a character from "0" on.
"""

from typing import Any

import numpy as np

from sam2_jax.checks import read_array, read_booleans, shown
from sam2_jax.processing.inputs import MOST_PIXELS

_FIRST_CHARACTER = ord("0")
_MORE = 0x20
_SIGN = 0x10
_MAX_DIGITS = 12  # of five bits, so that a difference fits 64 bits


def encode_rle(mask: Any, compressed: bool = False) -> dict[str, Any]:
    """Run lengths of a boolean mask [H, W]: {"size": [H, W], "counts": ...}, ready for JSON.

    counts: a list of integers, or a string if compressed. Raises ValueError if the mask is not [H, W], or of
    floating point with other numbers than 0 and 1, as logits are.
    """
    mask = read_booleans("mask", mask, "one mask, [height, width]")
    if mask.ndim != 2:
        raise ValueError(f"mask must be one mask, [height, width]; got shape {mask.shape}")
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    leading = [0] if flat.size and flat[0] else []  # an empty run outside
    counts = np.diff(np.concatenate([[0], leading, changes, [flat.size]]).astype(np.int64))
    return {"size": list(mask.shape), "counts": _compress(counts) if compressed else counts.tolist()}


def decode_rle(rle: dict[str, Any]) -> np.ndarray:
    """Boolean mask [H, W] from run lengths, a list or compressed in str or bytes; inverse of `encode_rle`.

    Raises ValueError if size or counts are malformed or the runs do not fill the mask.
    """
    height, width, counts = _read(rle)
    if height * width > MOST_PIXELS:
        raise ValueError(f"rle size must be of at most {MOST_PIXELS:,} pixels; got {height} x {width}")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def convert_rle(rle: dict[str, Any], compressed: bool) -> dict[str, Any]:
    """The same run lengths as `encode_rle` gives them, a list or compressed, without drawing the mask.

    Raises ValueError as `decode_rle` does.
    """
    height, width, counts = _read(rle)
    return {"size": [height, width], "counts": _compress(counts) if compressed else counts.tolist()}


def rle_area(rle: dict[str, Any]) -> int:
    """Number of pixels inside, without decoding. Raises ValueError as `decode_rle` does."""
    return int(_read(rle)[2][1::2].sum())


def rle_bounding_box(rle: dict[str, Any]) -> tuple[int, int, int, int]:
    """COCO's box (x, y, width, height) around the mask, without decoding; zeros if it is empty.

    Raises ValueError as `decode_rle` does.
    """
    height, _, counts = _read(rle)
    ends = np.cumsum(counts)[1::2]
    starts = ends - counts[1::2]
    starts, ends = starts[starts < ends], ends[starts < ends]
    if not starts.size:
        return 0, 0, 0, 0
    (x0, top), (x1, bottom) = np.divmod(starts, height), np.divmod(ends - 1, height)
    spills = (x0 < x1).any()  # a run over the end of a column fills its last row and the next one's first
    y0 = 0 if spills else int(top.min())
    y1 = height - 1 if spills else int(bottom.max())
    return int(x0[0]), y0, int(x1[-1] - x0[0]) + 1, y1 - y0 + 1


def _read(rle: dict[str, Any]) -> tuple[int, int, np.ndarray]:
    """Height, width and counts int64, checked."""
    if not isinstance(rle, dict) or not {"size", "counts"} <= rle.keys():
        raise ValueError(f"an rle must be a dictionary with size and counts; got {shown(rle)}")
    size = _integers("rle size", rle["size"])
    if size.shape != (2,) or (size < 0).any():
        raise ValueError(f"rle size must be [height, width]; got {shown(rle['size'])}")
    counts = rle["counts"]
    counts = _decompress(counts) if isinstance(counts, (str, bytes)) else _integers("rle counts", counts)
    height, width = size.tolist()
    if (counts < 0).any():
        raise ValueError(f"rle counts must not be negative; got {counts.min()}")
    # The longest run is looked at too, for a sum might pass beyond 64 bits and come round.
    if counts.sum() != height * width or counts.max(initial=0) > height * width:
        raise ValueError(f"rle counts must sum to {height} x {width} = {height * width}; got {counts.sum()}")
    return height, width, counts


def _integers(name: str, values: Any) -> np.ndarray:
    """A flat list of integers as int64."""
    array = read_array(name, values, "a list of integers", "ui")
    if array.ndim != 1 or (array.size and array.max() > np.iinfo(np.int64).max):
        raise ValueError(f"{name} must be a list of integers; got {shown(values)}")
    return array.astype(np.int64)


def _compress(counts: np.ndarray) -> str:
    differences = counts.copy()
    differences[3:] -= counts[1:-2]
    # A number of n digits has 5n bits with its sign: it lies in -2^(5n-1) .. 2^(5n-1) - 1.
    magnitude = np.where(differences < 0, ~differences, differences)
    place = np.arange(int(magnitude.max()).bit_length() // 5 + 1)
    lengths = 1 + (magnitude[:, None] >> (5 * place[1:] - 1) > 0).sum(axis=1)
    digits = (differences[:, None] >> (5 * place)) & 0x1F
    digits |= np.where(place < lengths[:, None] - 1, _MORE, 0)
    used = digits[place < lengths[:, None]]
    return (used + _FIRST_CHARACTER).astype(np.uint8).tobytes().decode("ascii")


def _decompress(text: str | bytes) -> np.ndarray:
    data = text.encode("utf-8") if isinstance(text, str) else text
    codes = np.frombuffer(data, np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if ((codes < 0) | (codes > 0x3F)).any():
        raise ValueError('compressed rle counts must be characters from "0" to "o"; got others among them')
    if not codes.size:
        return codes
    is_last = codes & _MORE == 0
    if not is_last[-1]:
        raise ValueError("compressed rle counts break off within a number; is the string cut short?")
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_DIGITS:
        raise ValueError(f"compressed rle counts hold a number of {lengths.max()} digits; is it an rle?")
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    counts = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
    counts -= np.where(codes[ends] & _SIGN, 1 << (5 * lengths), 0)
    # Differences are from the count two before, but for the first three numbers.
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    return counts
