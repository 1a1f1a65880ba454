"""The optimiser: AdamW with warm-up and cosine decay, layer decay in the backbone, clipping, accumulation.

Source: Ravi et al. 2024 (arXiv:2408.00714), appendix on training; Meta's training configurations.
"""

import re
from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam2_jax.checks import read_number, read_whole
from sam2_jax.training.parameters import Flat


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

    def checked(self) -> "OptimizerOptions":
        """The same as plain numbers. Raises ValueError for what cannot be meant."""
        return OptimizerOptions(
            learning_rate=read_number("learning_rate", self.learning_rate, above=0),
            warmup_steps=read_whole("warmup_steps", self.warmup_steps, 0),
            final_share=read_number("final_share", self.final_share, 0, 1),
            weight_decay=read_number("weight_decay", self.weight_decay, 0),
            layer_decay=read_number("layer_decay", self.layer_decay, most=1, above=0),
            clip_norm=read_number("clip_norm", self.clip_norm, above=0),
            accumulate=read_whole("accumulate", self.accumulate, 1),
        )


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


class Group(NamedTuple):
    """Parameters that move alike. scale: their share of the learning rate."""

    scale: float
    is_decayed: bool


Vectors = dict[Group, jax.Array]


class Layout:
    """Where each parameter lies in a few vectors, one of each group, that the optimiser moves as a whole.

    Moved one by one, hundreds of parameters are thousands of small programs, most of a step's compilation.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], blocks: int, layer_decay: float) -> None:
        """Lay out flat parameters of these names and shapes. blocks: how many the backbone has."""
        self.groups: dict[Group, dict[str, tuple[int, ...]]] = {}
        for name, shape in shapes.items():
            is_decayed = not name.endswith((".bias", ".scale"))
            group = Group(layer_scale(name, blocks, layer_decay), is_decayed)
            self.groups.setdefault(group, {})[name] = shape

    def pack(self, flat: Mapping[str, Any]) -> Vectors:
        """Flat parameters as vectors."""
        return {
            group: jnp.concatenate([jnp.ravel(flat[name]) for name in shapes])
            for group, shapes in self.groups.items()
        }

    def unpack(self, vectors: Vectors) -> Flat:
        """Vectors as the flat parameters that they are made of."""
        flat: Flat = {}
        for group, shapes in self.groups.items():
            parts = jax.lax.split(vectors[group], [prod(shape) for shape in shapes.values()])
            flat |= {name: part.reshape(shapes[name]) for name, part in zip(shapes, parts, strict=True)}
        return flat


def make_optimizer(options: OptimizerOptions, steps: int, layout: Layout) -> optax.MultiSteps:
    """The optimiser of vectors laid out so, for training of this many steps.

    A gradient that is not finite is left out and counted in the state's skip_state.
    """
    decayed = {group: group.is_decayed for group in layout.groups}
    chain = optax.chain(
        optax.clip_by_global_norm(options.clip_norm),
        optax.scale_by_adam(),
        optax.add_decayed_weights(options.weight_decay, decayed),
        optax.scale_by_learning_rate(learning_rate_schedule(options, steps)),
        optax.stateless(lambda updates, _: {group: group.scale * updates[group] for group in updates}),
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
