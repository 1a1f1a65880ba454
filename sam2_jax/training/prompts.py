"""Prompts as a user would give them, made from the true mask: a point, a box or a mask, then corrections.

All is a pure function of a random key, of fixed shapes, and runs under jit. Source: Ravi et al. 2024
(arXiv:2408.00714), appendix on training; Sofiiuk et al. 2021 (arXiv:2102.06583) for clicks at the deepest
error.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sam2_jax.checks import read_number, read_whole
from sam2_jax.model.prompt_encoder import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NEGATIVE, PADDING, POSITIVE


class PromptOptions(NamedTuple):
    """How objects are prompted. Defaults are SAM's for images, and SAM 2's rounds of correction.

    point, box, mask: how often an object begins with each, in any unit. box_noise: how far each side of a
    box strays at most, as a share of the box. correction_rounds: clicks after the first prompt, each where
    the mask is still wrong. from_target: how often such a click is anywhere on the object instead.
    deepest: how often a click goes to the point deepest inside the object or the error, as at evaluation, and
    not to a random one.
    """

    point: float = 0.5
    box: float = 0.5
    mask: float = 0.0
    box_noise: float = 0.1
    correction_rounds: int = 7
    from_target: float = 0.1
    deepest: float = 0.0

    def checked(self) -> "PromptOptions":
        """The same as plain numbers. Raises ValueError for what cannot be meant."""
        first = {name: read_number(name, getattr(self, name), 0) for name in ("point", "box", "mask")}
        if not any(first.values()):
            raise ValueError("one of point, box and mask must be more than 0")
        return PromptOptions(
            **first,
            box_noise=read_number("box_noise", self.box_noise, 0),
            correction_rounds=read_whole("correction_rounds", self.correction_rounds, 0),
            from_target=read_number("from_target", self.from_target, 0, 1),
            deepest=read_number("deepest", self.deepest, 0, 1),
        )


class Prompts(NamedTuple):
    """Prompts of P objects in each of B images.

    points: [B, P, N, 2], (x, y) in pixels of the network's input; labels: int32 [B, P, N], PADDING where
    there is none yet. masks: logits [B, P, H, W], used where has_mask, bool [B, P].
    """

    points: jax.Array
    labels: jax.Array
    masks: jax.Array
    has_mask: jax.Array

    @property
    def is_ambiguous(self) -> jax.Array:
        """Whether all that is known of an object is one click: bool [B, P]."""
        is_one_click = (self.labels == POSITIVE).any(axis=-1) & ((self.labels != PADDING).sum(axis=-1) == 1)
        return is_one_click & ~self.has_mask


# Meta keeps noise of a box within this many pixels of the 1024 it trains at.
_MOST_BOX_NOISE = 20 / 1024
# Logits of a mask that is given as a prompt, inside and outside.
_MASK_LOGIT = 10.0


def cells_to_pixels(cells: jax.Array, scale: tuple[float, float]) -> jax.Array:
    """Centres of cells (x, y) of a map that is (sx, sy) times coarser than the input, in its pixels."""
    factor = jnp.asarray(scale, jnp.float32).reshape((1,) * (cells.ndim - 1) + (2,))
    return (cells + 0.5) * factor - 0.5


def squared_depth(region: jax.Array) -> jax.Array:
    """Squared distance from each cell of region, bool [..., H, W], to the nearest outside it: float32.

    The border is outside too. Exact: first along columns, then the lower envelope along rows, as in
    Felzenszwalb & Huttenlocher 2012, except that all pairs of a row are compared, which suits vector units.
    """
    height, width = region.shape[-2:]
    axis = region.ndim - 2
    rows = jax.lax.broadcasted_iota(jnp.int32, region.shape, axis)
    above = jax.lax.cummax(jnp.where(region, -1, rows), axis=axis)
    below = jax.lax.cummin(jnp.where(region, height, rows), axis=axis, reverse=True)
    vertical = jnp.minimum(rows - above, below - rows).astype(jnp.float32) ** 2
    columns = jnp.arange(width, dtype=jnp.float32)
    horizontal = (columns[:, None] - columns[None, :]) ** 2
    pairs = vertical[..., None, :] + horizontal.reshape((1,) * (region.ndim - 1) + (width, width))
    border = (jnp.minimum(columns, width - 1 - columns) + 1) ** 2
    return jnp.minimum(pairs.min(axis=-1), border.reshape((1,) * (region.ndim - 1) + (width,)))


def deepest_cell(region: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The cell (x, y) of region, bool [..., H, W], farthest from its outside, and that distance squared.

    The distance is 0 if the region is empty.
    """
    depth = squared_depth(region)
    return _cell_of_largest(depth), depth.max(axis=(-2, -1))


