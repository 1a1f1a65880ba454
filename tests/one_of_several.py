"""Run as one of several processes: a share of automatic masks, as files and as rows, and of prompted ones.

Arguments: a folder with `model` and `photos`, where results go and, of several processes, the coordinator,
how many there are and which this is.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from sam2_jax import AutomaticMaskGenerator, Sam2Model
from sam2_jax.commands import main
from sam2_jax.scale import share
from sam2_jax.scale.pictures import generate_rows, predict_rows

OPTIONS = {"points_per_side": 2, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}


def work(folder: Path, out: Path, *several: str) -> None:
    """What one process does, or with the arguments of the command for several, one of them."""
    photos = sorted((folder / "photos").iterdir())
    given = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
    command = ["generate", str(folder / "photos"), "--output", str(out / "files"), "--quiet", *given]
    status = main([*command, "--model", str(folder / "model"), *several])
    assert status == 1  # of the damaged photo
    model = Sam2Model.from_pretrained(folder / "model")
    generate_rows(AutomaticMaskGenerator(model, **OPTIONS), list(share(photos)), out / "rows", progress=False)
    rng = np.random.default_rng(0)
    tasks: list[dict[str, Any]] = [
        {"photo": photo, "points": rng.uniform(0, 30, (1 + i % 3, 1, 2)).tolist()}
        for i, photo in enumerate(photos)
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "1 of . photos failed")
        predict_rows(model, share(tasks, 2), out / "prompted", batch_size=2)


if __name__ == "__main__":
    folder, out, *joining = sys.argv[1:]
    options = zip(("--coordinator", "--processes", "--process"), joining, strict=False)
    several = ["--multihost", *(word for option in options for word in option)] if joining else []
    work(Path(folder), Path(out), *several)
