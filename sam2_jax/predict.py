"""`Sam2Model`: configuration, parameters and compiled calls behind one object."""

from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from sam2_jax.arguments import (
    bucket,
    check_embeddings,
    check_masks,
    check_pixels,
    check_similarity,
    check_target,
    join_prompts,
    pad_prompts,
    take_objects,
)
from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.files import read_weights, write_checkpoint
from sam2_jax.config import Sam2Config, Sam2VideoConfig, read_config
from sam2_jax.hub import HubFolder
from sam2_jax.model.sam2 import ImageEmbeddings, Sam2

PADDING_MODES = ("masked", "transformers")
# More objects than this are decoded in several calls, so that memory stays bounded.
_OBJECTS_PER_CALL = 64


@flax.struct.dataclass
class Sam2ImageSegmentationOutput:
    """What the model predicts for P objects in each of B images, M masks for each object.

    iou_scores: predicted IoU [B, P, M], float32 in [0, 1]. pred_masks: logits [B, P, M, H/4, W/4], float32.
    object_score_logits: [B, P, 1], positive where the object is present. image_embeddings: what the image
    encoder returned, to be passed back for more prompts on the same images. On request, vision_hidden_states:
    each block's input and the last output [B, h, w, C]; vision_attentions: each block's weights
    [B, windows, heads, queries, keys]; mask_decoder_attentions: weights [B, P, heads, queries, keys] by the
    attention's name, `layers.0.self_attn` and so on.
    """

    iou_scores: jax.Array
    pred_masks: jax.Array
    object_score_logits: jax.Array
    image_embeddings: ImageEmbeddings
    vision_hidden_states: tuple[jax.Array, ...] | None = None
    vision_attentions: tuple[jax.Array, ...] | None = None
    mask_decoder_attentions: dict[str, jax.Array] | None = None


@partial(jax.jit, static_argnames=("module", "record"))
def _encode(module: Sam2, params: Any, pixel_values: jax.Array, record: tuple[str, ...]) -> Any:
    return module.apply({"params": params}, pixel_values, method="encode_image", mutable=list(record))


@partial(jax.jit, static_argnames=("module", "record", "multimask_output", "mask_padding"))
def _decode(
    module: Sam2,
    params: Any,
    *prompts: Any,
    record: tuple[str, ...],
    multimask_output: bool,
    mask_padding: bool,
) -> Any:
    return module.apply(
        {"params": params},
        *prompts,
        method="decode_masks",
        mutable=list(record),
        multimask_output=multimask_output,
        mask_padding=mask_padding,
    )


@partial(jax.jit, static_argnames="objects")
def _first_objects(tree: Any, objects: int) -> Any:
    """Drop padded objects: one small program for each number of objects, where slicing eagerly takes four."""
    return jax.tree.map(lambda x: x[:, :objects], tree)


