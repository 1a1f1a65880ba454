"""Options of a session on a clip, checked."""

from dataclasses import dataclass, replace
from typing import Any, Self

import jax.numpy as jnp

from sam2_jax.checks import read_flag, read_whole, shown
from sam2_jax.config import Sam2VideoConfig
from sam2_jax.processing.components import read_area
from sam2_jax.processing.inputs import Size, read_sizes
from sam2_jax.video.plan import NOT_LIMITED, Rules
from sam2_jax.video.policies import POLICIES

POINTER_SPANS = ("clip", "stream")
COMPATIBLE = (None, "meta", "meta_legacy")
# Frames that an accelerator tracks at once: enough to hide the host's work, few enough to wait for.
_CHUNK = 8


@dataclass(frozen=True)
class VideoOptions:
    """How a clip is tracked.

    keep: which results of tracked frames stay at hand for tracking from there again, backwards say: "all",
    "window:N" (those of the N frames tracked last, at least as many as memories reach back) or "none" (no
    more than that: the memory a session takes does not grow). So it goes with the frames of a stream, too.
    What prompted frames gave is always kept. None: "none" for a stream and "all" for a clip.
    size: (height, width) that prompts refer to and masks have, if not those of the frames.
    memory_dtype: type in which memories are stored, bfloat16 as in the references, or float32.
    max_cond_frame_num: so many conditioning frames are attended to, -1 for all; None: the configuration's.
    memory_temporal_stride: of older frames take every so manieth as memory.
    pointer_span: distances of pointers are divided by the length of a "clip" of less than 16 frames, or as in
    a "stream" of unknown length; None: whichever the source is.
    memory: which frames become memories: "released", as trained, or a policy that was published since and
    needs no training, "selected", "distractor" or "motion" (see `sam2_jax.video.policies`).
    fill_hole_area: holes of up to so many pixels of the network's masks, 8-connected, are filled as soon as a
    mask is found: in what prompts refine and what is remembered of them, too. 0 for none.
    binarize_prompted_masks: of prompted frames the mask is remembered as yes or no, and not as logits.
    chunk: so many frames of a run are tracked by one program; the first is yielded when all of them are done,
    while those behind are being encoded, and of a stream when those have come. Where fewer are left before a
    frame with prompts or the end, they go one by one. None: 8 on accelerators, 1 on a CPU, of a stream, and
    with a policy that looks at each frame before it chooses for the next.
    compat: do as Meta's code does where it is not what the network was trained for. "meta": further prompts
    on a conditioning frame that was tracked past see that frame's own memory. "meta_legacy", its predictor of
    July 2024: besides, prompts on a tracked frame leave it an ordinary frame.
    """

    keep: str | None = None
    size: Any = None
    memory_dtype: Any = jnp.bfloat16
    max_cond_frame_num: int | None = None
    memory_temporal_stride: int = 1
    pointer_span: str | None = None
    memory: str = "released"
    fill_hole_area: float = 0.0
    binarize_prompted_masks: bool = True
    chunk: int | None = None
    compat: str | None = None

    def checked(self) -> Self:
        """The same with what was given brought to one form. Raises ValueError for what cannot be meant."""
        self.window(is_stream=False)
        for name, value, known in (
            ("pointer_span", self.pointer_span, (None, *POINTER_SPANS)),
            ("memory", self.memory, tuple(POLICIES)),
            ("compat", self.compat, COMPATIBLE),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {known}; got {shown(value)}")
        size: Size | None = None if self.size is None else read_sizes([self.size], "size")[0]
        limit = self.max_cond_frame_num
        if limit is not None and (limit := read_whole("max_cond_frame_num", limit, NOT_LIMITED)) == 0:
            raise ValueError("max_cond_frame_num must be -1 (all) or at least 1; got 0")
        try:
            memory_dtype = jnp.dtype(self.memory_dtype)
        except TypeError:
            memory_dtype = None
        if memory_dtype not in (jnp.float32, jnp.bfloat16):
            raise ValueError(f"memory_dtype must be float32 or bfloat16; got {shown(self.memory_dtype)}")
        stride = read_whole("memory_temporal_stride", self.memory_temporal_stride, 1, 2**20)
        if self.memory != "released" and stride != 1:
            raise ValueError(
                f'memory_temporal_stride must be 1 with memory="{self.memory}", which chooses frames itself; '
                f"got {stride}"
            )
        chunk = 1 if self.chunk is None else read_whole("chunk", self.chunk, 1, 2**10)
        if chunk > 1 and POLICIES[self.memory].looks_at_results:
            raise ValueError(
                f'chunk must be 1 with memory="{self.memory}", which looks at each frame before it chooses '
                f"for the next; got {chunk}"
            )
        return replace(
            self,
            size=size,
            memory_dtype=memory_dtype,
            max_cond_frame_num=limit,
            memory_temporal_stride=stride,
            fill_hole_area=read_area("fill_hole_area", self.fill_hole_area),
            binarize_prompted_masks=read_flag("binarize_prompted_masks", self.binarize_prompted_masks),
        )

    def window(self, is_stream: bool) -> int | None:
        """How many frames are kept at least, None for all."""
        if self.keep == "all" or (self.keep is None and not is_stream):
            return None
        if self.keep in ("none", None):
            return 1
        kind, _, count = self.keep.partition(":") if isinstance(self.keep, str) else ("", "", "")
        if kind != "window" or not count.isdecimal() or not 1 <= int(count[:9]) < 2**20:
            raise ValueError(
                f'keep must be "all", "none" or "window:N", such as "window:50"; got {shown(self.keep)}'
            )
        return int(count)

    def frames_at_once(self, *, is_stream: bool, is_cpu: bool) -> int:
        """How many frames of a run are tracked by one program."""
        if self.chunk is not None:
            return self.chunk
        is_single = is_stream or is_cpu or POLICIES[self.memory].looks_at_results
        return 1 if is_single else _CHUNK

    def rules(self, config: Sam2VideoConfig, frames: int | None) -> Rules:
        """The rules of memory for a clip of so many frames, None for a stream."""
        span = self.pointer_span or ("stream" if frames is None else "clip")
        most = config.max_object_pointers_in_encoder
        limit = config.max_cond_frame_num if self.max_cond_frame_num is None else self.max_cond_frame_num
        return Rules(
            num_maskmem=config.num_maskmem,
            max_pointers=most if span == "stream" or frames is None else min(frames, most),
            max_cond_frame_num=limit,
            stride=self.memory_temporal_stride,
        )
