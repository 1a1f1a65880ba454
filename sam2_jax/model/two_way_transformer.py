"""The two-way transformer between prompt tokens and image, with its attention re-associated to be cheap.

An image has K = 4096 tokens of C = 256 channels, a prompt only T of about 8, and attention between them has
H = 8 heads of D = 16: fewer token-heads, T x H = 64, than channels. So nothing is projected K long. For head
h with queries q, keys k, values v (Attention in arXiv:1706.03762),

    token to image:  q_h (x W_k,h + b)^T = (q_h W_k,h^T) x^T + q_h b^T     [T, C] x [C, K]
                     P_h (x W_v,h + b)   = (P_h x) W_v,h + b               [T, K] x [K, C]
    image to token:  (x W_q,h + b) k_h^T = x (W_q,h k_h^T) + b k_h^T       [K, C] x [C, T]
                     concat(P_h v_h) W_o = sum over h of P_h (v_h W_o,h)   [K, T] x [T, C]

where x is the image, P_h the softmax, whose rows sum to one, and q_h b^T, the same for all of a row, drops
out of it. The kernels are absorbed into the few tokens, and what is K long is multiplied once. Where many
prompts share one image, as in the first layer, its projections are carried out once for all of them and
the kernel that is left is the identity.

Source: Kirillov et al. 2023 (arXiv:2304.02643), appendix A; transformers Sam2TwoWayTransformer.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sam2_jax.config import Sam2MaskDecoderConfig
from sam2_jax.model.layers import (
    MLP,
    Dense,
    LayerNorm,
    Linear,
    attend,
    recording,
    unnormalised_softmax,
)

# torch's LayerNorm default, which the two-way transformer keeps where the rest of the network has 1e-6.
_EPSILON = 1e-5


class SelfAttention(nn.Module):
    """Multi-head attention among tokens. Source: Sam2Attention."""

    num_heads: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, query: jax.Array, value: jax.Array, bias: jax.Array | None = None) -> jax.Array:
        """Attend query [B, P, T, C], which is also the key, to value [B, P, T, C]; returns [B, P, T, C].

        bias, float32, is added to the scores [B, P, heads, T, T]. Sows the weights into "attentions".
        """
        width = query.shape[-1]
        init = nn.initializers.normal(0.02)

        def project(x: jax.Array, name: str) -> jax.Array:
            return Dense(x.shape[-1], width, self.dtype, self.param_dtype, init, name=name)(x)

        def heads(x: jax.Array, name: str) -> jax.Array:
            return project(x, name).reshape(*x.shape[:3], self.num_heads, width // self.num_heads)

        wanted = recording(self, "attentions")
        out, weights = attend(
            heads(query, "q_proj"),
            heads(query, "k_proj"),
            heads(value, "v_proj"),
            bias,
            return_weights=wanted,
        )
        if wanted:
            self.sow("attentions", "weights", weights)
        return project(out.reshape(query.shape), "o_proj")


class Projection(NamedTuple):
    """The image projected to heads, not carried out: x [B, P or 1, K, C], kernel [C, H, D], bias [H, D]."""

    x: jax.Array
    kernel: jax.Array
    bias: jax.Array

    def carried_out(self) -> jax.Array:
        """Multiply now, for many prompts to share: [B, P or 1, K, H * D]."""
        flat = Linear(self.kernel.reshape(self.kernel.shape[0], -1), self.bias.reshape(-1))
        return flat(self.x, self.x.dtype)

    @classmethod
    def of_carried_out(cls, x: jax.Array, heads: int) -> "Projection":
        """What is left to do with x [B, P or 1, K, H * D], carried out: the identity."""
        width = x.shape[-1]
        kernel = jnp.eye(width, dtype=x.dtype).reshape(width, heads, -1)
        return cls(x, kernel, jnp.zeros(kernel.shape[1:], x.dtype))


class CrossAttention(nn.Module):
    """What both directions of attention between tokens and image have in common. Source: Sam2Attention.

    Narrower inside than outside. Both sow their weights [B, P, heads, Q, K] into "attentions".
    """

    num_heads: int
    features: int
    inner_dim: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.q_proj, self.k_proj, self.v_proj = (
            Dense(self.features, self.inner_dim, **types) for _ in range(3)
        )
        self.o_proj = Dense(self.inner_dim, self.features, **types)

    def projection(self, name: str, x: jax.Array) -> Projection:
        """The image [B, P or 1, K, C] as seen through projection "q_proj", "k_proj" or "v_proj"."""
        linear: Linear = getattr(self, name).weights()
        kernel, bias = (p.astype(self.dtype) for p in linear)
        heads = self.num_heads, self.inner_dim // self.num_heads
        return Projection(x.astype(self.dtype), kernel.reshape(-1, *heads), bias.reshape(heads))

    def _heads(self, name: str, tokens: jax.Array) -> jax.Array:
        projected = getattr(self, name)(tokens)
        return projected.reshape(*tokens.shape[:3], self.num_heads, self.inner_dim // self.num_heads)

    def _record(self, weights: jax.Array) -> None:
        if recording(self, "attentions"):
            self.sow("attentions", "weights", weights)


class TokenToImageAttention(CrossAttention):
    """Tokens attend to the image."""

    def __call__(
        self, tokens: jax.Array, keys: Projection, values: Projection, bias: jax.Array | None = None
    ) -> jax.Array:
        """Attend tokens [B, P, T, C] to the image; returns [B, P, T, C]. bias is added to the scores."""
        query = self._heads("q_proj", tokens)
        query = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
        absorbed = jnp.einsum("bpthd,chd->bphtc", query, keys.kernel)
        scores = _product("bphtc,bpkc->bphtk", absorbed, keys.x)
        if bias is not None:
            scores = scores + bias
        weights = unnormalised_softmax(scores, axis=-1)
        total = weights.sum(axis=-1, keepdims=True)
        self._record(weights / total)
        mixed = _product("bphtk,bpkc->bphtc", weights.astype(self.dtype), values.x) / total
        out = jnp.einsum(
            "bphtc,chd->bpthd",
            mixed.astype(self.dtype),
            values.kernel,
            preferred_element_type=jnp.float32,
        )
        out = out + values.bias.reshape(1, 1, 1, *values.bias.shape).astype(out.dtype)
        return self.o_proj(out.reshape(*tokens.shape[:3], self.inner_dim))


class ImageToTokenAttention(CrossAttention):
    """The image attends to tokens."""

    def __call__(
        self, queries: Projection, keys: jax.Array, values: jax.Array, bias: jax.Array | None = None
    ) -> jax.Array:
        """Attend the image to tokens [B, P, T, C]; bias, float32, broadcasts to [B, P, H, K, T].

        Returns [B, P, K, C].
        """
        key, value = self._heads("k_proj", keys), self._heads("v_proj", values)
        key = key * jnp.asarray(key.shape[-1] ** -0.5, key.dtype)
        absorbed = jnp.einsum("bpthd,chd->bphtc", key, queries.kernel)
        constant = jnp.einsum("bpthd,hd->bpht", key, queries.bias, preferred_element_type=jnp.float32)[
            :, :, None
        ]
        scores = _product("bpkc,bphtc->bpkht", queries.x, absorbed) + constant
        if bias is not None:
            scores = scores + bias.swapaxes(2, 3)
        weights = unnormalised_softmax(scores, axis=-1)
        weights = weights / weights.sum(axis=-1, keepdims=True)
        self._record(weights.swapaxes(2, 3))
        kernel, out_bias = self.o_proj.weights()
        kernel = kernel.astype(self.dtype).reshape(*key.shape[3:], self.features)
        merged = jnp.einsum("bpthd,hdc->bphtc", value, kernel)
        out = _product("bpkht,bphtc->bpkc", weights.astype(self.dtype), merged)
        return (out + out_bias.astype(jnp.float32).reshape(1, 1, 1, -1)).astype(self.dtype)


def _product(letters: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Sum of products over letters of axes, b and p first; accumulated and returned in float32."""
    product = partial(jnp.einsum, preferred_element_type=jnp.float32)
    if a.shape[:2] == b.shape[:2] == (1, 1):
        # As one plain product: XLA would transpose what is long for a batch of products, even of one.
        return product(letters.replace("bp", ""), a[0, 0], b[0, 0])[None, None]
    return product(letters, a, b)


