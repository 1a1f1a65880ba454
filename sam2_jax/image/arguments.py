"""What `Sam2Model` is called with: checked, brought to one form, padded to few shapes.

Anything may be traced by JAX, and then only its shape and type are checked: it has no values yet. The values
of pixels, masks and embeddings that lie on a device are not fetched to be checked either. Nothing is put on a
device here, so that what is known stays known inside of a transformation.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sam2_jax.checkpoint.pretrained import computed_at_once
from sam2_jax.checks import read_array, read_flag, read_number, shown
from sam2_jax.config import Sam2Config, Sam2HieraDetConfig
from sam2_jax.model.prompt_encoder import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NOT_A_POINT, PADDING, POSITIVE
from sam2_jax.model.sam2 import ImageEmbeddings
from sam2_jax.processing.masks import is_binary
from sam2_jax.processing.processor import Sam2Processor

Array = np.ndarray | jax.Array

_MOST_SCORE = 1e30  # well within float32
_ONE_ARRAY = "one array of numbers; the processor makes it"


def check_flag(name: str, value: Any, default: bool) -> bool:
    """Return True or False; None is the default. Raises ValueError for anything else."""
    return default if value is None else read_flag(name, value)


def check_processor(processor: Any) -> Sam2Processor:
    """Return a processor, or raise ValueError for anything else."""
    if not isinstance(processor, Sam2Processor):
        raise ValueError(f"processor must be a Sam2Processor or None; got {shown(processor)}")
    return processor


def check_min_score(min_score: Any) -> Any:
    """Return a least predicted IoU as float32, None as it is, or raise ValueError."""
    if min_score is None or is_traced(min_score):
        return min_score
    return np.float32(np.clip(read_number("min_score", min_score), -_MOST_SCORE, _MOST_SCORE))


def is_traced(values: Any) -> bool:
    """Whether there is anything in an array, list or tree that JAX only traces."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def check_pixels(pixel_values: Any, config: Sam2Config) -> Array:
    """Return pixel_values [B, H, W, C] of the configured size as an array, or raise ValueError."""
    expected = (*config.image_size, config.vision_config.backbone_config.num_channels)
    hint = "use the model's processor, or config.with_image_size for another size"
    return _pixels(pixel_values, expected, hint)


def check_sized_pixels(pixel_values: Any, config: Sam2HieraDetConfig) -> Array:
    """Return pixel_values [B, H, W, C] of any size the backbone divides as an array, or raise."""
    array = _pixels(pixel_values, ("height", "width", config.num_channels), "use the model's processor")
    if any(side % stride for side, stride in zip(array.shape[1:3], config.stride, strict=True)):
        raise ValueError(
            f"pixel_values must have height and width divisible by the backbone's stride {config.stride}; "
            f"got {array.shape}: resize the images to such a size"
        )
    return array


def _pixels(pixel_values: Any, expected: tuple[int | str, ...], hint: str) -> Array:
    """Return pixels as an array of the expected shape behind the batch, a word standing for any number."""
    if pixel_values is None:
        raise ValueError("pixel_values must be given: the processor makes them of images")
    pixel_values = _as_array("pixel_values", pixel_values)
    shape = pixel_values.shape
    fits = len(shape) == 4 and all(
        found == wanted if isinstance(wanted, int) else found > 0
        for found, wanted in zip(shape[1:], expected, strict=True)
    )
    if not fits or shape[0] == 0:
        if len(shape) == 4 and shape[1] == expected[2]:
            hint = "this looks like channels first: transpose with (0, 2, 3, 1)"
        elif len(shape) == 3:
            hint = "one image is a batch of one: index with [None]"
        layout = ", ".join(map(str, expected))
        raise ValueError(f"pixel_values must be of shape (batch, {layout}); got {shape}: {hint}")
    if not jnp.issubdtype(pixel_values.dtype, jnp.floating):
        raise ValueError(
            f"pixel_values must be normalised, floating point; got {pixel_values.dtype}: use the model's "
            "processor"
        )
    pixels = _as_float32(pixel_values)
    _require_finite("pixel_values", pixels)
    return pixels


def _as_array(name: str, values: Any) -> Array:
    """Return what is an array, or can be one, as that; what is on a device stays there."""
    if isinstance(values, jax.Array):
        return values
    if not is_traced(values):
        return read_array(name, values, _ONE_ARRAY)
    try:
        return jnp.asarray(values)
    except (TypeError, ValueError) as error:  # lists of different lengths
        raise ValueError(f"{name} must be {_ONE_ARRAY}") from error


def _as_float32(array: Array) -> Array:
    """Return an array as float32, but leave bfloat16 on a device as it is."""
    is_small = isinstance(array, jax.Array) and array.dtype == jnp.bfloat16
    return array if is_small else _float32(array)


