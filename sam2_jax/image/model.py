"""`Sam2Model`: prompts on images to masks."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from sam2_jax.checkpoint import names
from sam2_jax.checkpoint.pretrained import computed_at_once
from sam2_jax.checks import shown
from sam2_jax.config import Sam2Config
from sam2_jax.image.arguments import (
    Array,
    bucket,
    check_embeddings,
    check_flag,
    check_min_score,
    check_pixels,
    check_prompts,
    check_similarity,
    check_target,
    pad_objects,
    pad_prompts,
    take_objects,
)
from sam2_jax.image.batch import BatchResult, predict_batch
from sam2_jax.image.encoding import EncodingModel
from sam2_jax.image.generation_options import (
    MaskGenerationOptions,
    merge_options,
)
from sam2_jax.image.outputs import Sam2ImageSegmentationOutput
from sam2_jax.image.rehearsal import (
    USES,
    Sizes,
    check_flags,
    check_sizes,
    check_uses,
    rehearse,
    time_each,
)
from sam2_jax.image.session import ImagePredictor
from sam2_jax.image.vision import wanted_records
from sam2_jax.model.sam2 import ImageEmbeddings
from sam2_jax.processing.processor import Sam2Processor

PADDING_MODES = ("masked", "transformers")
# More objects than this are decoded in several calls, so that memory stays bounded.
_OBJECTS_PER_CALL = 64


@partial(jax.jit, static_argnames="objects")
def _joined(parts: list[Any], objects: int) -> Any:
    """Join the objects of several calls and drop padded ones: one small program for each number of them."""
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays, axis=1)[:, :objects], *parts)


class Sam2Model(EncodingModel[Sam2Config]):
    """SAM 2 for images. `config`, `params` and `module` (a pure Flax module) are there for direct use.

    padding="masked" hides the padding of ragged prompts from attention, so that an object's result does not
    depend on its neighbours; padding="transformers" reproduces the reference, where it does.
    """

    config_class = Sam2Config
    _of_batches = frozenset({"encode_image", "decode_masks"})

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
        self._check_options({"padding": padding})
        self.padding = padding
        super().__init__(config, params, dtype=dtype, param_dtype=param_dtype, seed=seed)

    @classmethod
    def _check_options(cls, options: Mapping[str, Any]) -> None:
        padding = options.get("padding", "masked")
        if padding not in PADDING_MODES:
            raise ValueError(f"padding must be one of {PADDING_MODES}; got {shown(padding)}")

    def with_image_size(self, image_size: int | Sequence[int]) -> "Sam2Model":
        """The same weights for inputs of another size: a side, or (height, width), multiples of 32.

        The processor does the same to a picture's values, for that size.
        """
        config = self.config.with_image_size(image_size)
        resized = Sam2Model(config, self.params, dtype=self.module.dtype, padding=self.padding)
        self._bring_along(resized)
        resized.generation_options = self.generation_options
        resized._resize_processor()
        return resized

    def with_params(self, params: Mapping[str, Any]) -> "Sam2Model":
        """The same model with other weights, trained ones say: its processor and its options stay."""
        other = Sam2Model(self.config, params, dtype=self.module.dtype, padding=self.padding)
        self._bring_along(other)
        return other

    def compile(
        self,
        batch_sizes: int | Sequence[int] = (1,),
        objects: int | Sequence[int] = (1,),
        points: int | Sequence[int] = (1,),
        *,
        input_masks: bool | Sequence[bool] = (False,),
        multimask_output: bool | Sequence[bool] = (True,),
        uses: str | Sequence[str] = USES,
        generator_options: MaskGenerationOptions | None = None,
        progress: bool = False,
    ) -> dict[str, float]:
        """Compile ahead of time what work of these sizes will run, so that its first run is as fast as any.

        batch_sizes: images in a call or batch. objects and points: objects of an image, points of an object
        (a box counts as two); 5, 6 and 8 objects are one program, since they are padded. input_masks: without
        and with a low-resolution mask for each object. multimask_output: as in a call.
        uses: "call" the model, "session" of clicks and boxes (`predictor`), `predict_"batch"` and "generate",
        the automatic mask generator, with the options that the model brings along or, from
        `AutomaticMaskGenerator.compile`, its own. Each use is rehearsed on blank pixels.
        progress shows a bar. Returns what was run and its seconds, which are few where it was compiled before
        or the compilation cache has it. Raises ValueError for sizes below 1 and unknown uses.
        """
        options = generator_options or MaskGenerationOptions(**merge_options(self.generation_options))
        sizes = Sizes(
            check_sizes("batch_sizes", batch_sizes),
            check_sizes("objects", objects),
            check_sizes("points", points),
            check_flags("input_masks", input_masks),
            check_flags("multimask_output", multimask_output),
        )
        return time_each(rehearse(self, sizes, check_uses(uses), options), progress)

    def predictor(
        self, photo: Any, processor: Sam2Processor | None = None, **post_processing: Any
    ) -> ImagePredictor:
        """Encode a photo once for an interactive session of prompts; arguments as of `ImagePredictor`."""
        return ImagePredictor(self, photo, processor, **post_processing)

    def predict_batch(self, work: Any, **options: Any) -> Iterator[BatchResult]:
        """Segment prompted objects in many photos; arguments as of `sam2_jax.image.batch.predict_batch`."""
        return predict_batch(self, work, **options)

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
        min_score: float | None = None,
        output_attentions: bool | None = False,
        output_hidden_states: bool | None = False,
        return_dict: bool | None = True,
        original_sizes: Any = None,
        labels: Any = None,
    ) -> Sam2ImageSegmentationOutput:
        """Segment the prompted objects.

        pixel_values [B, H, W, 3], or image_embeddings of an earlier call: exactly one of them.
        input_points [B, P, N, 2], (x, y) in pixels of the network's input, with input_labels [B, P, N]: 1 on
        the object, 0 off it, -1 not a point, -10 padding; all 1 if omitted.
        input_boxes [B, P, 4], (x0, y0, x1, y1), four NaN for an object without a box.
        input_masks: logits [B, 1, h, w] for all objects of an image, or [B, P, h, w] for each.
        multimask_output: three masks for each object, in the network's order, or the one it stands by.
        attention_similarity [B, P, heads, T, h * w] and target_embedding [B, P, T, C] (1 where they repeat)
        steer attention as PerSAM does; T is 6 output tokens, the prompts, one not-a-point.
        min_score: leave out the masks, whose logits are then -1024, of objects without a predicted IoU above
        it; on a CPU that saves a third of the time.
        original_sizes and labels are accepted and unused, so that all the processor returns can be passed on.

        All but the flags may be traced by JAX; then only shapes are checked.

        Returns the outputs, as a tuple of what is there if return_dict is False (None is True). Raises
        ValueError for shapes, labels or numbers that cannot be meant.
        """
        return_dict = check_flag("return_dict", return_dict, True)
        multimask_output = check_flag("multimask_output", multimask_output, True)
        record = wanted_records(output_hidden_states, output_attentions)
        least = check_min_score(min_score)
        if (pixel_values is None) == (image_embeddings is None):
            raise ValueError("exactly one of pixel_values and image_embeddings must be given")
        pixels: Any = None
        embeddings: Any = None
        if image_embeddings is None:
            pixels = check_pixels(pixel_values, self.config)
            batch = pixels.shape[0]
        else:
            embeddings = check_embeddings(image_embeddings, self.config)
            batch = embeddings[0].shape[0]
        points, kinds, masks = check_prompts(input_points, input_labels, input_boxes, input_masks, batch)
        decoder = self.config.mask_decoder_config
        tokens = decoder.num_multimask_outputs + 3 + points.shape[2] + 1  # outputs, prompts, a not-a-point
        keys = self._grid_size[0] * self._grid_size[1]
        lead = points.shape[:2]
        bias = check_similarity(attention_similarity, (*lead, decoder.num_attention_heads, tokens, keys))
        target = check_target(target_embedding, (*lead, tokens, decoder.hidden_size))

        recorded: dict[str, Any] = {}
        if pixels is not None:  # encoded last, so that no mistake above costs the time
            embeddings, recorded = self._run("encode_image", pixels, record=record)
        # Tensors laid out by token, and the reference's own padding, leave no room for ours.
        as_given = "attentions" in record or self.padding == "transformers"
        if not as_given and bias is None and target is None:
            points, kinds = pad_prompts(points, kinds, points.shape[1], bucket(points.shape[2], 4))

        objects = points.shape[1]
        parts = []
        for start in range(0, objects, _OBJECTS_PER_CALL):
            chunk = slice(start, start + _OBJECTS_PER_CALL)
            parts.append(
                self._decode(
                    embeddings,
                    points[:, chunk],
                    kinds[:, chunk],
                    *(take_objects(x, chunk) for x in (masks, bias, target)),
                    min_score=least,
                    multimask_output=multimask_output,
                    record=tuple(name for name in record if name == "attentions"),
                )
            )
        if len(parts) > 1 or parts[0][0].iou_scores.shape[1] > objects:
            with computed_at_once(parts):
                parts = [_joined(parts, objects)]
        prediction, attentions = parts[0]
        records = self._backbone_records(recorded)
        output = Sam2ImageSegmentationOutput(
            iou_scores=prediction.iou_scores,
            pred_masks=prediction.masks,
            object_score_logits=prediction.object_score_logits,
            image_embeddings=embeddings,
            vision_hidden_states=records.get("hidden_states"),
            vision_attentions=records.get("attentions"),
            mask_decoder_attentions=_decoder_attentions(attentions) if attentions else None,
        )
        return output.or_tuple(return_dict)

    forward = __call__

    def _decode(
        self,
        embeddings: ImageEmbeddings,
        points: Array,
        labels: Array,
        masks: Array | None,
        bias: Array | None,
        target: Array | None,
        *,
        min_score: Any,
        multimask_output: bool,
        record: tuple[str, ...],
    ) -> Any:
        """Decode up to _OBJECTS_PER_CALL objects, their number padded to one that is compiled."""
        objects = points.shape[1]
        if not record and self.padding != "transformers":
            objects = bucket(objects, 2)
        points, labels = pad_prompts(points, labels, objects, points.shape[2])
        prediction, recorded = self._run(
            "decode_masks",
            embeddings,
            points,
            labels,
            *(pad_objects(x, objects) for x in (masks, bias, target)),
            self.get_image_wide_positional_embeddings(),
            min_score,
            record=record,
            multimask_output=multimask_output,
            mask_padding=self.padding == "masked",
        )
        return prediction, dict(recorded)


def _decoder_attentions(recorded: Mapping[str, Any]) -> dict[str, jax.Array]:
    transformer = recorded["attentions"]["mask_decoder"]["transformer"]
    flat = names.flatten(
        jax.tree.map(lambda sown: sown[0], transformer, is_leaf=lambda x: isinstance(x, tuple))
    )
    return {names.torch_name(name).removesuffix(".weights"): value for name, value in flat.items()}
