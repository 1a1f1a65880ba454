"""Training on clips: `trainer` with the video network, its step and its batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from sam2_jax.checks import read_whole
from sam2_jax.model.sam2_video import Sam2Video
from sam2_jax.training.clip_batches import ClipSource, clip_batches
from sam2_jax.training.clip_step import compiled_clip_step
from sam2_jax.training.prompts import PromptOptions
from sam2_jax.training.trainer import TrainingOptions, input_processor, run_training
from sam2_jax.video.model import Sam2VideoModel

# All but the backbone: with few clips it would forget more than it learns.
TRAINED = ("[!v]*", "vision_encoder.neck.*")


@dataclass(frozen=True)
class ClipTrainingOptions(TrainingOptions):
    """What is trained on clips, and how: `TrainingOptions`, batch_size and objects being of clips.

    corrected_frames: on up to so many frames behind the first, prompts.correction_rounds clicks correct what
    was tracked, as on the first frame.
    """

    batch_size: int = 1
    objects: int = 2
    trained: tuple[str, ...] = TRAINED
    corrected_frames: int = 1
    prompts: PromptOptions = field(
        default_factory=lambda: PromptOptions(point=0.25, box=0.25, mask=0.5, correction_rounds=2)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("corrected_frames", read_whole("corrected_frames", self.corrected_frames, 0))


def train_on_clips(
    model: Sam2VideoModel,
    source: ClipSource,
    options: ClipTrainingOptions,
    folder: str | Path | None = None,
    *,
    workers: int = 0,
    **running: Any,
) -> tuple[Sam2VideoModel, list[dict[str, float]]]:
    """Train a video model; returns the trained one, the given one being left as it is, and the metrics.

    The arguments, warnings and errors are those of `trainer.train` and `run_training`; last_iou, in the
    metrics, is of all frames behind the first, before they are corrected.
    """
    workers = read_whole("workers", workers, 0)
    module = Sam2Video(model.config, dtype=jnp.dtype(options.dtype), remat=options.remat)

    def coming(numbers: range, rows: Sequence[int]) -> Iterator[tuple[Any, int]]:
        return clip_batches(
            source,
            input_processor(model),
            model.config,
            options.batch_size,
            options.objects,
            options.corrected_frames,
            options.seed,
            numbers,
            rows,
            workers,
        )

    trained: tuple[Sam2VideoModel, list[dict[str, float]]] = run_training(
        model, module, compiled_clip_step, coming, options, folder, **running
    )
    return trained
