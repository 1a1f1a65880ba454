"""The assembled video network: the image network, memory attention and memory encoder, as compiled steps.

A frame is encoded once for all of its objects. An object's prompt, or the memories of it, then give its mask,
and that mask a memory of the frame. The steps keep nothing: what is remembered is a `VideoState`, and which
of it a frame sees is a `Plan`.

Source: Ravi et al. 2024, SAM 2: Segment Anything in Images and Videos (arXiv:2408.00714); transformers
Sam2VideoModel.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import export

from sam2_jax.config import Sam2VideoConfig
from sam2_jax.model.layers import MLP, Dense, one_by_one
from sam2_jax.model.mask_decoder import NO_MASK, MaskPrediction
from sam2_jax.model.memory_attention import Memories, MemoryAttention
from sam2_jax.model.memory_bank import FrameOutput, Plan, TrackedFrame, VideoState, store
from sam2_jax.model.memory_encoder import MemoryEncoder
from sam2_jax.model.platforms import for_each_platform, on_cpu
from sam2_jax.model.positions import sine_offsets
from sam2_jax.model.prompt_encoder import NOT_A_POINT
from sam2_jax.model.sam2 import Sam2

# Maps of fewer positions fit a CPU's cache for several objects at once.
_LARGE_MAP = 32 * 32
# The logits of a mask that a user gives: outside and inside.
_GIVEN_LOGIT = 10.0


class FrameFeatures(NamedTuple):
    """What B frames are to all of their objects.

    fine, middle, coarse: [B, 4 h, 4 w, C / 8], [B, 2 h, 2 w, C / 4], [B, h, w, C], the last without the
    embedding that says: no memory. tokens [B, S, C] and query [B, S, heads, d]: what the memory attention
    begins with. projected: [B, h, w, C], the features as the memory encoder adds masks to them.
    """

    fine: jax.Array
    middle: jax.Array
    coarse: jax.Array
    tokens: jax.Array
    query: jax.Array
    projected: jax.Array


export.register_namedtuple_serialization(FrameFeatures, serialized_name="sam2_jax.FrameFeatures")


class Sam2Video(Sam2):
    """SAM 2's video network as a pure function of its parameters, and the image network in it.

    Parameters are named as in transformers' checkpoints. `dtype` is the computing type, float32 or bfloat16;
    mask logits, scores and pointers are float32 in any case.
    """

    config: Sam2VideoConfig

    def setup(self) -> None:
        super().setup()
        config = self.config
        config.check_network()
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width, channels = config.vision_config.fpn_hidden_size, config.memory_encoder_output_channels
        self.memory_attention = MemoryAttention(config, **types)
        self.memory_encoder = MemoryEncoder(config, **types)
        self.object_pointer_proj = MLP((width, width, width), **types)
        self.mask_downsample = nn.Conv(1, (4, 4), (4, 4), "VALID", param_dtype=self.param_dtype)
        normal = nn.initializers.normal(config.initializer_range)

        def table(name: str, *shape: int) -> jax.Array:
            return self.param(name, normal, shape, self.param_dtype)

        self.temporal_rows = table("memory_temporal_positional_encoding", config.num_maskmem, 1, 1, channels)
        self.no_object_pointer = table("no_object_pointer", 1, width)
        table("no_memory_positional_encoding", 1, 1, width)  # in all checkpoints, and read by nothing
        self.occlusion_embedding = None
        if config.enable_occlusion_spatial_embedding:
            self.occlusion_embedding = table("occlusion_spatial_embedding_parameter", 1, channels)
        self.temporal_positional_encoding_projection_layer = None
        if config.enable_temporal_pos_encoding_for_object_pointers:
            self.temporal_positional_encoding_projection_layer = Dense(
                width, channels, param_dtype=self.param_dtype
            )

    @for_each_platform
    def encode_frame(self, pixels: jax.Array) -> FrameFeatures:
        """Encode frames, pixels [B, H, W, 3]; all other steps take one frame, B = 1."""
        fine, middle, coarse = self.image_features(pixels).levels
        tokens, query = self.memory_attention.prepare(coarse)
        return FrameFeatures(fine, middle, coarse, tokens, query, self.memory_encoder.project(coarse))

    @for_each_platform
    def condition(self, features: FrameFeatures, state: VideoState, plan: Plan) -> jax.Array:
        """Condition a frame on the memories of each of P objects: [P, h, w, C]."""
        return self._object_by_object(Sam2Video._condition, features, _seen(state, plan))

    @for_each_platform
    def prompt_step(
        self,
        features: FrameFeatures,
        points: jax.Array,
        labels: jax.Array,
        mask: jax.Array | None = None,
        conditioned: jax.Array | None = None,
        *,
        multimask: bool,
    ) -> FrameOutput:
        """Segment P objects by clicks and boxes.

        points [P, N, 2], labels [P, N]: as `PromptEncoder` has them. mask: logits of an earlier mask to be
        refined, [P, 4 h, 4 w], at most 32 either way. conditioned: of `condition`; None where nothing is
        remembered of the objects. multimask: take the best of several masks (see uses_multimask of the
        configuration).
        """
        return self.choose(self.predict(features, points, labels, mask, conditioned), multimask)[0]

    @for_each_platform
    def predict(
        self,
        features: FrameFeatures,
        points: jax.Array,
        labels: jax.Array,
        mask: jax.Array | None = None,
        conditioned: jax.Array | None = None,
    ) -> MaskPrediction:
        """Give all the decoder's outputs for P objects of a frame, B = 1, the single mask first.

        Arguments are those of `prompt_step`. With `no_points` this is what tracking predicts.
        """
        if conditioned is None:
            conditioned = features.coarse + self.no_memory_embedding[None].astype(self.dtype)
            conditioned = jnp.broadcast_to(conditioned, (points.shape[0], *conditioned.shape[1:]))
        height, width = conditioned.shape[1:3]
        masks = None if mask is None else mask[None]
        sparse, token_mask, dense = self.encode_prompts(points[None], labels[None], masks, (height, width))
        # The decoder adds the dense prompt, of each object, to the image, of all: only their sum counts.
        return self.mask_decoder(
            (features.fine, features.middle, jnp.zeros_like(features.coarse)),
            self.shared_image_embedding.grid(height, width),
            sparse,
            dense + conditioned[None],
            token_mask,
            multimask_output=True,
        )

    def choose(
        self,
        prediction: MaskPrediction,
        multimask: bool,
        expected: tuple[jax.Array, jax.Array] | None = None,
    ) -> tuple[FrameOutput, jax.Array]:
        """Choose each object's mask of a prediction, B = 1: the best of several, or the single one.

        expected: see `Plan`. Returns the logits of all masks there were to choose from too, [P, M, 4 h, 4 w].
        """
        masks, ious, tokens, scores = self.mask_decoder.select(prediction, multimask)
        merit = ious[0]
        if expected is not None:
            boxes, weight = expected
            merit = weight[:, None] * overlaps(masks[0] > 0, boxes) + (1 - weight[:, None]) * merit
        best = merit.argmax(axis=-1)
        low, iou, token = (
            jax.vmap(lambda own, i: jax.lax.dynamic_index_in_dim(own, i, keepdims=False))(x[0], best)
            for x in (masks, ious, tokens)
        )
        score = scores[0, :, 0]
        is_there = score > 0
        pointer = self.object_pointer_proj(token).astype(jnp.float32)
        output = FrameOutput(
            low=jnp.where(is_there[:, None, None], low, NO_MASK),
            pointer=jnp.where(is_there[:, None], pointer, self._no_object_pointer()),
            score=score,
            iou=iou,
        )
        return output, masks[0]

    @for_each_platform
    def mask_step(self, features: FrameFeatures, mask: jax.Array) -> FrameOutput:
        """Take masks [P, H, W] of 0 and 1, of the network's input size, for what P objects are.

        As in Meta's code the decoder gives no more than the pointer; iou is 1.
        """
        mask = mask.astype(jnp.float32)
        objects, height, width = mask.shape
        logits = (2 * mask - 1) * _GIVEN_LOGIT
        low = jax.image.resize(logits, (objects, height // 4, width // 4), "bilinear", antialias=True)
        prompt = self.mask_downsample(mask[..., None])[..., 0]
        conditioned = jnp.broadcast_to(features.coarse, (objects, *features.coarse.shape[1:]))
        prediction = self.predict(features, *no_points(objects), prompt, conditioned)
        output, _ = self.choose(prediction, multimask=False)
        is_there = (mask > 0).any(axis=(1, 2))
        return FrameOutput(
            low=low,
            pointer=jnp.where(is_there[:, None], output.pointer, self._no_object_pointer()),
            score=(2 * is_there.astype(jnp.float32) - 1) * _GIVEN_LOGIT,
            iou=jnp.ones(objects, jnp.float32),
        )

    @for_each_platform
    def remember(
        self, features: FrameFeatures, low: jax.Array, score: jax.Array, is_binary: jax.Array
    ) -> jax.Array:
        """Encode a frame and P objects' masks on it as memories, float32 [P, S, D].

        low [P, 4 h, 4 w] and score [P] are of a `FrameOutput`; is_binary: bool [P], objects that were
        prompted here, whose masks count as yes or no.
        """
        return self._object_by_object(Sam2Video._remember, features, (low, score, is_binary))

    @for_each_platform
    def track_step(
        self, features: FrameFeatures, state: VideoState, plan: Plan, *, with_candidates: bool = False
    ) -> tuple[VideoState, TrackedFrame]:
        """Segment the objects to be tracked by what is remembered of them, and remember the frame.

        Of the others nothing is written. with_candidates: give the logits of all masks too.
        """
        seen = _seen(state, plan), jnp.asarray(plan.tracked), plan.expected
        track = partial(Sam2Video._track, with_candidates=with_candidates)
        output, memory, candidates = self._object_by_object(track, features, seen)
        memory = memory.astype(state.memory.dtype)
        state = store(state, plan.slot, plan.pointer_slot, plan.tracked, memory, output.pointer)
        return state, TrackedFrame(output, memory, candidates)

    def every_step(self, pixels: jax.Array) -> None:
        """Call all parts of the network on a frame [1, H, W, 3], so that their parameters are made."""
        features = self.encode_frame(pixels)
        state = VideoState.empty(self.config.with_image_size(pixels.shape[1:3]), 1, 1)
        output = self.mask_step(features, jnp.zeros((1, *pixels.shape[1:3])))
        self.remember(features, output.low, output.score, jnp.zeros(1, bool))
        self.condition(features, state, Plan.blank(state))

    def _object_by_object(self, step: Any, features: FrameFeatures, of_objects: Any) -> Any:
        """Call step(self, of_objects, features) for all objects, on a CPU for one after the other."""
        objects = jax.tree.leaves(of_objects)[0].shape[0]
        step = partial(step, features=features)
        if objects == 1 or not self._is_cut(features):
            return step(self, of_objects)
        return one_by_one(self, step, of_objects, 0, objects)

    def _is_cut(self, features: FrameFeatures) -> bool:
        """Whether objects go one by one, and only those that are to be tracked: large maps on a CPU."""
        height, width = features.coarse.shape[1:3]
        return not self.is_initializing() and height * width >= _LARGE_MAP and on_cpu()

    def _condition(self, seen: "_Seen", features: FrameFeatures) -> jax.Array:
        height, width, channels = features.coarse.shape[1:]
        x = self.memory_attention(features.tokens, features.query, self._memories(seen), (height, width))
        return x.reshape(-1, height, width, channels)

    def _memories(self, seen: "_Seen") -> Memories:
        """Give memories and pointers their places in time."""
        objects, count, width = seen.pointer.shape
        channels = seen.memory.shape[-1]
        pieces = width // channels

        def by_piece(x: jax.Array) -> jax.Array:
            return x.repeat(pieces, axis=1)

        rows = self.temporal_rows.astype(jnp.float32).reshape(-1, channels)
        if self.temporal_positional_encoding_projection_layer is None:
            offsets = jnp.zeros((objects, count, channels), jnp.float32)
        else:
            offsets = self.temporal_positional_encoding_projection_layer(sine_offsets(seen.offset, width))
        return Memories(
            spatial=seen.memory,
            offsets=rows[seen.row][:, :, None],
            valid=seen.valid,
            pointers=seen.pointer.reshape(objects, count * pieces, channels),
            pointer_offsets=by_piece(offsets),
            pointer_valid=by_piece(seen.pointer_valid),
        )

    def _no_object_pointer(self) -> jax.Array:
        return self.no_object_pointer.astype(jnp.float32)

    def _remember(self, of_objects: tuple[jax.Array, ...], features: FrameFeatures) -> jax.Array:
        low, score, is_binary = of_objects
        objects, height, width = low.shape
        high = jax.image.resize(low, (objects, 4 * height, 4 * width), "bilinear", antialias=False)
        inside = jnp.where(is_binary[:, None, None], (high > 0).astype(jnp.float32), nn.sigmoid(high))
        config = self.config
        masks = inside * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
        memory = self.memory_encoder(features.projected, masks).astype(jnp.float32)
        if self.occlusion_embedding is not None:
            embedding = self.occlusion_embedding.astype(jnp.float32)[None, None]
            memory = memory + jnp.where(score[:, None, None, None] > 0, 0.0, embedding)
        return memory.reshape(objects, -1, memory.shape[-1])

    def _track(
        self, of_objects: tuple["_Seen", jax.Array, Any], features: FrameFeatures, with_candidates: bool
    ) -> Any:
        """Output and memory of objects; a single one, as a CPU takes them, only if it is to be tracked."""
        seen, is_tracked, expected = of_objects
        track = partial(Sam2Video._track_all, features=features, with_candidates=with_candidates)
        if is_tracked.shape != (1,) or not self._is_cut(features):
            return track(self, seen, expected)
        like = jax.eval_shape(partial(track, self), seen, expected)

        def leave(module: Sam2Video, seen: _Seen, expected: Any) -> Any:
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)

        return nn.cond(is_tracked[0], track, leave, self, seen, expected)

    def _track_all(
        self, seen: "_Seen", expected: Any, features: FrameFeatures, with_candidates: bool
    ) -> tuple[FrameOutput, jax.Array, jax.Array | None]:
        conditioned = self._condition(seen, features)
        objects = conditioned.shape[0]
        prediction = self.predict(features, *no_points(objects), None, conditioned)
        output, candidates = self.choose(prediction, self.config.uses_multimask(0), expected)
        memory = self._remember((output.low, output.score, jnp.zeros(objects, bool)), features)
        return output, memory, candidates if with_candidates else None


class _Seen(NamedTuple):
    """What is seen of P objects: the first n slots and m pointers of a state, and a plan's word on them."""

    memory: jax.Array
    pointer: jax.Array
    row: jax.Array
    valid: jax.Array
    offset: jax.Array
    pointer_valid: jax.Array


