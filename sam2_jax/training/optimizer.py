"""The optimiser: AdamW with warm-up and cosine decay, layer decay in the backbone, clipping, accumulation.

Source: Ravi et al. 2024 (arXiv:2408.00714), appendix on training; Meta's training configurations.
"""

import re
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import optax


class OptimizerOptions(NamedTuple):
    """How parameters move.

    learning_rate: the highest, reached after warmup_steps and brought down by a cosine to final_share of it.
    weight_decay: of all but biases and norms. layer_decay: each block of the backbone learns this much
    slower than the next; 1 for none. clip_norm: the gradient's largest norm. accumulate: steps whose
    gradients are averaged before parameters move.
    """

    learning_rate: float = 1e-4
    warmup_steps: int = 100
    final_share: float = 0.1
    weight_decay: float = 0.1
    layer_decay: float = 0.9
    clip_norm: float = 0.1
    accumulate: int = 1


def learning_rate_schedule(options: OptimizerOptions, steps: int) -> optax.Schedule:
    """Learning rate by number of updates, for training of this many steps."""
    updates = max(steps // options.accumulate, 1)
    return optax.warmup_cosine_decay_schedule(
        init_value=options.learning_rate / max(options.warmup_steps, 1),
        peak_value=options.learning_rate,
        warmup_steps=min(options.warmup_steps, updates - 1),
        decay_steps=updates,
        end_value=options.learning_rate * options.final_share,
    )


def make_optimizer(
    options: OptimizerOptions, steps: int, trained: Collection[str], blocks: int
) -> optax.MultiSteps:
    """The optimiser of flat parameters of the names `trained`, for training of this many steps.

    blocks: how many the backbone has. A gradient that is not finite is left out and counted in the state's
    skip_state.
    """
    scales = {name: layer_scale(name, blocks, options.layer_decay) for name in trained}
    decayed = {name: not re.search(r"\.(bias|scale)$", name) for name in trained}
    chain = optax.chain(
        optax.clip_by_global_norm(options.clip_norm),
        optax.scale_by_adam(),
        optax.add_decayed_weights(options.weight_decay, decayed),
        optax.scale_by_learning_rate(learning_rate_schedule(options, steps)),
        optax.stateless(lambda updates, _: {name: scales[name] * update for name, update in updates.items()}),
    )
    return optax.MultiSteps(chain, options.accumulate, should_skip_update_fn=optax.skip_not_finite)


_BLOCK = re.compile(r"^vision_encoder\.backbone\.blocks_(\d+)\.")


def layer_scale(name: str, blocks: int, decay: float) -> float:
    """Share of the learning rate by which a parameter learns: decay for each block of the backbone after it.

    Positions learn at the full rate, as do all parts behind the backbone.
    """
    if name.startswith("vision_encoder.backbone.patch_embed."):
        return decay ** (blocks + 1)
    block = _BLOCK.match(name)
    return decay ** (blocks - int(block[1])) if block else 1.0


def is_skipped(state: Any) -> jax.Array:
    """Whether the last gradient was left out because it was not finite."""
    return state.skip_state["should_skip"]