class Sam2Model:
    """SAM 2 for images. `config`, `params` and `module` (a pure Flax module) are there for direct use.

    padding="masked" hides the padding of ragged prompts from attention, so that an object's result does not
    depend on its neighbours; padding="transformers" reproduces the reference, where it does.
    """

    def __init__(
        self,
        config: Sam2Config | None = None,
        params: Mapping[str, Any] | None = None,
        *,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        padding: str = "masked",
        seed: int = 0,
    ) -> None:
        """Build from a configuration and a parameter tree; random parameters from `seed` if params is None.

        dtype is the computing type, float32 or bfloat16; param_dtype that of random or loaded parameters.
        """
        if padding not in PADDING_MODES:
            raise ValueError(f"padding must be one of {PADDING_MODES}; got {padding!r}")
        if config is not None and not isinstance(config, Sam2Config):
            raise ValueError(
                f"config must be a Sam2Config or None; got {type(config).__name__}. For a hub id or folder: "
                "Sam2Model.from_pretrained"
            )
        for name, value in (("dtype", dtype), ("param_dtype", param_dtype)):
            _check_dtype(name, value)
        self.config = Sam2Config() if config is None else config
        self.padding = padding
        self.module = Sam2(self.config, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(param_dtype))
        if params is None:
            self.params = _random_params(self.module, seed)
        else:
            names.check_names(parameter_shapes(self.config), names.shapes(names.flatten(params)), "params")
            self.params = jax.tree.map(jnp.asarray, params)  # on the device once, not at every call

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        layout: str | None = None,
        padding: str = "masked",
    ) -> Self:
        """Load a model from a hub id or a local folder.

        Image (`sam2`) and video (`sam2_video`) checkpoints are read, whole or sharded, in transformers' or
        Flax layout; the memory of a video checkpoint is set aside. revision pins a commit, tag or branch.
        local_files_only never touches the network. Raises ValueError if the model cannot be found or reached,
        a file is broken, or names and shapes do not fit the configuration exactly.
        """
        folder = HubFolder(model, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        config = read_config(folder.get("config.json"))
        if isinstance(config, Sam2VideoConfig):
            config = config.image_config
        layout, paths = folder.weights(layout)
        flat, _ = read_weights(layout, paths, jnp.dtype(param_dtype))
        expected, found = parameter_shapes(config), names.shapes(flat)
        if layout == "transformers":  # so that an error speaks of the names and shapes in the file
            expected, found = names.torch_shapes(expected), names.torch_shapes(found)
        names.check_names(expected, found, f"checkpoint {model}")
        return cls(config, names.unflatten(flat), dtype=dtype, param_dtype=param_dtype, padding=padding)

    def save_pretrained(self, folder: str | Path, *, layout: str = "flax") -> None:
        """Write config.json and the weights to a folder, in layout "flax" or "transformers".

        What transformers' `Sam2Model.from_pretrained` loads of the latter gives the same numbers. An
        interrupted save leaves older files whole. Raises ValueError if the folder cannot be written.
        """
        flat = {name: np.asarray(value) for name, value in names.flatten(self.params).items()}
        write_checkpoint(folder, flat, self.config, layout)

    def get_image_embeddings(self, pixel_values: Any) -> ImageEmbeddings:
        """Encode images once for many prompts; pixel_values [B, H, W, 3] as the processor returns them.

        Returns [B, H/4, W/4, C/8], [B, H/8, W/8, C/4] and [B, H/16, W/16, C].
        """
        return self._encode(pixel_values)[0]

    def __call__(
        self,
        pixel_values: Any = None,
        input_points: Any = None,
        input_labels: Any = None,
        input_boxes: Any = None,
        input_masks: Any = None,
        image_embeddings: ImageEmbeddings | None = None,
        multimask_output: bool = True,
        attention_similarity: Any = None,
        target_embedding: Any = None,
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        original_sizes: Any = None,
    ) -> Sam2ImageSegmentationOutput:
        """Segment the prompted objects.

        pixel_values [B, H, W, 3], or image_embeddings of an earlier call: exactly one of them.
        input_points [B, P, N, 2], (x, y) in pixels of the network's input, with input_labels [B, P, N]: 1 on
        the object, 0 off it, -1 not a point, -10 padding; all 1 if omitted.
        input_boxes [B, P, 4], (x0, y0, x1, y1).
        input_masks: logits [B, 1, h, w] for all objects of an image, or [B, P, h, w] for each.
        multimask_output: three masks for each object, in the network's order, or the one it stands by.
        attention_similarity [B, P, heads, T, h * w] and target_embedding [B, P, T, C] (1 where they repeat)
        steer attention as PerSAM does; T is 6 output tokens, the prompts, one not-a-point.
        original_sizes is accepted and unused, so that all the processor returns can be passed on.

        Raises ValueError for shapes, labels or numbers that cannot be meant.
        """
        if (pixel_values is None) == (image_embeddings is None):
            raise ValueError("exactly one of pixel_values and image_embeddings must be given")
        recorded: dict[str, Any] = {}
        if image_embeddings is None:
            image_embeddings, recorded = self._encode(pixel_values, output_hidden_states, output_attentions)
        else:
            image_embeddings = check_embeddings(image_embeddings, self.config)
        batch = image_embeddings[0].shape[0]
        masks = check_masks(input_masks, batch)
        objects_of_masks = 1 if masks is None else masks.shape[1]
        points, labels = join_prompts(input_points, input_labels, input_boxes, batch, objects_of_masks)
        if masks is not None and masks.shape[1] not in (1, points.shape[1]):
            raise ValueError(
                f"input_masks must have 1 mask for an image or one for each of {points.shape[1]} objects; "
                f"got {masks.shape[1]}"
            )
        decoder = self.config.mask_decoder_config
        tokens = decoder.num_multimask_outputs + 3 + points.shape[2] + 1  # outputs, prompts, a not-a-point
        keys = int(np.prod(image_embeddings[2].shape[1:3]))
        lead = points.shape[:2]
        bias = check_similarity(attention_similarity, (*lead, decoder.num_attention_heads, tokens, keys))
        target = check_target(target_embedding, (*lead, tokens, decoder.hidden_size))

        # Tensors laid out by token, and the reference's own padding, leave no room for ours.
        as_given = output_attentions or self.padding == "transformers"
        if not as_given and bias is None and target is None:
            points, labels = pad_prompts(points, labels, points.shape[1], bucket(points.shape[2], 4))

        outputs = []
        for start in range(0, points.shape[1], _OBJECTS_PER_CALL):
            chunk = slice(start, start + _OBJECTS_PER_CALL)
            outputs.append(
                self._decode(
                    image_embeddings,
                    points[:, chunk],
                    labels[:, chunk],
                    *(take_objects(x, chunk) for x in (masks, bias, target)),
                    multimask_output=multimask_output,
                    record=("attentions",) if output_attentions else (),
                )
            )
        prediction, attentions = outputs[0]
        if len(outputs) > 1:
            prediction, attentions = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *outputs)
        return Sam2ImageSegmentationOutput(
            iou_scores=prediction.iou_scores,
            pred_masks=prediction.masks,
            object_score_logits=prediction.object_score_logits,
            image_embeddings=image_embeddings,
            vision_hidden_states=_vision_record(recorded, "hidden_states", self.config),
            vision_attentions=_vision_record(recorded, "attentions", self.config),
            mask_decoder_attentions=_decoder_attentions(attentions) if output_attentions else None,
        )

    def _encode(
        self, pixel_values: Any, hidden_states: bool = False, attentions: bool = False
    ) -> tuple[ImageEmbeddings, dict[str, Any]]:
        wanted = {"hidden_states": hidden_states, "attentions": attentions}
        record = tuple(name for name, is_wanted in wanted.items() if is_wanted)
        return _encode(self.module, self.params, check_pixels(pixel_values, self.config), record)

    def _decode(
        self,
        embeddings: ImageEmbeddings,
        points: np.ndarray,
        labels: np.ndarray,
        masks: Any,
        bias: Any,
        target: Any,
        *,
        multimask_output: bool,
        record: tuple[str, ...],
    ) -> Any:
        """Decode up to _OBJECTS_PER_CALL objects, their number padded to a compiled one and cut again."""
        objects = points.shape[1]
        padded = objects if record or self.padding == "transformers" else bucket(objects, 2)
        points, labels = pad_prompts(points, labels, padded, points.shape[2])

        def fill(x: Any) -> Any:
            if x is None or x.shape[1] == 1 or padded == objects:
                return x
            return jnp.pad(x, [(0, padded - objects) if axis == 1 else (0, 0) for axis in range(x.ndim)])

        prediction, recorded = _decode(
            self.module,
            self.params,
            embeddings,
            points,
            labels,
            *(fill(x) for x in (masks, bias, target)),
            record=record,
            multimask_output=multimask_output,
            mask_padding=self.padding == "masked",
        )
        result = prediction, dict(recorded)
        return result if padded == objects else _first_objects(result, objects)