def _seen(state: VideoState, plan: Plan) -> _Seen:
    slots, pointers = plan.row.shape[1], plan.offset.shape[1]
    places = map(jnp.asarray, (plan.row, plan.valid, plan.offset, plan.pointer_valid))
    return _Seen(state.memory[:, :slots], state.pointer[:, :pointers], *places)


def no_points(objects: int) -> tuple[jax.Array, jax.Array]:
    """The prompt of a frame without one: a point [P, 1, 2] with a label [P, 1] that says it is none."""
    return jnp.zeros((objects, 1, 2), jnp.float32), jnp.full((objects, 1), NOT_A_POINT, jnp.int32)


def resize_mask(mask: jax.Array, image_size: tuple[int, int]) -> jax.Array:
    """Masks [P, H, W], bool or 0 ... 1, at the network's input size, (height, width), as 0 and 1."""
    mask = mask.astype(jnp.float32)
    if mask.shape[1:] == tuple(image_size):
        return mask
    resized = jax.image.resize(mask, (mask.shape[0], *image_size), "bilinear", antialias=True)
    return (resized >= 0.5).astype(jnp.float32)


def overlaps(masks: jax.Array, boxes: jax.Array) -> jax.Array:
    """IoU [P, M] of the boxes around masks, bool [P, M, H, W], with boxes (x0, y0, x1, y1), [P, 4].

    In pixels, whose right and lower edges belong to them; 0 for a mask of nothing.
    """
    height, width = masks.shape[-2:]
    x0, x1 = _extent(masks.any(axis=-2), width)
    y0, y1 = _extent(masks.any(axis=-1), height)
    left, top, right, bottom = (boxes[:, None, i] for i in range(4))
    across = jnp.maximum(jnp.minimum(x1, right) - jnp.maximum(x0, left), 0)
    down = jnp.maximum(jnp.minimum(y1, bottom) - jnp.maximum(y0, top), 0)
    union = (x1 - x0) * (y1 - y0) + (right - left) * (bottom - top) - across * down
    found = across * down / jnp.maximum(union, 1e-6)
    return jnp.where(masks.any(axis=(-2, -1)), found, 0.0)


def _extent(is_inside: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
    """First place inside and the one behind the last, float32, along the last axis."""
    first = is_inside.argmax(axis=-1).astype(jnp.float32)
    return first, length - is_inside[..., ::-1].argmax(axis=-1).astype(jnp.float32)