def _float32(array: Array) -> Array:
    """Return an array as float32; what is beyond that is infinite."""
    if array.dtype == np.float32:
        return array
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _require_finite(name: str, values: Any) -> None:
    """Refuse NaN and infinity in numpy arrays; what is on a device already is not fetched for it."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite numbers; got NaN, infinity or a number beyond float32")


def check_embeddings(embeddings: Any, config: Sam2Config) -> ImageEmbeddings:
    """Return the three maps of an earlier call for the configured size, or raise ValueError."""
    height, width = config.image_size
    stride_y, stride_x = config.vision_config.backbone_config.patch_stride
    rows, columns = height // stride_y, width // stride_x
    channels = config.mask_decoder_config.hidden_size
    expected = [(rows, columns, channels // 8), (rows // 2, columns // 2, channels // 4)]
    expected.append((rows // 4, columns // 4, channels))
    is_list = isinstance(embeddings, (tuple, list))
    found = [np.shape(x) for x in embeddings] if is_list else []
    is_batch = len({shape[:1] for shape in found}) == 1
    if not is_batch or [shape[1:] for shape in found] != expected:
        raise ValueError(
            "image_embeddings must be the three maps an earlier call returned, of shapes "
            f"{', '.join(f'(batch, {h}, {w}, {c})' for h, w, c in expected)}; "
            f"got {shown(found if is_list else type(embeddings))}: pass outputs.image_embeddings or what "
            "get_image_embeddings returns as it is"
        )
    maps: Any = (_as_array("image_embeddings", x) for x in embeddings)
    fine, middle, coarse = maps
    return fine, middle, coarse


def bucket(count: int, base: int) -> int:
    """Round a count up to one of few sizes: powers of base up to 16, then multiples of 16."""
    size = 1
    while size < min(count, 16):
        size *= base
    return size if count <= 16 else -(-count // 16) * 16


def take_objects(x: Any, chunk: slice) -> Any:
    """Take a chunk of objects of x [B, P or 1, ...]; what is shared by all objects stays."""
    return x if x is None or x.shape[1] == 1 else x[:, chunk]


def check_prompts(
    points: Any, labels: Any, boxes: Any, masks: Any, batch: int | None
) -> tuple[Array, Array, Array | None]:
    """Check prompts and bring them to points [B, P, N, 2], labels [B, P, N] and masks [B, 1 or P, h, w].

    A box is its two corners: the reference embeds it just so, and one form means one compiled function.
    Without points and boxes, P is the number of masks and each object has a single not-a-point. batch is the
    number of images; None leaves it to the prompts.
    """
    if batch is None:
        given = [x for x in (points, boxes, masks) if hasattr(x, "__len__")]
        batch = len(given[0]) if given else 1
    masks = _check_masks(masks, batch)
    if points is None and labels is not None:
        raise ValueError("input_labels are given without input_points; give both or neither")
    parts = []
    if points is not None:
        parts.append(_check_points(points, labels, batch))
    if boxes is not None:
        parts.append(_check_boxes(boxes, batch))
    if not parts:
        shape = (batch, 1 if masks is None else masks.shape[1], 1)
        return np.zeros((*shape, 2), np.float32), np.full(shape, NOT_A_POINT, np.int32), masks
    counts = [part[0].shape[1] for part in parts]
    if len(set(counts)) > 1:
        raise ValueError(
            f"input_points and input_boxes must be for as many objects; got {counts[0]} and {counts[1]}"
        )
    if masks is not None and masks.shape[1] not in (1, counts[0]):
        raise ValueError(
            f"input_masks must have 1 mask for an image or one for each of {counts[0]} objects; "
            f"got {masks.shape[1]}"
        )
    all_points, all_labels = zip(*parts, strict=True)
    return _concatenate(all_points), _concatenate(all_labels), masks


def _concatenate(parts: tuple[Array, ...]) -> Array:
    return _numpy_of(*parts).concatenate(parts, axis=2)


def _numpy_of(*arrays: Array) -> Any:
    """NumPy for what is known, `jax.numpy` where anything is traced."""
    return jnp if is_traced(arrays) else np


def _check_points(points: Any, labels: Any, batch: int) -> tuple[Array, Array]:
    points = _floats("input_points", points, 4, 2, "(batch, objects, points, 2)", batch)
    labels = np.ones(points.shape[:3], np.int32) if labels is None else _as_array("input_labels", labels)
    if labels.shape != points.shape[:3]:
        raise ValueError(
            f"input_labels must have the shape of the points, {points.shape[:3]}; got {labels.shape}"
        )
    allowed = (PADDING, NOT_A_POINT, 0, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)
    if not is_traced(labels):
        labels = np.asarray(labels)
        if not np.isin(labels, allowed).all():
            found = sorted(set(labels.ravel().tolist()))
            raise ValueError(f"input_labels must be among {allowed}; got {shown(found)}")
    numpy = _numpy_of(points, labels)
    is_padding = labels[..., None] == PADDING
    points = numpy.where(is_padding, np.float32(0), points)
    if numpy is np and not np.isfinite(points).all():
        raise ValueError("input_points must be finite numbers; got NaN or infinity")
    return points, labels.astype(np.int32)


def _check_boxes(boxes: Any, batch: int) -> tuple[Array, Array]:
    """Boxes as the points and labels of their corners; four NaN, the processor's padding, as padding."""
    boxes = _floats("input_boxes", boxes, 3, 4, "(batch, objects, 4)", batch)
    numpy = _numpy_of(boxes)
    is_padding = numpy.isnan(boxes).all(axis=-1, keepdims=True)
    boxes = numpy.where(is_padding, np.float32(0), boxes)
    corners = np.array([[[BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]]], np.int32)
    labels = numpy.where(is_padding, np.int32(PADDING), corners)
    points = boxes.reshape(*boxes.shape[:2], 2, 2)
    if numpy is jnp:
        return points, labels
    if not np.isfinite(boxes).all():
        raise ValueError(
            "input_boxes must be finite numbers, or four NaN for an object without a box; got NaN or infinity"
        )
    if (boxes[..., :2] > boxes[..., 2:]).any():
        raise ValueError("input_boxes must be (x0, y0, x1, y1) with x0 <= x1 and y0 <= y1")
    return points, labels


