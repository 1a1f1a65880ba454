"""The compiled steps of a clip: encode a frame, prompt an object, remember, track all objects.

All sessions of one network share them; parameters and features are arguments.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from sam2_jax.model.memory_bank import Plan, VideoState
from sam2_jax.model.sam2_video import FrameFeatures, FrameOutput, resize_mask


@partial(jax.jit, static_argnames=("module", "method", "options"))
def _run(module: nn.Module, params: Any, *inputs: Any, method: str, options: tuple[Any, ...] = ()) -> Any:
    return module.apply({"params": params}, *inputs, method=method, **dict(options))


@partial(jax.jit, static_argnames=("module", "method"), donate_argnames="state")
def _track(
    module: nn.Module,
    params: Any,
    features: FrameFeatures,
    state: VideoState,
    plan: Plan,
    method: str,
) -> tuple[VideoState, *tuple[Any, ...]]:
    found: Any = module.apply({"params": params}, features, state, plan, method=method)
    return found


@partial(jax.jit, static_argnames="module")
def _condition(
    module: nn.Module, params: Any, features: FrameFeatures, state: VideoState, index: Any, plan: Plan
) -> jax.Array:
    """Features of a frame conditioned on the memories of one object."""
    alone = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, index, 1), state)
    found: Any = module.apply({"params": params}, features, alone, plan, method="condition")
    return found


_resize = jax.jit(resize_mask, static_argnums=1)


class Steps(NamedTuple):
    """The steps with a network's weights."""

    module: Any
    params: Any

    def _run(self, method: str, *inputs: Any, **options: Any) -> Any:
        options_ = tuple(sorted(options.items()))
        return _run(self.module, self.params, *inputs, method=method, options=options_)

    def encode(self, pixels: np.ndarray) -> FrameFeatures:
        """Encode a frame [1, H, W, 3], for all objects."""
        found: FrameFeatures = self._run("encode_frame", pixels)
        return found

    def condition(self, features: FrameFeatures, state: VideoState, index: int, plan: Plan) -> jax.Array:
        """Condition a frame on the memories of the object with an index; plan: for it alone."""
        return _condition(self.module, self.params, features, state, index, plan)

    def prompt(
        self,
        features: FrameFeatures,
        points: Any,
        labels: Any,
        mask: np.ndarray | None,
        conditioned: jax.Array | None,
        *,
        multimask: bool,
    ) -> FrameOutput:
        """Segment one object by points [1, N, 2] in the network's pixels and labels [1, N]."""
        found: FrameOutput = self._run(
            "prompt_step", features, points, labels, mask, conditioned, multimask=multimask
        )
        return found

    def prompt_mask(self, features: FrameFeatures, mask: np.ndarray) -> FrameOutput:
        """Take a mask [1, height, width], of any size, of 0 and 1, for what it is."""
        size = self.module.config.image_config.image_size
        found: FrameOutput = self._run("mask_step", features, _resize(mask, size))
        return found

    def remember(
        self, features: FrameFeatures, low: np.ndarray, score: np.ndarray, binary: np.ndarray
    ) -> np.ndarray:
        """Memories [P, S, 64] of prompted objects, float32; binary: bool [P], of masks that are yes or no."""
        return np.asarray(self._run("remember", features, low, score, binary))

    def track(
        self, features: FrameFeatures, state: VideoState, plan: Plan, *, with_candidates: bool
    ) -> tuple[VideoState, tuple[FrameOutput, jax.Array | None]]:
        """Track all objects of the plan on a frame; the state given away is no longer to be used.

        Returns the new state, the outputs and, if wanted, the logits of all masks to choose from.
        """
        method = "track_step_with_candidates" if with_candidates else "track_step"
        state, output, *candidates = _track(self.module, self.params, features, state, plan, method)
        return state, (output, candidates[0] if candidates else None)
