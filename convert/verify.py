"""The check of a written checkpoint that needs PyTorch: transformers computes the same with it."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sam2_jax import Sam2Model
from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.conversion import DTYPES, Source
from sam2_jax.checkpoint.hub import HubFolder
from sam2_jax.checkpoint.parameters import network
from sam2_jax.checkpoint.reading import Checkpoint, read_checkpoint
from sam2_jax.config import Sam2VideoConfig
from sam2_jax.model.memory_attention import Memories
from sam2_jax.model.positions import sine_positions
from sam2_jax.model.sam2_video import Sam2Video

TOLERANCE = 1e-4
"""Largest relative difference from transformers, in float32, that counts as the same network."""


def comparison(checkpoint: Checkpoint, source: Source, target: Path, layout: str) -> str:
    """What `compare_with_transformers` finds, in a sentence."""
    differences = compare_with_transformers(checkpoint, source, target, layout)
    if differences is None:
        return "not compared with transformers: PyTorch and transformers with SAM 2 are not installed"
    return f"verified: differs from transformers by {describe(differences)} (relative; limit {TOLERANCE:.0e})"


def compare_with_transformers(
    checkpoint: Checkpoint, source: Source, target: Path, layout: str
) -> dict[str, float] | None:
    """Run the written network and transformers' on one random picture with one click, and on memories.

    Returns the largest difference of each output relative to its largest value, None without transformers.
    Raises ValueError if a tensor's name or shape is not transformers', or a difference exceeds TOLERANCE.
    """
    try:
        import torch
        import transformers

        _ = transformers.Sam2Model, transformers.Sam2VideoModel
    except (ImportError, AttributeError):
        return None
    ours = _run_jax(Sam2Model.from_pretrained(target, layout=layout), *_inputs(checkpoint))
    with torch.no_grad():
        theirs = _run_torch(_reference(checkpoint, source), *_inputs(checkpoint))
    if isinstance(checkpoint.config, Sam2VideoConfig):
        memories = _memory_inputs(checkpoint.config)
        ours |= _remember_jax(checkpoint.config, target, layout, memories)
        with torch.no_grad():
            theirs |= _remember_torch(checkpoint, memories)
    differences = {name: _difference(ours[name], theirs[name]) for name in theirs}
    if not all(difference <= TOLERANCE for difference in differences.values()):  # NaN fails too
        raise ValueError(
            f"the network in {target} must agree with transformers to {TOLERANCE:.0e}; the differences are "
            f"{describe(differences)}. Do not use it"
        )
    return differences


def describe(differences: dict[str, float]) -> str:
    """The differences in words."""
    return ", ".join(f"{name} {difference:.1e}" for name, difference in differences.items())


def _inputs(checkpoint: Checkpoint) -> tuple[np.ndarray, np.ndarray]:
    """A random picture [1, H, W, 3], normalised, and a click [1, 1, 1, 2] near its middle."""
    height, width = checkpoint.image_config.image_size
    pixels = np.random.default_rng(0).standard_normal((1, height, width, 3), np.float32)
    return pixels, np.array([[[[width * 0.45, height * 0.55]]]], np.float32)


def _run_jax(model: Sam2Model, pixels: np.ndarray, points: np.ndarray) -> dict[str, list[np.ndarray]]:
    with jax.default_matmul_precision("highest"):
        embeddings = model.get_image_embeddings(pixels)
        output = model(image_embeddings=embeddings, input_points=points)
    return {
        "features": [np.asarray(x) for x in embeddings],
        "IoU scores": [np.asarray(output.iou_scores)],
        "mask logits": [np.asarray(output.pred_masks)],
    }


def _run_torch(model: Any, pixels: np.ndarray, points: np.ndarray) -> dict[str, list[np.ndarray]]:
    import torch

    embeddings = model.get_image_embeddings(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    labels = torch.ones(points.shape[:3], dtype=torch.int64)
    output = model(image_embeddings=embeddings, input_points=torch.from_numpy(points), input_labels=labels)
    return {
        "features": [x.numpy().transpose(0, 2, 3, 1) for x in embeddings],
        "IoU scores": [output.iou_scores.numpy()],
        "mask logits": [output.pred_masks.numpy()],
    }


def _difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return float(max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs))


def _reference(checkpoint: Checkpoint, source: Source) -> Any:
    """Transformers' model in float32, its parameters rounded as the checkpoint's are.

    A transformers source is loaded by transformers itself, any other from what we call the tensors there.
    """
    import torch
    import transformers

    model: Any
    if checkpoint.layout == "transformers" and source.folder.file is None:
        model = transformers.Sam2Model.from_pretrained(source.files[0].parent)
    else:
        model = transformers.Sam2Model(transformers.Sam2Config.from_dict(checkpoint.image_config.to_dict()))
        image = names.to_torch({name: tensor.astype(np.float32) for name, tensor in checkpoint.image.items()})
        model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in image.items()}, strict=True)
    if checkpoint.dtype == DTYPES["bfloat16"]:
        for parameter in model.parameters():  # and not the buffers, which are the Fourier matrix
            parameter.data = parameter.data.to(torch.bfloat16)
    return model.to(torch.float32).eval()


def _memory_inputs(config: Sam2VideoConfig) -> dict[str, np.ndarray]:
    """Random features, a mask, memories of two frames and three pointers with their positions in time."""
    rng = np.random.default_rng(1)
    height, width = (
        side // config.prompt_encoder_config.patch_size for side in config.image_config.image_size
    )
    channels, memory_channels = config.vision_config.fpn_hidden_size, config.memory_encoder_output_channels
    shapes = {
        "features": (1, height, width, channels),
        "masks": (1, *config.image_config.image_size),
        "memories": (2, height * width, memory_channels),
        "rows": (2, 1, memory_channels),
        "pointers": (3 * channels // memory_channels, memory_channels),
        "times": (3 * channels // memory_channels, memory_channels),
        "tokens": (4, channels),
    }
    inputs = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    return inputs | {"masks": np.sign(inputs["masks"]) * 10}


def _remember_jax(
    config: Sam2VideoConfig, target: Path, layout: str, inputs: dict[str, np.ndarray]
) -> dict[str, list[np.ndarray]]:
    params = names.unflatten(read_checkpoint(HubFolder(target), layout=layout).tensors)

    def run(module: Sam2Video, x: dict[str, jax.Array]) -> dict[str, jax.Array]:
        encoder, attention = module.memory_encoder, module.memory_attention
        memories = Memories(
            x["memories"][None],
            x["rows"][None],
            jnp.ones((1, 2), bool),
            x["pointers"][None],
            x["times"][None],
            jnp.ones((1, len(x["pointers"])), bool),
        )
        _, height, width, _ = x["features"].shape
        return {
            "memory encoder": encoder(encoder.project(x["features"]), x["masks"]),
            "memory attention": attention(*attention.prepare(x["features"]), memories, (height, width))[0],
            "object pointers": module.object_pointer_proj(x["tokens"]),
        }

    with jax.default_matmul_precision("highest"):
        found = jax.jit(partial(network(config).apply, method=run))({"params": params}, inputs)
    return {name: [np.asarray(value)] for name, value in found.items()}


def _remember_torch(checkpoint: Checkpoint, inputs: dict[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """The same of transformers' whole video model, made of what we call the tensors there."""
    import torch
    import transformers

    model: Any = transformers.Sam2VideoModel(
        transformers.Sam2VideoConfig.from_dict(checkpoint.config.to_dict())
    )
    tensors = names.to_torch({name: x.astype(np.float32) for name, x in checkpoint.tensors.items()})
    names.check_names(names.shapes(model.state_dict()), names.shapes(tensors), "the video model")
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, strict=True)
    model = model.to(torch.float32).eval()
    height, width, channels = inputs["features"].shape[1:]

    def positions(width_of: int) -> np.ndarray:
        return np.asarray(sine_positions(height, width, width_of)).reshape(-1, width_of)

    def tokens(*parts: np.ndarray) -> Any:
        return torch.from_numpy(np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])[:, None])

    places = positions(inputs["memories"].shape[-1])[None] + inputs["rows"]
    attended = model.memory_attention(
        tokens(inputs["features"]),
        tokens(inputs["memories"], inputs["pointers"]),
        tokens(positions(channels)),
        tokens(places, inputs["times"]),
        num_object_pointer_tokens=len(inputs["pointers"]),
    )
    features = torch.from_numpy(inputs["features"].transpose(0, 3, 1, 2).copy())
    remembered, _ = model.memory_encoder(features, torch.from_numpy(inputs["masks"])[:, None])
    return {
        "memory encoder": [remembered.numpy().transpose(0, 2, 3, 1)],
        "memory attention": [attended.reshape(height * width, channels).numpy()],
        "object pointers": [model.object_pointer_proj(torch.from_numpy(inputs["tokens"])).numpy()],
    }