def _floats(name: str, values: Any, rank: int, last: int, layout: str, batch: int) -> Array:
    try:
        array = _as_array(name, values)
        array = _float32(array if is_traced(array) else np.asarray(array))
    except ValueError as error:
        raise ValueError(f"{name} must be an array of shape {layout}; the processor makes it") from error
    if array.ndim != rank or array.shape[-1] != last or 0 in array.shape:
        raise ValueError(f"{name} must be of shape {layout}, none of it empty; got {array.shape}")
    _require_batch(name, array.shape[0], batch)
    return array


def _require_batch(name: str, found: int, batch: int) -> None:
    if found != batch:
        raise ValueError(
            f"{name} must be for as many images as the call has, {batch}; got {found}. The first axis counts "
            "images, the second the objects in each"
        )


def pad_prompts(points: Array, labels: Array, objects: int, count: int) -> tuple[Array, Array]:
    """Pad points [B, P, N, 2] and labels [B, P, N] to the given numbers of objects and of points."""
    extra = (0, 0), (0, objects - points.shape[1]), (0, count - points.shape[2])
    numpy = _numpy_of(points, labels)
    return numpy.pad(points, (*extra, (0, 0))), numpy.pad(labels, extra, constant_values=PADDING)


def pad_objects(x: Array | None, objects: int) -> Array | None:
    """Pad what an image has for each of its objects, x [B, P, ...]; what all share, and None, stays."""
    if x is None or x.shape[1] in (1, objects):
        return x
    extra = [(0, objects - x.shape[1]) if axis == 1 else (0, 0) for axis in range(x.ndim)]
    with computed_at_once(x):
        return (jnp if isinstance(x, jax.Array) else np).pad(x, extra)


def _check_masks(masks: Any, batch: int) -> Array | None:
    """Return mask logits as float32 [B, 1 or P, H, W], None as it is, or raise ValueError."""
    if masks is None:
        return None
    masks = _as_array("input_masks", masks)
    dtype = masks.dtype
    if dtype.kind not in "fV":  # ml_dtypes' bfloat16 has kind V
        raise ValueError(
            f"input_masks must be logits, such as 20.0 * mask - 10 of a binary mask; got {dtype}"
        )
    masks = _float32(masks)
    _require_finite("input_masks", masks)
    if isinstance(masks, np.ndarray) and is_binary(masks):
        raise ValueError(
            "input_masks must be logits, negative outside of the object; got 0 and 1: of a binary mask, "
            "20.0 * mask - 10 makes logits"
        )
    shape = np.shape(masks)
    if len(shape) == 5 and shape[2] == 1:
        masks, shape = masks.squeeze(2), (*shape[:2], *shape[3:])
    if len(shape) != 4 or 0 in shape:
        raise ValueError(
            f"input_masks must be logits of shape (batch, 1 or objects, height, width); got {shape}: choose "
            "one of an object's masks, such as pred_masks[:, :, 0]"
        )
    _require_batch("input_masks", shape[0], batch)
    return masks


def check_similarity(similarity: Any, shape: tuple[int, ...]) -> Array | None:
    """Bring attention_similarity to [B, P, heads, T, K]; transformers' [B * P, heads, T, K] is taken too."""
    if similarity is None:
        return None
    array = _float32(_as_array("attention_similarity", similarity))
    batch, objects = shape[:2]
    if array.ndim == 4 and array.shape[0] in (1, batch * objects):
        lead = (1, 1) if array.shape[0] == 1 else (batch, objects)
        array = array.reshape(*lead, *array.shape[1:])
    _require_broadcast(
        "attention_similarity", array, shape, "(batch, objects, heads, tokens, height * width)"
    )
    return array


def check_target(target: Any, shape: tuple[int, ...]) -> Array | None:
    """Return target_embedding [B, P, T, C], 1 where it repeats, None as it is, or raise ValueError."""
    if target is None:
        return None
    array = _as_float32(_as_array("target_embedding", target))
    _require_broadcast("target_embedding", array, shape, "(batch, objects, tokens, channels)")
    return array


def _require_broadcast(name: str, array: Array, shape: tuple[int, ...], layout: str) -> None:
    fits = array.ndim == len(shape) and all(
        n in (1, wanted) for n, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{name} must be of shape {layout}, {shape}, or 1 where it repeats; got {array.shape}"
        )