def _check_dtype(name: str, dtype: Any) -> None:
    try:
        is_supported = jnp.dtype(dtype) in (jnp.float32, jnp.bfloat16)
    except TypeError:
        is_supported = False
    if not is_supported:
        raise ValueError(f"{name} must be float32 or bfloat16; got {dtype!r}")


@lru_cache
def parameter_shapes(config: Sam2Config) -> dict[str, tuple[int, ...]]:
    """Names (levels joined by dots) and shapes of the network's parameters, without computing any."""
    tree = jax.eval_shape(lambda: _init(Sam2(config), jax.random.key(0)))
    return names.shapes(names.flatten(tree))


def _init(module: Sam2, key: jax.Array) -> Any:
    # No parameter depends on the image's size: the smallest one compiles fastest.
    pixels = jnp.zeros((1, *module.config.stride, module.config.vision_config.backbone_config.num_channels))
    return module.init(key, pixels, jnp.zeros((1, 1, 1, 2)), jnp.zeros((1, 1, 1), jnp.int32))["params"]


def _random_params(module: Sam2, seed: int) -> Any:
    return jax.jit(partial(_init, module))(jax.random.key(seed))


def _vision_record(
    recorded: Mapping[str, Any], collection: str, config: Sam2Config
) -> tuple[jax.Array, ...] | None:
    if collection not in recorded:
        return None
    backbone = recorded[collection]["vision_encoder"]["backbone"]
    if collection == "hidden_states":
        return backbone["tokens"][0]
    blocks = sum(config.vision_config.backbone_config.blocks_per_stage)
    return tuple(backbone[f"blocks_{i}"]["attn"]["weights"][0] for i in range(blocks))


def _decoder_attentions(recorded: Mapping[str, Any]) -> dict[str, jax.Array]:
    transformer = recorded["attentions"]["mask_decoder"]["transformer"]
    flat = names.flatten(
        jax.tree.map(lambda sown: sown[0], transformer, is_leaf=lambda x: isinstance(x, tuple))
    )
    return {names.torch_name(name).removesuffix(".weights"): value for name, value in flat.items()}
