"""What the models return: pytrees with the fields, and the manners, of transformers' outputs."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, cast

import flax.struct
import jax

from sam2_jax.model.sam2 import ImageEmbeddings


class ModelOutput(Mapping[str, Any]):
    """Named results that also answer to `outputs["name"]`, `outputs[0]`, `keys()` and `to_tuple()`.

    As in transformers, what was not asked for is None as an attribute and absent everywhere else.
    """

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the results that are there, in the order of their fields."""
        return tuple(self[name] for name in self)

    def or_tuple(self, return_dict: bool) -> Any:
        """Return these results themselves, or the tuple of them if return_dict is False."""
        return self if return_dict else self.to_tuple()

    def __getitem__(self, key: str | int | slice) -> Any:
        """Return a result by name, or one or several by position; KeyError for a name that is not there."""
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in tuple(self):
            raise KeyError(f"{key!r}: there are {', '.join(self)}")
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        """Names of the results that are there."""
        names = (field.name for field in fields(cast(Any, self)))
        return (name for name in names if getattr(self, name) is not None)

    def __len__(self) -> int:
        """Count the results that are there."""
        return sum(1 for _ in self)


@flax.struct.dataclass
class Sam2ImageSegmentationOutput(ModelOutput):
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


@flax.struct.dataclass
class Sam2VisionEncoderOutput(ModelOutput):
    """What the vision encoder makes of B images, channels last, in the model's dtype.

    last_hidden_state: the backbone's last map [B, H/32, W/32, 8 E], E being its first width. pooler_output:
    None, as there. On request, hidden_states: each block's input and the last output [B, h, w, C];
    attentions: each block's weights [B, windows, heads, queries, keys], float32. fpn_hidden_states: the
    pyramid's maps [B, H/s, W/s, C] at strides s of 4, 8 and 16. fpn_position_encoding: the sinusoidal
    position of every cell of these maps, [B, H/s, W/s, fpn_hidden_size], always float32.
    """

    last_hidden_state: jax.Array
    pooler_output: None = None
    hidden_states: tuple[jax.Array, ...] | None = None
    attentions: tuple[jax.Array, ...] | None = None
    fpn_hidden_states: tuple[jax.Array, ...] | None = None
    fpn_position_encoding: tuple[jax.Array, ...] | None = None


@flax.struct.dataclass
class Sam2HieraDetModelOutput(ModelOutput):
    """What the backbone makes of B images, channels last, in the model's dtype.

    last_hidden_state: the last block's map [B, H/32, W/32, 8 E], E being the first width.
    intermediate_hidden_states: the last map of each stage [B, H/s, W/s, C] at strides s of 4, 8, 16 and 32.
    On request, hidden_states: each block's input and the last output; attentions: each block's weights
    [B, windows, heads, queries, keys], float32.
    """

    last_hidden_state: jax.Array
    intermediate_hidden_states: tuple[jax.Array, ...]
    hidden_states: tuple[jax.Array, ...] | None = None
    attentions: tuple[jax.Array, ...] | None = None
