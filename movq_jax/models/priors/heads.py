"""From the feature of a position to the logits of its M channels, and to a draw.

Logits are float32, [..., K] with K that of the largest book; a channel with fewer codes
has NEG_INF in the columns beyond them. So neither [MASK] nor a code that there is not
can be drawn.

A head has two methods. `logits(features [B, N, D], ids [B, N, M]) -> [B, N, M, K]`, and
`draw(features [S, B, N, D], choose) -> (ids [B, N, M], log p [B, N, M])`, where
`choose(m, logits [S, B, N, K])` draws channel m of all positions and returns its
indices and their log p, [B, N] both. S streams, such as with and without class, share
the draw.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int

from movq_jax.models.priors.embedding import ChannelEmbedding
from movq_jax.models.priors.tokens import Tokens
from movq_jax.models.transformer import (
    LlamaBlock,
    Stack,
    by_row,
    init_cache,
    layer_norm,
    normal,
    rms_norm,
    truncated_normal,
)

NEG_INF = -1e30  # a difference of two of them is 0, and not nan
Choose = Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]
Drawn = tuple[Int[Array, "B N M"], Float[Array, "B N M"]]

# Of bfloat16, too: logits that were rounded to it are drawn from wrongly.
_product = partial(jnp.einsum, preferred_element_type=jnp.float32)


def to_columns(logits: Float[Array, "*rows k"], size: int) -> Float[Array, "*rows K"]:
    """float32, and NEG_INF in new columns up to `size`."""
    missing = size - logits.shape[-1]
    widths = [(0, 0)] * (logits.ndim - 1) + [(0, missing)]
    return jnp.pad(logits.astype(jnp.float32), widths, constant_values=NEG_INF)


def _together(chosen: list[tuple[jax.Array, jax.Array]]) -> Drawn:
    ids, log_p = zip(*chosen, strict=True)
    return jnp.stack(ids, axis=-1).astype(jnp.int32), jnp.stack(log_p, axis=-1)


class ParallelHead(nn.Module):
    """All channels at once: Dense, gelu, LayerNorm, the book's table, a bias.

    MaskGIT's head for each channel. The table is that of the embedding; the bias has K
    entries, none for classes and [MASK].
    """

    embedding: ChannelEmbedding
    dtype: Any = jnp.float32

    def setup(self):
        tokens, width = self.embedding.tokens, self.embedding.width
        dense = partial(nn.Dense, kernel_init=truncated_normal, dtype=self.dtype)
        self.dense = [dense(width) for _ in tokens.codebook_sizes]
        self.norm = [layer_norm(dtype=self.dtype) for _ in tokens.codebook_sizes]
        self.bias = [
            self.param(f"bias_{m}", nn.initializers.zeros, (size,))
            for m, size in enumerate(tokens.codebook_sizes)
        ]

    def logits(
        self,
        features: Float[Array, "*rows D"],
        ids: Int[Array, "*rows M"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "*rows M K"]:
        """`ids` and `train` are of no use here."""
        channels = range(self.embedding.tokens.num_channels)
        return jnp.stack([self._channel(features, m) for m in channels], axis=-2)

    def draw(self, features: Float[Array, "S B N D"], choose: Choose) -> Drawn:
        """Each channel without looking at the others."""
        channels = range(self.embedding.tokens.num_channels)
        return _together([choose(m, self._channel(features, m)) for m in channels])

    def _channel(self, features: jax.Array, m: int) -> jax.Array:
        return by_row(partial(self._rows, m=m), features)

    def _rows(self, features: Float[Array, "R D"], m: int) -> Float[Array, "R K"]:
        h = self.norm[m](nn.gelu(self.dense[m](features), approximate=True))
        table = self.embedding.table(m).astype(self.dtype)
        logits = _product("rd,kd->rk", h, table) + self.bias[m][None]
        return to_columns(logits, self.embedding.tokens.size)


class BookOutputs(nn.Module):
    """Logits by one linear layer a book, which starts at zero, as LlamaGen's does."""

    tokens: Tokens
    width: int
    dtype: Any = jnp.float32

    def setup(self):
        zeros = nn.initializers.zeros
        self.kernel = [
            self.param(f"kernel_{number}", zeros, (self.width, size))
            for number, size in enumerate(self.tokens.book_sizes)
        ]

    def __call__(self, h: Float[Array, "*rows M D"]) -> Float[Array, "*rows M K"]:
        """The logits of all channels."""
        channels = range(self.tokens.num_channels)
        return jnp.stack([self.channel(h[..., m, :], m) for m in channels], axis=-2)

    def channel(
        self, h: Float[Array, "*rows D"], m: int | Int[Array, ""]
    ) -> Float[Array, "*rows K"]:
        """The logits of channel `m`, which a compiled program may have to choose."""
        books = [partial(self._book, kernel=kernel) for kernel in self.kernel]
        if len(books) == 1:
            return books[0](h)
        if isinstance(m, int):
            return books[self.tokens.channel_book[m]](h)
        return jax.lax.switch(jnp.asarray(self.tokens.channel_book)[m], books, h)

    def _book(self, h: jax.Array, kernel: jax.Array) -> jax.Array:
        h, kernel = h.astype(self.dtype), kernel.astype(self.dtype)
        logits = by_row(lambda rows: _product("rd,dk->rk", rows, kernel), h)
        return to_columns(logits, self.tokens.size)


