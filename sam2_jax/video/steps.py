"""The compiled steps of a clip: encode frames, prompt an object, remember, track all objects.

All sessions of one network share them; parameters and features are arguments.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from sam2_jax.devices import DIVIDED, SECOND_DIVIDED, WHOLE, divided, on_each
from sam2_jax.model.memory_bank import FrameOutput, Plan, TrackedFrame, VideoState
from sam2_jax.model.sam2_video import FrameFeatures, resize_mask


@partial(jax.jit, static_argnames=("module", "method", "options", "mesh"))
def _run(
    module: nn.Module,
    params: Any,
    *inputs: Any,
    method: str,
    options: tuple[Any, ...] = (),
    mesh: Mesh | None = None,
) -> Any:
    def run(params: Any, *inputs: Any) -> Any:
        return module.apply({"params": params}, *inputs, method=method, **dict(options))

    return on_each(mesh, run, params, inputs)


@partial(jax.jit, static_argnames=("module", "with_candidates", "mesh"), donate_argnames="state")
def _track(
    module: nn.Module,
    params: Any,
    features: FrameFeatures,
    state: VideoState,
    plans: Plan,
    with_candidates: bool,
    mesh: Mesh | None,
) -> tuple[VideoState, TrackedFrame]:
    def track(params: Any, features: FrameFeatures, state: VideoState, plans: Plan) -> Any:
        def step(state: VideoState, frame: tuple[FrameFeatures, Plan]) -> Any:
            return module.apply(
                {"params": params},
                frame[0],
                state,
                frame[1],
                method="track_step",
                with_candidates=with_candidates,
            )

        frames = jax.tree.map(lambda x: x[:, None], features), plans
        # Of a single frame no loop is made.
        return jax.lax.scan(step, state, frames, unroll=len(features.coarse) == 1)

    if mesh is not None:  # each device has its part of the objects
        specs, found = (WHOLE, WHOLE, DIVIDED, SECOND_DIVIDED), (DIVIDED, SECOND_DIVIDED)
        track = jax.shard_map(track, mesh=mesh, in_specs=specs, out_specs=found, check_vma=False)
    tracked: tuple[VideoState, TrackedFrame] = track(params, features, state, plans)
    return tracked


@partial(jax.jit, static_argnames="module")
def _condition(
    module: nn.Module, params: Any, features: FrameFeatures, state: VideoState, index: Any, plan: Plan
) -> jax.Array:
    """Features of a frame conditioned on the memories of one object."""
    alone = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, index, 1), state)
    found: Any = module.apply({"params": params}, features, alone, plan, method="condition")
    return found


@jax.jit
def _at(features: FrameFeatures, index: Any) -> FrameFeatures:
    found: FrameFeatures = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, index, 1), features)
    return found


_resize = jax.jit(resize_mask, static_argnums=1)


class Steps(NamedTuple):
    """The steps with a network's weights."""

    module: Any
    params: Any
    mesh: Mesh | None

    def _run(self, method: str, *inputs: Any, **options: Any) -> Any:
        options_ = tuple(sorted(options.items()))
        return _run(self.module, self.params, *inputs, method=method, options=options_)

    def encode(self, pixels: np.ndarray) -> FrameFeatures:
        """Encode frames [T, H, W, 3], for all objects."""
        mesh, inputs = divided(self.mesh, (pixels,))
        found: FrameFeatures = _run(self.module, self.params, *inputs, method="encode_frame", mesh=mesh)
        if mesh is not None:  # for the objects of each device
            found = jax.device_put(found, NamedSharding(mesh, WHOLE))
        return found

    def frame_of(self, features: FrameFeatures, index: int) -> FrameFeatures:
        """One of several encoded frames."""
        return features if len(features.coarse) == 1 else _at(features, index)

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
        self, features: FrameFeatures, state: VideoState, plans: Plan, *, with_candidates: bool
    ) -> tuple[VideoState, TrackedFrame]:
        """Track all objects on T frames in a row; the state given away is no longer to be used.

        Leaves of the plans, and of what is found, are [T, P, ...].
        """
        mesh, (state,) = divided(self.mesh, (state,))
        return _track(self.module, self.params, features, state, plans, with_candidates, mesh)
