"""Hiera-tiny's video network at its full size: one click, three frames, as transformers tracks them."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("transformers", reason="parity needs transformers")

import jax
import torch
import transformers
from small_models import random_tensors
from tolerances import assert_close
from transformers.initialization import no_init_weights
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession
from video_references import forward_plan

from sam2_jax.checkpoint import names
from sam2_jax.config import released_video_config
from sam2_jax.model.memory_bank import VideoState, store
from sam2_jax.model.sam2_video import Sam2Video

FRAMES = 3
CONFIG = released_video_config("facebook/sam2.1-hiera-tiny")
CLICK = np.float32([[[430.0, 600.0]]])


def track_there(tensors: dict[str, np.ndarray], pixels: np.ndarray) -> list[Any]:
    """transformers' outputs, frame by frame."""
    with no_init_weights():
        model = transformers.Sam2VideoModel(transformers.Sam2VideoConfig(**CONFIG.to_dict())).eval()
    model.load_state_dict({name: torch.from_numpy(x.copy()) for name, x in tensors.items()}, strict=True)
    height, width = pixels.shape[1:3]
    video = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    session = Sam2VideoInferenceSession(video, height, width, dtype=torch.float32)
    click = {
        "point_coords": torch.from_numpy(CLICK)[None],
        "point_labels": torch.ones(1, 1, 1, dtype=torch.int32),
    }
    session.add_point_inputs(session.obj_id_to_idx(1), 0, click)
    session.obj_with_new_inputs = [1]
    with torch.no_grad():
        return [model(session, frame_idx=t) for t in range(FRAMES)]


@pytest.mark.slow
def test_three_frames_at_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = random_tensors(CONFIG)
    tensors["mask_decoder.pred_obj_score_head.proj_out.bias"] += 10  # or there would be no masks to compare
    rng = np.random.default_rng(0)
    pixels = rng.standard_normal((FRAMES, 1024, 1024, 3)).astype(np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "bfloat16", torch.float32)  # in which it would keep memories
        theirs = track_there(tensors, pixels)

    module, params = Sam2Video(CONFIG), names.unflatten(names.to_flax(tensors))

    def call(method: str, *inputs: Any, **options: Any) -> Any:
        apply = jax.jit(
            lambda params, *inputs: module.apply({"params": params}, *inputs, method=method, **options)
        )
        return apply(params, *inputs)

    features = call("encode_frame", pixels[:1])
    output = call("prompt_step", features, CLICK, np.ones((1, 1), np.int32), multimask=True)
    yes, slot = np.ones(1, bool), np.zeros(1, np.int32)
    memory = call("remember", features, output.low, output.score, yes)
    state = store(VideoState.empty(CONFIG, 1, 1, np.float32), slot, slot, yes, memory, output.pointer)
    step = jax.jit(
        lambda params, pixels, state, plan: module.apply(
            {"params": params}, pixels, state, plan, method=track
        )
    )
    for t, expected in enumerate(theirs):
        if t:
            state, (output, *_) = step(params, pixels[t : t + 1], state, forward_plan(CONFIG, t, 1, FRAMES))
        assert_close("masks", f"video, frame {t}", output.low[:, None], expected.pred_masks)
        assert_close("scores", f"video, frame {t}", output.score[:, None], expected.object_score_logits)


def track(module: Sam2Video, pixels: jax.Array, state: VideoState, plan: Any) -> Any:
    return module.track_step(module.encode_frame(pixels), state, plan)