class ImageProjections(NamedTuple):
    """The image as a layer's two cross-attentions see it."""

    keys: Projection
    values: Projection
    queries: Projection


class TwoWayAttentionBlock(nn.Module):
    """Tokens attend to themselves, to the image, pass an MLP; then the image attends to the tokens.

    Source: Sam2TwoWayAttentionBlock. In the first layer self-attention has neither positions nor residual.
    """

    config: Sam2MaskDecoderConfig
    is_first: bool
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        heads, width = config.num_attention_heads, config.hidden_size
        inner = width // config.attention_downsample_rate
        self.self_attn = SelfAttention(heads, **types)
        self.cross_attn_token_to_image = TokenToImageAttention(heads, width, inner, **types)
        self.cross_attn_image_to_token = ImageToTokenAttention(heads, width, inner, **types)
        self.layer_norm1 = LayerNorm(_EPSILON, **types)
        self.layer_norm2 = LayerNorm(_EPSILON, **types)
        self.layer_norm3 = LayerNorm(_EPSILON, **types)
        self.layer_norm4 = LayerNorm(_EPSILON, **types)
        # The reference ties the depth of this MLP to the number of transformer layers.
        hidden = (config.mlp_dim,) * (config.num_hidden_layers - 1)
        self.mlp = MLP((*hidden, width), nn.relu, **types)

    def project_image(self, image: jax.Array, positions: jax.Array) -> ImageProjections:
        """See the image [B, P or 1, K, C], placed at positions [1, 1, K, C], as both cross-attentions do."""
        placed = image + positions
        return ImageProjections(
            keys=self.cross_attn_token_to_image.projection("k_proj", placed),
            values=self.cross_attn_token_to_image.projection("v_proj", image),
            queries=self.cross_attn_image_to_token.projection("q_proj", placed),
        )

    def __call__(
        self,
        tokens: jax.Array,
        image: jax.Array,
        token_positions: jax.Array,
        projections: ImageProjections,
        token_bias: jax.Array | None,
        similarity: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array]:
        """Update tokens [B, P, T, C] and image [B, P or 1, K, C], returned as [B, P, K, C].

        projections: those of this image, of `project_image`. token_bias hides padding tokens as keys;
        similarity is added to the scores over the image.
        """
        if self.is_first:
            tokens = self.self_attn(tokens, tokens, token_bias)
        else:
            tokens = tokens + self.self_attn(tokens + token_positions, tokens, token_bias)
        tokens = self.layer_norm1(tokens)
        tokens = tokens + self.cross_attn_token_to_image(
            tokens + token_positions, projections.keys, projections.values, similarity
        )
        tokens = self.layer_norm2(tokens)
        tokens = self.layer_norm3(tokens + self.mlp(tokens))
        image = image + self.cross_attn_image_to_token(
            projections.queries, tokens + token_positions, tokens, token_bias
        )
        return tokens, self.layer_norm4(image)


