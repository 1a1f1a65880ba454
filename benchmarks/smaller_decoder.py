"""A mask decoder made smaller: attention of lower rank, and fewer hidden neurons, by what they do on scenes.

Fine-tuning has then little to mend.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from sam2_jax import Sam2Model
from sam2_jax.checkpoint import names
from sam2_jax.config import Sam2MaskDecoderConfig
from sam2_jax.model.layers import Dense
from sam2_jax.model.sam2 import Sam2
from sam2_jax.training.prompts import PromptOptions, first_prompts
from sam2_jax.training.step import Batch, decode

Flat = dict[str, np.ndarray]
_DECODER = "mask_decoder."


def compress_decoder(model: Sam2Model, config: Sam2MaskDecoderConfig, batches: Iterable[Batch]) -> Flat:
    """Parameters of a model's mask decoder as one of this configuration.

    config: as the model's own, with attention between tokens and image narrower, and fewer hidden neurons in
    MLPs and the IoU head. batches: what the neurons are judged by.
    """
    given = names.flatten(model.params)
    small = {
        name: np.asarray(value, np.float64) for name, value in given.items() if name.startswith(_DECODER)
    }
    hidden = hidden_neurons(model, batches)
    inner = config.hidden_size // config.attention_downsample_rate
    for name in {name.rpartition(".q_proj")[0] for name in small if ".q_proj." in name and "image" in name}:
        small |= narrow_attention(small, name, config.num_attention_heads, inner)
    narrow = [(f"transformer.layers_{i}.mlp", "proj_in", "proj_out") for i in range(config.num_hidden_layers)]
    # The later of the head's two first: the earlier one is then fitted to what is left of it.
    narrow += [
        ("iou_prediction_head", "layers_0", "proj_out"),
        ("iou_prediction_head", "proj_in", "layers_0"),
    ]
    for mlp, *layers in narrow:
        first, second = (f"{_DECODER}{mlp}.{layer}" for layer in layers)
        width = config.mlp_dim if "transformer" in mlp else config.iou_head_hidden_dim
        small |= narrow_layer(small, first, second, hidden[first], width)
    return {name: value.astype(np.float32) for name, value in small.items()}


def hidden_neurons(model: Sam2Model, batches: Iterable[Batch]) -> dict[str, np.ndarray]:
    """What neurons of the decoder's MLPs give, [N, neurons], by the name of the layer that they belong to."""
    seen: dict[str, list[np.ndarray]] = {}
    for number, batch in enumerate(batches):
        record = _record_decoder(model.module, model.params, batch, jax.random.key(number))
        for path, (value, *_) in flatten_dict(record, sep=".").items():
            neurons = np.maximum(np.asarray(value, np.float64), 0).reshape(-1, value.shape[-1])
            seen.setdefault(path.removesuffix(".__call__"), []).append(neurons)
    return {name: np.concatenate(values) for name, values in seen.items()}


@partial(jax.jit, static_argnames="module")
def _record_decoder(module: Sam2, params: Any, batch: Batch, key: jax.Array) -> Any:
    """What the first layers of the decoder's MLPs give for the first prompts of a batch."""
    embeddings = module.apply({"params": params}, batch.pixel_values, method="encode_image")
    positions = module.apply({"params": params}, method="image_positions")
    options = PromptOptions(correction_rounds=0)
    prompts = first_prompts(key, batch.masks > 0.5, batch.pixel_values.shape[1:3], options)

    def wanted(layer: Any, _: str) -> bool:
        is_read = layer.path[-2] in ("mlp", "iou_prediction_head")
        return isinstance(layer, Dense) and is_read and layer.name in ("proj_in", "layers_0")

    _, record = module.apply(
        {"params": params},
        *(embeddings, positions, prompts),
        method=decode,
        capture_intermediates=wanted,
        mutable="intermediates",
    )
    return record["intermediates"]


def narrow_attention(flat: Flat, name: str, heads: int, inner: int) -> Flat:
    """An attention's parameters with `inner` channels inside: of each head what has the largest effect.

    Scores depend on the product of the projections of queries and keys, the result on that of values and
    output. Each product is replaced by the nearest one of lower rank (Eckart & Young 1936).
    """
    query, key, value = (
        np.concatenate([flat[f"{name}.{x}_proj.kernel"], flat[f"{name}.{x}_proj.bias"][None]]) for x in "qkv"
    )
    output = flat[f"{name}.o_proj.kernel"]
    rank, before = inner // heads, query.shape[1] // heads
    # Scores are divided by the root of a head's width, which is now another.
    share = (rank / before) ** 0.25
    parts: dict[str, list[np.ndarray]] = {x: [] for x in "qkvo"}
    for head in range(heads):
        channels = slice(head * before, (head + 1) * before)
        left, right = _lower_rank(query[:, channels], key[:, channels].T, rank)
        parts["q"].append(share * left)
        parts["k"].append(share * right.T)
        left, right = _lower_rank(value[:, channels], output[channels], rank)
        parts["v"].append(left)
        parts["o"].append(right)
    narrow = {f"{name}.o_proj.kernel": np.concatenate(parts["o"])}
    for x in "qkv":
        joined = np.concatenate(parts[x], axis=1)
        narrow |= {f"{name}.{x}_proj.kernel": joined[:-1], f"{name}.{x}_proj.bias": joined[-1]}
    return narrow


def _lower_rank(left: np.ndarray, right: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Two matrices of this rank whose product is nearest to left @ right."""
    u, sizes, v = np.linalg.svd(left @ right, full_matrices=False)
    root = np.sqrt(sizes[:rank])
    return u[:, :rank] * root, root[:, None] * v[:rank]


def narrow_layer(flat: Flat, first: str, second: str, hidden: np.ndarray, width: int) -> Flat:
    """Two layers with `width` neurons between them: those that matter most, the rest made up for by them.

    hidden: what the neurons between the layers give, [N, neurons], by which the second layer is fitted anew.
    """
    kernel = flat[f"{second}.kernel"]
    effect = hidden.std(axis=0) * np.linalg.norm(kernel, axis=1)
    kept = np.sort(np.argsort(-effect)[:width])
    inputs, wanted = hidden[:, kept] - hidden[:, kept].mean(axis=0), hidden @ kernel
    square = inputs.T @ inputs
    ridge = 1e-3 * np.trace(square) / width * np.eye(width)
    fitted = np.linalg.solve(square + ridge, inputs.T @ (wanted - wanted.mean(axis=0)))
    bias = flat[f"{second}.bias"] + wanted.mean(axis=0) - hidden[:, kept].mean(axis=0) @ fitted
    return {
        f"{first}.kernel": flat[f"{first}.kernel"][:, kept],
        f"{first}.bias": flat[f"{first}.bias"][kept],
        f"{second}.kernel": fitted,
        f"{second}.bias": bias,
    }
