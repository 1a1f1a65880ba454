"""What calls, sessions, batches and the mask generator run, run once on blank pixels: that compiles it.

Nothing is listed here that would have to be kept the same as there: the very functions are called, so that
the small programs around the network are made too.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from sam2_jax.checks import did_you_mean, read_flag, read_whole, shown
from sam2_jax.devices import even_batch
from sam2_jax.image.batch import decode_blank
from sam2_jax.image.clicks import batches_of_clicks, clicks_of_each, decode_clicks
from sam2_jax.image.generation_options import MaskGenerationOptions
from sam2_jax.image.promptable import PromptableModel
from sam2_jax.image.session import ImagePredictor
from sam2_jax.model.sam2 import ImageEmbeddings

USES = ("call", "session", "batch", "generate")

Step = tuple[str, Callable[[], Any]]


@dataclass(frozen=True)
class Sizes:
    """What is to be prepared: arguments of `Sam2Model.compile`, checked."""

    batch_sizes: tuple[int, ...]
    objects: tuple[int, ...]
    points: tuple[int, ...]
    input_masks: tuple[bool, ...]
    multimask_output: tuple[bool, ...]


def check_sizes(name: str, sizes: Any) -> tuple[int, ...]:
    """Return one size or several, in order. Raises ValueError for none and for those below 1."""
    given = list(sizes) if isinstance(sizes, Iterable) and not isinstance(sizes, str) else [sizes]
    if not given:
        raise ValueError(f"{name} must be numbers of at least 1; got {shown(sizes)}")
    return tuple(sorted({read_whole(name, size, 1) for size in given}))


def check_flags(name: str, flags: Any) -> tuple[bool, ...]:
    """Return True, False or both. Raises ValueError for anything else."""
    given = list(flags) if isinstance(flags, Iterable) else [flags]
    if not given:
        raise ValueError(f"{name} must be True, False or both; got {shown(flags)}")
    return tuple(sorted({read_flag(name, flag) for flag in given}))


def check_uses(uses: Any) -> tuple[str, ...]:
    """Return one or several of USES. Raises ValueError for others."""
    given = list(uses) if isinstance(uses, Iterable) and not isinstance(uses, str) else [uses]
    for use in given or [uses]:
        if use not in USES:
            raise ValueError(f"unknown use {shown(use)} to compile for{did_you_mean(use, USES)}")
    return tuple(given)


def time_each(steps: Iterable[Step], progress: bool) -> dict[str, float]:
    """Take steps one after the other, with a bar if wanted; returns the seconds of each by its name."""
    seconds = {}
    for name, run in tqdm(list(steps), desc="compiling", unit="program", disable=not progress):
        start = time.perf_counter()
        run()
        seconds[name] = time.perf_counter() - start
    return seconds


def rehearse(
    model: PromptableModel, sizes: Sizes, uses: Sequence[str], generator: MaskGenerationOptions
) -> Iterator[Step]:
    """Steps to take one after the other, each with a name."""

    @cache
    def encoded(batch: int) -> ImageEmbeddings:
        return model.get_image_embeddings(blank_pixels(model, batch))

    height, width = model.config.image_size
    encoding = {*sizes.batch_sizes} | ({1} if "session" in uses else set())
    for batch in sorted(encoding | {*(_generating(model, sizes) if "generate" in uses else ())}):
        yield f"encoder, {batch} x {height} x {width}", partial(encoded, batch)
    if "call" in uses:
        yield from _calls(model, sizes, encoded)
    if "session" in uses:
        yield from _session(model, sizes)
    if "batch" in uses:
        yield from _batches(model, sizes, encoded)
    if "generate" in uses:
        yield from rehearse_clicks(model, sizes, generator, encoded)


def blank_pixels(model: PromptableModel, batch: int) -> np.ndarray:
    """Pixels [batch, H, W, C] as the network takes them."""
    channels = model.config.vision_config.backbone_config.num_channels
    return np.zeros((batch, *model.config.image_size, channels), np.float32)


def _blank_masks(model: PromptableModel, *lead: int) -> np.ndarray:
    """Masks as prompts, of the size that the network gives them."""
    patch = model.config.prompt_encoder_config.patch_size
    return np.zeros((*lead, *(4 * side // patch for side in model.config.image_size)), np.float32)


def _kind(batch: int, objects: int, points: int, masked: bool) -> str:
    return f"{batch} x {objects} objects x {points} points{', masks as prompts' * masked}"


def _calls(model: PromptableModel, sizes: Sizes, encoded: Callable[[int], ImageEmbeddings]) -> Iterator[Step]:
    def call(batch: int, objects: int, points: int, masked: bool, several: bool) -> None:
        outputs = model(
            image_embeddings=encoded(batch),
            input_points=np.zeros((batch, objects, points, 2), np.float32),
            input_masks=_blank_masks(model, batch, objects) if masked else None,
            multimask_output=several,
        )
        jax.block_until_ready(outputs.pred_masks)

    for case in product(
        sizes.batch_sizes, sizes.objects, sizes.points, sizes.input_masks, sizes.multimask_output
    ):
        name = f"call, {_kind(*case[:4])}, {'several masks' if case[4] else 'one mask'} out"
        yield name, partial(call, *case)


def _session(model: PromptableModel, sizes: Sizes) -> Iterator[Step]:
    channels = model.config.vision_config.backbone_config.num_channels
    opened: list[ImagePredictor] = []
    yield (
        "session, a photo",
        lambda: opened.append(ImagePredictor(model, np.zeros((8, 8, channels), np.uint8))),
    )
    yield "session, a first click", lambda: opened[0].click(1, 1)
    yield "session, a click that refines", lambda: opened[0].click(2, 2)
    yield "session, a box", lambda: opened[0].set_box(1, 1, 5, 5)

    def predict(objects: int, points: int, masked: bool) -> None:
        masks = _blank_masks(model, objects) if masked else None
        opened[0].predict_objects([[(1, 1)] * points] * objects, masks=masks)

    for objects, points, masked in product(sizes.objects, sizes.points, sizes.input_masks):
        yield f"session, {_kind(1, objects, points, masked)}", partial(predict, objects, points, masked)


def _batches(
    model: PromptableModel, sizes: Sizes, encoded: Callable[[int], ImageEmbeddings]
) -> Iterator[Step]:
    def decode(counts: list[int], points: int, masked: bool) -> None:
        masks = [_blank_masks(model, count) for count in counts] if masked else None
        decode_blank(model, encoded(len(counts)), counts, points, masks)

    cases = product(sizes.batch_sizes, sizes.objects, sizes.points, sizes.input_masks)
    for batch, objects, points, masked in cases:
        name = f"batch, {_kind(batch, objects, points, masked)}"
        yield name, partial(decode, [objects] * batch, points, masked)
        if batch > 1:  # photos with few objects beside one with many are decoded one by one
            for one in sizes.objects:
                other = [one, *[objects] * (batch - 1)]
                if one != objects:
                    yield f"{name}, one with {one}", partial(decode, other, points, masked)


def _generating(model: PromptableModel, sizes: Sizes) -> list[int]:
    """Photos that the mask generator takes together, one alone too, which has all devices to itself."""
    return sorted({even_batch(size, model.device_count) for size in (1, *sizes.batch_sizes)})


def rehearse_clicks(
    model: PromptableModel, sizes: Sizes, generator: MaskGenerationOptions, encoded: Callable[[int], Any]
) -> Iterator[Step]:
    """What the mask generator decodes: every size of a batch of clicks on photos and on their crops."""

    def decode(photos: int, count: int) -> None:
        clicks = np.zeros((count, 2), np.float32)
        jax.block_until_ready(decode_clicks(model, encoded(photos), clicks, **generator.of_decoder()))

    grids = [generator.grid(layer) for layer in range(generator.crop_n_layers + 1)]
    for photos in _generating(model, sizes):
        most = clicks_of_each(generator.points_per_batch, photos, model.device_count)
        counts = {len(batch) for grid in grids for batch in batches_of_clicks(grid, most)}
        of_each = f" on each of {photos} photos" if photos > 1 else ""
        for count in sorted(counts):
            yield f"generate, {count} clicks at a time{of_each}", partial(decode, photos, count)
