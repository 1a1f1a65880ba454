"""`sam2-jax finetune` on a dataset of videos: the same command, another model, clips instead of pictures."""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from sam2_jax.commands.common import count, load_video_model, training_options
from sam2_jax.commands.finetune_run import tell_problems, train_and_judge

if TYPE_CHECKING:
    from sam2_jax.training.clip_batches import ClipExample
    from sam2_jax.training.video_folders import VideoDataset
    from sam2_jax.video.model import Sam2VideoModel

# Tracking more videos, or longer, than this tells little more.
_EVALUATED, _EVALUATED_FRAMES = 20, 24


def finetune_videos(arguments: argparse.Namespace) -> int:
    """Run the command on videos."""
    from sam2_jax.training.clip_trainer import TRAINED, ClipTrainingOptions, train_on_clips
    from sam2_jax.training.evaluate_clips import evaluate_clips
    from sam2_jax.training.prompts import PromptOptions
    from sam2_jax.training.video_folders import ShuffledVideos

    options = ClipTrainingOptions(
        **training_options(arguments, TRAINED),
        prompts=PromptOptions(point=0.25, box=0.25, mask=0.5, correction_rounds=arguments.corrections),
        corrected_frames=min(1, arguments.corrections),
    )
    training, judged = _open(arguments)
    model = load_video_model(arguments)
    go_on = partial(
        train_on_clips,
        model,
        ShuffledVideos(training, arguments.seed, arguments.frames),
        options,
        arguments.output,
        data={"videos": training.fingerprint(), "frames": arguments.frames},
        workers=arguments.workers,
    )

    def evaluate(model: "Sam2VideoModel", videos: "VideoDataset") -> Any:
        return evaluate_clips(model, _to_judge(videos), progress=not arguments.quiet)

    train_and_judge(arguments, model, go_on, None if judged is None else partial(evaluate, videos=judged))
    return 0


def _open(arguments: argparse.Namespace) -> tuple["VideoDataset", "VideoDataset | None"]:
    """The videos to train on, and those to judge by if there are to be any; says what there is."""
    from sam2_jax.training.examples import split
    from sam2_jax.training.video_folders import open_videos

    for name in ("images", "validation_images"):
        if getattr(arguments, name) is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} says where photos are; {arguments.data} has videos, with their "
                "frames in JPEGImages/: leave it out"
            )
    one_object = arguments.one_object
    training, judged = open_videos(arguments.data, one_object=one_object), None
    tell_problems(training.problems)
    if arguments.validation:
        judged = open_videos(arguments.validation, one_object=one_object)
        tell_problems(judged.problems)
    elif arguments.held_out or (arguments.held_out is None and len(training) > 1):
        training, judged = split(training, arguments.held_out or 0.1, arguments.seed)
    how = "to judge by" if arguments.validation else "held out"
    print(f"{count(len(training), 'video')} to train on, {0 if judged is None else len(judged)} {how}")
    return training, judged


def _to_judge(dataset: "VideoDataset") -> Iterator["ClipExample"]:
    """The beginning of each video, from the first frame on which anything is annotated.

    One with damage there is left out and said: from another frame on it would be another clip.
    """
    from sam2_jax.training.video_folders import NothingAnnotatedError

    for index in range(min(len(dataset), _EVALUATED)):
        length = len(dataset.entries[index].frames)
        for start in range(length - 1):
            try:
                yield dataset.read(index, range(start, min(start + _EVALUATED_FRAMES, length)))
                problem = None
            except ValueError as error:
                problem = f"{dataset.entries[index].name}: {error}"
                if isinstance(error, NothingAnnotatedError):
                    continue
            break
        if problem:
            dataset.note(problem)