class TwoWayTransformer(nn.Module):
    """The blocks, and a last attention from tokens to image. Source: Sam2TwoWayTransformer."""

    config: Sam2MaskDecoderConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.layers = [
            TwoWayAttentionBlock(config, is_first=i == 0, **types) for i in range(config.num_hidden_layers)
        ]
        inner = config.hidden_size // config.attention_downsample_rate
        self.final_attn_token_to_image = TokenToImageAttention(
            config.num_attention_heads, config.hidden_size, inner, **types
        )
        self.layer_norm_final_attn = LayerNorm(_EPSILON, **types)

    def share_image(self, image: jax.Array, positions: jax.Array) -> tuple[jax.Array, ...]:
        """Carry out the first layer's projections of an image [B, 1, K, C], for all of its prompts."""
        projections = self.layers[0].project_image(image, positions)
        return tuple(projection.carried_out() for projection in projections)

    def __call__(
        self,
        tokens: jax.Array,
        image: jax.Array,
        image_positions: jax.Array,
        token_bias: jax.Array | None = None,
        similarity: jax.Array | None = None,
        target: jax.Array | None = None,
        shared: tuple[jax.Array, ...] | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Run tokens [B, P, T, C] against image [B, P or 1, K, C]; returns both, updated.

        similarity and target are PerSAM's attention_similarity and target_embedding (arXiv:2305.03048).
        shared: what `share_image` gives for this image, where it is worth it.
        """
        positions = tokens
        for layer in self.layers:
            if target is not None:
                tokens = tokens + target
                if layer.is_first:
                    # PerSAM adds in place to a tensor that is also the positions; results rest on it.
                    positions = tokens
            if shared is None or not layer.is_first:
                projections = layer.project_image(image, image_positions)
            else:
                heads = self.config.num_attention_heads
                projections = ImageProjections(*(Projection.of_carried_out(x, heads) for x in shared))
            tokens, image = layer(tokens, image, positions, projections, token_bias, similarity)
        final = self.final_attn_token_to_image
        attended = final(
            tokens + positions,
            final.projection("k_proj", image + image_positions),
            final.projection("v_proj", image),
        )
        return self.layer_norm_final_attn(tokens + attended), image
