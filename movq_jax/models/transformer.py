"""Transformer blocks of the priors: BERT's, with norms after, and Llama's, before.

Shapes are [B, L, D]: sequences of L tokens. Matrix products run in `dtype` (float32 or
bfloat16), and so do the sums of residual branches; parameters, norm statistics, softmax
and rotations are float32.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int

ATTENTIONS = ("xla", "cudnn")
LAYER_NORM_EPSILON = 1e-12  # BERT's
RMS_NORM_EPSILON = 1e-5
ROPE_BASE = 10_000.0

# BERT's start, and Llama's.
truncated_normal = nn.initializers.truncated_normal(0.02)
normal = nn.initializers.normal(0.02)

# The angles of `rope_angles` as (cos, sin), [L, d/2] each; None turns nothing.
Rope = tuple[jax.Array, jax.Array] | None


@flax.struct.dataclass
class Cache:
    """Keys and values of the tokens so far, in buffers that keep their shape."""

    k: jax.Array  # [layers, B, L, heads, d]
    v: jax.Array  # [layers, B, L, heads, d]


def init_cache(
    layers: int, batch: int, length: int, heads: int, width: int, dtype: Any
) -> Cache:
    """A cache with room for `length` tokens, of which there are none yet."""
    shape = (layers, batch, length, heads, width // heads)
    return Cache(k=jnp.zeros(shape, dtype), v=jnp.zeros(shape, dtype))


def by_row(
    function: Callable[[jax.Array], jax.Array], x: Float[Array, "*rows D"]
) -> jax.Array:
    """`function` of each token, all of them as the rows of one matrix.

    The same numbers; but the gradient of a product over several axes of tokens takes
    XLA twice as long on a CPU.
    """
    rows = function(x.reshape(-1, x.shape[-1]))
    return rows.reshape(*x.shape[:-1], *rows.shape[1:])


class Attention(nn.Module):
    """Self-attention with several heads; softmax in float32.

    Attributes:
      width: D, a multiple of `heads`.
      bias: whether the four products add one.
      causal: whether a token sees only itself and those before it.
      implementation: 'xla', or 'cudnn' (16 bits, head width a multiple of 8). Where
        there is no GPU, and in cached steps, 'cudnn' is 'xla', too.
    """

    width: int
    heads: int
    bias: bool
    causal: bool
    kernel_init: Callable
    implementation: str = "xla"
    dtype: Any = jnp.float32

    def setup(self):
        common = dict(
            use_bias=self.bias, kernel_init=self.kernel_init, dtype=self.dtype
        )
        heads = (self.heads, self.width // self.heads)
        self.query = nn.DenseGeneral(heads, **common)
        self.key = nn.DenseGeneral(heads, **common)
        self.value = nn.DenseGeneral(heads, **common)
        self.out = nn.DenseGeneral(self.width, axis=(-2, -1), **common)

    def __call__(
        self, x: Float[Array, "B L D"], rope: Rope = None
    ) -> Float[Array, "B L D"]:
        """All tokens at once."""
        q, k, v = self._project(x, rope)
        # A bundle that was trained with cuDNN is of use on a CPU as well.
        has_gpu = jax.default_backend() == "gpu"
        mixed = jax.nn.dot_product_attention(
            *(q, k, v),
            is_causal=self.causal,
            implementation=self.implementation if has_gpu else "xla",
        )
        return self._merge(mixed)

    def step(
        self,
        x: Float[Array, "B 1 D"],
        cache: Cache,
        layer: Int[Array, ""],
        position: Int[Array, ""],
        rope: Rope = None,
    ) -> tuple[Float[Array, "B 1 D"], Cache]:
        """The next token, number `position`, and the cache with it."""
        q, k, v = self._project(x, rope)
        at = (layer, 0, position, 0, 0)
        cache = Cache(
            k=jax.lax.dynamic_update_slice(cache.k, k[None], at),
            v=jax.lax.dynamic_update_slice(cache.v, v[None], at),
        )
        seen: Bool[Array, " L"] = jnp.arange(cache.k.shape[2]) <= position
        mixed = jax.nn.dot_product_attention(
            q,
            jax.lax.dynamic_index_in_dim(cache.k, layer, keepdims=False),
            jax.lax.dynamic_index_in_dim(cache.v, layer, keepdims=False),
            mask=seen[None, None, None],
            implementation="xla",
        )
        return self._merge(mixed), cache

    def _project(self, x: jax.Array, rope: Rope) -> tuple[jax.Array, ...]:
        q, k, v = (by_row(f, x) for f in (self.query, self.key, self.value))
        return rotate(q, rope), rotate(k, rope), v

    def _merge(self, mixed: Float[Array, "B L H d"]) -> Float[Array, "B L D"]:
        rows = self.out(mixed.reshape(-1, *mixed.shape[2:]))
        return rows.reshape(*mixed.shape[:2], self.width)


def rope_angles(
    rows: Int[Array, " L"], columns: Int[Array, " L"], head_width: int
) -> tuple[Float[Array, "L h"], Float[Array, "L h"]]:
    """(cos, sin) of 2-D rotary positions, h = head_width / 2 angles a token.

    As in LlamaGen (arXiv 2406.06525): the first half of a head turns with the row, the
    second with the column, `freq_j = 10000^(-2j / (d/2))`, j < d/4.
    """
    quarter = head_width // 4
    frequencies = ROPE_BASE ** (-jnp.arange(quarter, dtype=jnp.float32) / quarter)
    angles = [place[:, None] * frequencies[None] for place in (rows, columns)]
    angles = jnp.concatenate(angles, axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float[Array, "B L H d"], rope: Rope) -> Float[Array, "B L H d"]:
    """Turns the pairs (x_0, x_1), (x_2, x_3), ... of each head by their angles."""
    if rope is None:
        return x
    cos, sin = (angles[None, :, None] for angles in rope)
    pairs = rearrange(x.astype(jnp.float32), "b l h (j two) -> two b l h j", two=2)
    turned = [pairs[0] * cos - pairs[1] * sin, pairs[1] * cos + pairs[0] * sin]
    turned = rearrange(jnp.stack(turned), "two b l h j -> b l h (j two)")
    return turned.astype(x.dtype)


class PostNormBlock(nn.Module):
    """BERT's layer, as in MaskGIT: `x = LN(x + attn(x)); x = LN(x + mlp(x))`.

    gelu in its tanh form, LayerNorm with eps 1e-12. Dropout is on both branches;
    MaskGIT's is on the attention weights as well, which jax's attention does not offer.

    Attributes:
      width, heads, implementation: see `Attention`.
      mlp: width of the hidden layer.
      dropout: share of the branches' values that is dropped in training.
    """

    width: int
    heads: int
    mlp: int
    dropout: float
    implementation: str = "xla"
    dtype: Any = jnp.float32

    def setup(self):
        self.attention = Attention(
            self.width,
            self.heads,
            bias=True,
            causal=False,
            kernel_init=truncated_normal,
            implementation=self.implementation,
            dtype=self.dtype,
        )
        dense = partial(nn.Dense, kernel_init=truncated_normal, dtype=self.dtype)
        self.intermediate = dense(self.mlp)
        self.output = dense(self.width)
        self.attention_norm = layer_norm(dtype=self.dtype)
        self.output_norm = layer_norm(dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self, x: Float[Array, "B L D"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """[B, L, D] -> [B, L, D]."""
        drop = partial(self.drop, deterministic=not train)
        x = self.attention_norm(x + drop(self.attention(x)))
        return self.output_norm(x + drop(by_row(self._mlp, x)))

    def _mlp(self, x: jax.Array) -> jax.Array:
        return self.output(nn.gelu(self.intermediate(x), approximate=True))


class LlamaBlock(nn.Module):
    """RMSNorm and causal attention, RMSNorm and SwiGLU, both added to x; no biases.

    As in LlamaGen: RMSNorm with eps 1e-5, hidden width 8/3 D rounded up to a multiple
    of 256, dropout on both branches.

    Attributes:
      width, heads, implementation: see `Attention`.
      dropout: share of the branches' values that is dropped in training.
    """

    width: int
    heads: int
    dropout: float
    implementation: str = "xla"
    dtype: Any = jnp.float32

    def setup(self):
        self.attention = Attention(
            self.width,
            self.heads,
            bias=False,
            causal=True,
            kernel_init=normal,
            implementation=self.implementation,
            dtype=self.dtype,
        )
        dense = partial(nn.Dense, use_bias=False, kernel_init=normal, dtype=self.dtype)
        self.gate = dense(swiglu_width(self.width))
        self.up = dense(swiglu_width(self.width))
        self.down = dense(self.width)
        self.attention_norm = rms_norm(dtype=self.dtype)
        self.mlp_norm = rms_norm(dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self, x: Float[Array, "B L D"], rope: Rope = None, *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """All tokens at once."""
        drop = partial(self.drop, deterministic=not train)
        x = x + drop(self.attention(self.attention_norm(x), rope))
        return x + drop(by_row(self._mlp, x))

    def step(
        self,
        x: Float[Array, "B 1 D"],
        cache: Cache,
        layer: Int[Array, ""],
        position: Int[Array, ""],
        rope: Rope = None,
    ) -> tuple[Float[Array, "B 1 D"], Cache]:
        """The next token, see `Attention.step`."""
        normed = self.attention_norm(x)
        mixed, cache = self.attention.step(normed, cache, layer, position, rope)
        x = x + mixed
        return x + by_row(self._mlp, x), cache

    def _mlp(self, x: jax.Array) -> jax.Array:
        h = self.mlp_norm(x)
        return self.down(nn.silu(self.gate(h)) * self.up(h))


def swiglu_width(width: int) -> int:
    """8/3 of `width`, rounded up to a multiple of 256."""
    return -(-8 * width // (3 * 256)) * 256


layer_norm = partial(nn.LayerNorm, epsilon=LAYER_NORM_EPSILON)
rms_norm = partial(nn.RMSNorm, epsilon=RMS_NORM_EPSILON)


class Stack(nn.Module):
    """`depth` blocks of one kind, one after the other.

    A scan over layers: each parameter has the layers as its first axis, and only one
    block is compiled.

    Attributes:
      make: makes a block.
      remat: whether a block's activations are computed again for the gradient.
    """

    make: Callable[[], nn.Module]
    depth: int
    remat: bool = False

    def setup(self):
        self.block = self.make()

    def __call__(
        self, x: Float[Array, "B L D"], *args: Any, train: bool = False
    ) -> Float[Array, "B L D"]:
        """`args` go to every block."""

        def layer(block, x, _):
            return block(x, *args, train=train), None

        if self.remat:  # inside of a scan nothing is shared that CSE could undo
            layer = nn.remat(layer, prevent_cse=False)
        x, _ = self._over_layers(layer)(self.block, x, None)
        return x

    def step(
        self,
        x: Float[Array, "B 1 D"],
        cache: Cache,
        position: Int[Array, ""],
        *args: Any,
    ) -> tuple[Float[Array, "B 1 D"], Cache]:
        """The next token through all layers. The cache is carried: changed in place."""

        def layer(block, carry, index):
            return block.step(*carry, index, position, *args), None

        layers = jnp.arange(self.depth)
        (x, cache), _ = self._over_layers(layer)(self.block, (x, cache), layers)
        return x, cache

    def _over_layers(self, layer: Callable) -> Callable:
        return nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=self.depth,
        )
