"""Videos in folders, as DAVIS and YouTube-VOS have them, for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from sam2_jax.training.synthetic.clips import make_clip

SIZE = 64


def write_video(folder: Path, name: str, frames: int, *, inner: str = "", every: int = 1) -> None:
    """A synthetic clip: JPEGs, and palette PNGs on every so manieth frame."""
    clip = make_clip(5, len(name), frames, SIZE)
    photos, maps = folder / "JPEGImages" / inner / name, folder / "Annotations" / inner / name
    photos.mkdir(parents=True)
    maps.mkdir(parents=True)
    for t in range(frames):
        Image.fromarray(clip.images[t]).save(photos / f"{t:05}.jpg", quality=95)
        if t % every == 0:
            labels = sum((k + 1) * mask for k, mask in enumerate(clip.masks[t].astype(np.uint8)))
            image = Image.fromarray(np.asarray(labels, np.uint8))
            image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
            image.save(maps / f"{t:05}.png")
