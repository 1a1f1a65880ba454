"""Run as one of the processes that train together: a training that is stopped, one that is taken up again.

Arguments: the folder of each and, of several processes, the coordinator, how many there are, which this is.
"""

import sys

from small_models import model_of, smallest_config

from sam2_jax.scale import initialize
from sam2_jax.training.batches import Scenes
from sam2_jax.training.optimizer import OptimizerOptions
from sam2_jax.training.prompts import PromptOptions
from sam2_jax.training.trainer import TrainingOptions, train

OPTIONS = TrainingOptions(
    steps=6,
    batch_size=2,
    objects=2,
    optimizer=OptimizerOptions(learning_rate=1e-3, warmup_steps=1),
    prompts=PromptOptions(correction_rounds=0),
)


def work(stopped: str, resumed: str) -> None:
    model, source = model_of(smallest_config()), Scenes(1, 64)
    train(model, source, OPTIONS, stopped, stop_at=3, log_every=1, progress=False)
    train(model, source, OPTIONS, resumed, log_every=1, progress=False)


if __name__ == "__main__":
    stopped, resumed, *joining = sys.argv[1:]
    if joining:
        initialize(joining[0], int(joining[1]), int(joining[2]))
    work(stopped, resumed)