class FlatHead(nn.Module):
    """A linear layer a book, for a trunk that has a feature for each index.

    Here `logits` takes features [B, N, M, D], and `draw` draws one channel.
    """

    embedding: ChannelEmbedding
    dtype: Any = jnp.float32

    def setup(self):
        tokens, width = self.embedding.tokens, self.embedding.width
        self.outputs = BookOutputs(tokens, width, dtype=self.dtype)

    def logits(
        self,
        features: Float[Array, "B N M D"],
        ids: Int[Array, "B N M"],
        *,
        train: bool = False,
    ) -> Float[Array, "B N M K"]:
        """`ids` and `train` are of no use here."""
        return self.outputs(features)

    def draw(
        self, features: Float[Array, "S B 1 D"], choose: Choose, t: int | Int[Array, ""]
    ) -> Drawn:
        """Index number `t` of the image, [B, 1, 1]."""
        m = t % self.embedding.tokens.num_channels
        return _together([choose(m, self.outputs.channel(features, m))])


class DepthHead(nn.Module):
    """A causal transformer over the channels of a position: the joint of all M.

    As the depth transformer of RQ-Transformer (arXiv 2203.01941): input 0 is the
    position's feature, input d the embedding of the index of channel d - 1, both plus a
    learned depth position; blocks, a norm, a linear layer a book. Channels are peers:
    what goes in is the embedding of one index, not a sum of those so far. Blocks are
    `LlamaBlock`s, without rotations, for every trunk.

    A draw keeps keys and values: all M channels cost as much as one pass.

    Attributes:
      embedding: that of the trunk, whose tables are shared.
      depth: number of layers, at the trunk's width.
      heads, dropout: see `LlamaBlock`. The sequences have only M tokens: attention is
        always XLA's.
      remat: see `Stack`.
    """

    embedding: ChannelEmbedding
    depth: int
    heads: int
    dropout: float
    dtype: Any = jnp.float32
    remat: bool = False

    def setup(self):
        tokens, width = self.embedding.tokens, self.embedding.width
        self.places = self.param("places", normal, (tokens.num_channels, width))
        make = partial(
            LlamaBlock, width, self.heads, dropout=self.dropout, dtype=self.dtype
        )
        self.layers = Stack(make, self.depth, self.remat)
        self.norm = rms_norm(dtype=self.dtype)
        self.outputs = BookOutputs(tokens, width, dtype=self.dtype)

    def logits(
        self,
        features: Float[Array, "B N D"],
        ids: Int[Array, "B N M"],
        *,
        train: bool = False,
    ) -> Float[Array, "B N M K"]:
        """Of channel m given the feature and the indices of the channels before m."""
        inputs = [features.astype(self.dtype)]
        for m in range(ids.shape[-1] - 1):
            inputs.append(self.embedding.channel(ids[..., m], m))
        x = jnp.stack(inputs, axis=-2) + self.places.astype(self.dtype)[None, None]
        x = rearrange(x, "b n m d -> (b n) m d")
        h = self.norm(self.layers(x, train=train))
        return self.outputs(rearrange(h, "(b n) m d -> b n m d", b=len(ids)))

    def draw(self, features: Float[Array, "S B N D"], choose: Choose) -> Drawn:
        """Channel by channel, each given those that were drawn before it."""
        streams, batch, positions, _ = features.shape
        tokens, width = self.embedding.tokens, self.embedding.width
        sequences = streams * batch * positions
        cache = init_cache(
            self.depth, sequences, tokens.num_channels, self.heads, width, self.dtype
        )
        chosen, x = [], features.astype(self.dtype)
        for m in range(tokens.num_channels):
            x = rearrange(x + self._place(m), "s b n d -> (s b n) 1 d")
            x, cache = self.layers.step(x, cache, jnp.int32(m))
            h = self.norm(x).reshape(features.shape)
            chosen.append(choose(m, self.outputs.channel(h, m)))
            ids = chosen[-1][0]
            x = jnp.broadcast_to(self.embedding.channel(ids, m)[None], features.shape)
        return _together(chosen)

    def _place(self, m: int) -> jax.Array:
        return self.places[m].astype(self.dtype)[None, None, None]
