"""A clip tracked frame by frame, by either side: the steps that video.py and video_memory.py measure.

Imports neither JAX nor torch before a side is asked for.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

Points = list[tuple[float, float]]


def clicks(objects: int, side: int) -> Points:
    """A click for each object, spread over the frame."""
    rng = np.random.default_rng(0)
    return [(float(x), float(y)) for x, y in rng.uniform(0, side, (objects, 2))]


def our_step(model: Any, frame: np.ndarray, points: Points) -> Callable[[], Any]:
    """Track the next frame, uint8 [H, W, 3], of a stream whose first was prompted."""
    session = model.video(None)
    session.add_frame(frame)
    for i, point in enumerate(points):
        session.prompt(0, i, [point])
    session.step()
    return lambda: session.step(frame)


def their_step(
    reference: Any,
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]],
    frame: np.ndarray,
    points: Points,
    device: str,
) -> Callable[[], Any]:
    """The same with transformers, whose frames are pixels already; wrap: how its functions are run."""
    import torch
    from transformers.models.sam2_video import modeling_sam2_video as modeling

    pixels = torch.from_numpy(frame.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1)
    session: Any = modeling.Sam2VideoInferenceSession
    session = session(None, *frame.shape[:2], device, device, device, torch.float32)
    for i, point in enumerate(points):
        click = {
            "point_coords": torch.tensor([[[list(point)]]], device=device),
            "point_labels": torch.ones(1, 1, 1, dtype=torch.int32, device=device),
        }
        session.add_point_inputs(session.obj_id_to_idx(i), 0, click)
    session.obj_with_new_inputs = list(range(len(points)))
    run = wrap(lambda: reference(session, frame=pixels.clone()))  # a session keeps its frames
    run()
    return lambda: run().pred_masks.cpu()


def metas_step(size: str, frame: np.ndarray, points: Points, frames: int) -> Callable[[], Any]:
    """The same with Meta's predictor and weights of its own: so many frames, from JPEGs."""
    import torch
    from PIL import Image
    from sam2.build_sam import build_sam2_video_predictor

    config = {"base-plus": "b+"}.get(size, size[0])
    side = len(frame)
    predictor = build_sam2_video_predictor(
        f"configs/sam2.1/sam2.1_hiera_{config}.yaml",
        None,
        device="cpu",
        apply_postprocessing=False,  # holes in masks are not filled: nothing else fills them either
        hydra_overrides_extra=[f"++model.image_size={side}"],
    )
    with TemporaryDirectory() as folder:
        for i in range(frames + 1):
            Image.fromarray(frame).save(Path(folder) / f"{i:05}.jpg")
        state = predictor.init_state(folder)
    for i, point in enumerate(points):
        predictor.add_new_points_or_box(state, 0, i, points=np.array([point]), labels=np.ones(1, np.int32))
    masks = predictor.propagate_in_video(state)
    next(masks)
    return torch.inference_mode()(lambda: next(masks)[2].cpu())