def random_cell(key: jax.Array, region: jax.Array) -> jax.Array:
    """A cell (x, y) of region, bool [..., H, W], each as likely; of the whole map if region is empty."""
    return _cell_of_largest(region + jax.random.uniform(key, region.shape))


def _cell_of_largest(values: jax.Array) -> jax.Array:
    width = values.shape[-1]
    index = values.reshape(*values.shape[:-2], -1).argmax(axis=-1)
    return jnp.stack([index % width, index // width], axis=-1).astype(jnp.float32)


def bounding_boxes(masks: jax.Array) -> jax.Array:
    """Boxes (x0, y0, x1, y1) of bool masks [..., H, W], in cells, the last ones included: [..., 4]."""
    height, width = masks.shape[-2:]
    columns, rows = masks.any(axis=-2), masks.any(axis=-1)
    x0, y0 = columns.argmax(axis=-1), rows.argmax(axis=-1)
    x1 = width - 1 - columns[..., ::-1].argmax(axis=-1)
    y1 = height - 1 - rows[..., ::-1].argmax(axis=-1)
    return jnp.stack([x0, y0, x1, y1], axis=-1).astype(jnp.float32)


def first_prompts(
    key: jax.Array, targets: jax.Array, image_size: tuple[int, int], options: PromptOptions
) -> Prompts:
    """The first prompt of each object: a point on it, a box around it, or a mask of it.

    targets: bool [B, P, H, W] at any resolution, an object's cells; image_size: (height, width) of the
    network's input. There is room for all corrections: N is 2 + options.correction_rounds.
    """
    batch, objects, height, width = targets.shape
    scale = image_size[1] / width, image_size[0] / height
    kind_key, point_key, box_key = jax.random.split(key, 3)
    odds = jnp.log(jnp.asarray([options.point, options.box, options.mask]))
    kind = jax.random.categorical(kind_key, odds, shape=(batch, objects))
    cell = random_cell(point_key, targets)
    if options.deepest:
        deepest_key = jax.random.fold_in(point_key, 1)
        is_deepest = jax.random.bernoulli(deepest_key, jnp.float32(options.deepest), (batch, objects, 1))
        cell = jnp.where(is_deepest, deepest_cell(targets)[0], cell)
    point = cells_to_pixels(cell, scale)
    boxes = _noisy_boxes(box_key, targets, scale, image_size, options.box_noise)

    room = 2 + options.correction_rounds
    is_point, is_box = (kind == 0)[..., None], (kind == 1)[..., None]
    first = jnp.where(is_box, boxes[..., :2], point)
    points = jnp.stack([first, boxes[..., 2:]], axis=2)
    padding = jnp.full((batch, objects), PADDING)
    labels = jnp.where(
        is_box,
        jnp.asarray([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]).reshape(1, 1, 2),
        jnp.stack([jnp.where(is_point[..., 0], POSITIVE, PADDING), padding], axis=-1),
    )
    return Prompts(
        points=jnp.pad(points, ((0, 0), (0, 0), (0, room - 2), (0, 0))),
        labels=jnp.pad(labels, ((0, 0), (0, 0), (0, room - 2)), constant_values=PADDING).astype(jnp.int32),
        masks=jnp.where(targets, _MASK_LOGIT, -_MASK_LOGIT),
        has_mask=kind == 2,
    )


def _noisy_boxes(
    key: jax.Array,
    targets: jax.Array,
    scale: tuple[float, float],
    image_size: tuple[int, int],
    noise: float,
) -> jax.Array:
    """Boxes around targets [B, P, H, W] in pixels of the input, their sides moved at random: [B, P, 4]."""
    cells = bounding_boxes(targets)
    # Outer edges of the first and the last cell, in coordinates where a pixel's centre is a whole number.
    factor = jnp.asarray([*scale, *scale], jnp.float32).reshape(1, 1, 4)
    boxes = (cells + jnp.asarray([0.0, 0, 1, 1]).reshape(1, 1, 4)) * factor - 0.5
    sides = boxes[..., 2:] - boxes[..., :2]
    bound = jnp.asarray(image_size[::-1], jnp.float32).reshape(1, 1, 2) * _MOST_BOX_NOISE
    reach = jnp.tile(jnp.minimum(noise * sides, bound), 2)
    boxes = boxes + reach * jax.random.uniform(key, boxes.shape, minval=-1)
    last = jnp.asarray([*image_size[::-1]] * 2, jnp.float32).reshape(1, 1, 4) - 1
    return jnp.clip(boxes, 0, last)


def correct(
    key: jax.Array,
    prompts: Prompts,
    round_number: jax.Array,
    logits: jax.Array,
    targets: jax.Array,
    image_size: tuple[int, int],
    options: PromptOptions,
) -> Prompts:
    """Add a click where logits [B, P, H, W] are wrong, and hand them back as a mask prompt.

    The click is positive where the object was missed, negative where the mask went too far; where nothing
    is wrong, it confirms: it falls on the object. round_number counts from 0; targets as for the first
    prompt, of the logits' size.
    """
    missed, excess = targets & (logits <= 0), ~targets & (logits > 0)
    error_key, choice_key = jax.random.split(key)
    is_right = ~(missed | excess).any(axis=(-2, -1))
    anywhere = jax.random.bernoulli(choice_key, jnp.float32(options.from_target), is_right.shape)
    region = jnp.where((anywhere | is_right)[..., None, None], targets, missed | excess)
    cell = random_cell(error_key, region)
    is_positive = _at(targets, cell)
    if options.deepest:
        deepest_key = jax.random.fold_in(choice_key, 1)
        is_deepest = jax.random.bernoulli(deepest_key, jnp.float32(options.deepest), is_right.shape)
        deepest, is_missed = _deepest_error(missed, excess, targets)
        cell = jnp.where(is_deepest[..., None], deepest, cell)
        is_positive = jnp.where(is_deepest, is_missed, is_positive)
    slot = 2 + round_number
    point = cells_to_pixels(cell, (image_size[1] / targets.shape[3], image_size[0] / targets.shape[2]))
    label = jnp.where(is_positive, POSITIVE, NEGATIVE)
    return Prompts(
        points=prompts.points.at[:, :, slot].set(point),
        labels=prompts.labels.at[:, :, slot].set(label),
        masks=logits,
        has_mask=jnp.ones_like(prompts.has_mask),
    )


def _deepest_error(missed: jax.Array, excess: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The cell deepest inside an error, and whether the object was missed there."""
    missed_cell, missed_depth = deepest_cell(missed)
    excess_cell, excess_depth = deepest_cell(excess)
    inside, _ = deepest_cell(targets)
    is_positive = (missed_depth >= excess_depth) & targets.any(axis=(-2, -1))
    cell = jnp.where(is_positive[..., None], missed_cell, excess_cell)
    is_right = jnp.maximum(missed_depth, excess_depth) == 0
    return jnp.where(is_right[..., None], inside, cell), is_positive


def _at(masks: jax.Array, cell: jax.Array) -> jax.Array:
    """Values of masks [B, P, H, W] at cells (x, y) [B, P, 2]."""
    width = masks.shape[-1]
    index = (cell[..., 1] * width + cell[..., 0]).astype(jnp.int32)
    return jnp.take_along_axis(masks.reshape(*masks.shape[:2], -1), index[..., None], axis=-1)[..., 0]
