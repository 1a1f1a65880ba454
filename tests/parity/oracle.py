"""transformers' Sam2Model as the oracle: built from our configuration, given our weights, and looked into."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("torch", reason="parity needs torch")
pytest.importorskip("transformers", reason="parity needs transformers")

import flax
import jax
import numpy as np
import torch
import transformers
from small_models import random_tensors
from transformers.initialization import no_init_weights
from transformers.models.sam2 import modeling_sam2

from sam2_jax import Sam2Config, Sam2Model
from sam2_jax.checkpoint import names


@dataclass(frozen=True)
class Pair:
    """One network twice: here and in transformers, with the same weights."""

    ours: Sam2Model
    theirs: Any


def build(config: Sam2Config, seed: int = 0) -> Pair:
    """Build both networks with the same random weights."""
    tensors = random_tensors(config, seed)
    return Pair(
        Sam2Model(config, names.unflatten(names.to_flax(tensors))), transformers_model(config, tensors)
    )


def transformers_model(config: Sam2Config, tensors: Mapping[str, np.ndarray]) -> Any:
    """transformers' model of a configuration, in eval mode, loaded strictly; eager, to see its attention."""
    values = config.to_dict()
    height, width = config.image_size
    if height != width:  # its prompt encoder is square; see _make_oblong
        values["prompt_encoder_config"]["image_size"] = height
    with no_init_weights():  # all are loaded
        model = transformers.Sam2Model(transformers.Sam2Config(**values, attn_implementation="eager")).eval()
    model.load_state_dict({name: torch.from_numpy(t.copy()) for name, t in tensors.items()}, strict=True)
    if height != width:
        _make_oblong(model.prompt_encoder, config)
    return model


def _make_oblong(encoder: Any, config: Sam2Config) -> None:
    """Give transformers' prompt encoder, which knows one side only, both sides of an oblong image."""
    height, width = config.image_size
    patch = config.prompt_encoder_config.patch_size
    encoder.image_embedding_size = (height // patch, width // patch)
    encoder.mask_input_size = (4 * height // patch, 4 * width // patch)
    embed = encoder.shared_embedding.forward
    encoder.shared_embedding.forward = lambda coordinates, _: embed(coordinates, (height, width))


def to_torch(x: Any) -> Any:
    """A tensor for an array, with images [B, H, W, C] left as they are."""
    return None if x is None else torch.from_numpy(np.array(x))


def channels_first(x: Any) -> Any:
    """[B, H, W, C] as torch lays it out."""
    return to_torch(np.moveaxis(np.asarray(x), -1, 1))


def channels_last(x: Any) -> np.ndarray:
    """torch's [B, C, H, W] as we lay it out."""
    return np.moveaxis(x.detach().numpy(), 1, -1)


@contextmanager
def recorded_outputs(model: Any) -> Iterator[dict[str, Any]]:
    """Inside, collect the outputs of all of a torch model's modules under their names."""
    outputs: dict[str, Any] = {}

    def keep(name: str) -> Any:
        return lambda module, inputs, output: outputs.__setitem__(name, output)

    handles = [module.register_forward_hook(keep(name)) for name, module in model.named_modules()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def recorded_attentions(model: Any) -> Iterator[dict[str, np.ndarray]]:
    """Inside, collect the softmax weights of all of transformers' attention modules under their names."""
    names_of = {module: name for name, module in model.named_modules()}
    weights: dict[str, np.ndarray] = {}
    eager = modeling_sam2.eager_attention_forward

    def record(module: Any, *args: Any, **kwargs: Any) -> Any:
        output, attention = eager(module, *args, **kwargs)
        weights[names_of[module]] = attention.numpy()
        return output, attention

    modeling_sam2.eager_attention_forward = record
    try:
        yield weights
    finally:
        modeling_sam2.eager_attention_forward = eager


@dataclass(frozen=True)
class Steps:
    """A run of the network: every module's output and every attention's weights, by transformers' names."""

    outputs: dict[str, Any]
    attentions: dict[str, Any]


def their_steps(model: Any, *, multimask_output: bool = True, **inputs: Any) -> Steps:
    """Run transformers' Sam2Model as `predict` does and record all of it."""
    with recorded_outputs(model) as outputs, recorded_attentions(model) as attentions:
        predict(model, multimask_output=multimask_output, **inputs)
    return Steps(outputs, attentions)


def our_steps(model: Sam2Model, method: str, *args: Any, **kwargs: Any) -> Steps:
    """Run a method of our module and record all of it."""
    collections = ["intermediates", "attentions"]

    @jax.jit
    def run(params: Any, *args: Any) -> Any:
        variables = {"params": params}
        return model.module.apply(
            variables, *args, method=method, mutable=collections, capture_intermediates=True, **kwargs
        )[1]

    recorded = run(model.params, *args)
    intermediates, attentions = ({k: v[0] for k, v in _sown(recorded[c]).items()} for c in collections)
    return Steps(intermediates, attentions)


def _sown(collection: Any) -> dict[str, Any]:
    """What modules sowed, by transformers' name of the module."""
    flat = flax.traverse_util.flatten_dict(collection)
    return {names.torch_name(".".join(path)).rpartition(".")[0]: value for path, value in flat.items()}


# The prompts of Sam2Model.__call__ that both sides take in the same layout.
_SHARED = (
    "input_points",
    "input_labels",
    "input_boxes",
    "input_masks",
    "attention_similarity",
    "target_embedding",
)


def predict(model: Any, *, multimask_output: bool = True, **inputs: Any) -> Any:
    """Run transformers' Sam2Model on inputs laid out for ours."""
    given = {name: to_torch(inputs.pop(name)) for name in _SHARED if name in inputs}
    if "pixel_values" in inputs:
        given["pixel_values"] = channels_first(inputs.pop("pixel_values"))
    if "image_embeddings" in inputs:
        given["image_embeddings"] = [channels_first(x) for x in inputs.pop("image_embeddings")]
    assert not inputs, f"unknown inputs {sorted(inputs)}"
    with torch.no_grad():
        return model(**given, multimask_output=multimask_output)
