"""Indices of M channels as vectors."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from movq_jax.models.priors.tokens import Tokens


class ChannelEmbedding(nn.Module):
    """The vector of each channel's index: a row of its book's table.

    Channels of one book share a table, and what tells them apart is a scale and a bias
    for each channel: `row * scale_m + bias_m`. With the bias alone the sum over a
    position's channels would be the same in whichever order they hold their indices;
    the scales start as random signs, so that the sum keeps who said what, and shares
    one table nevertheless. A channel that has a book of its own needs neither.

    Attributes:
      masked: whether each channel has a [MASK] row, too.
      start: initialiser of all rows.
    """

    tokens: Tokens
    width: int
    masked: bool
    start: Any
    dtype: Any = jnp.float32

    def setup(self):
        tokens, channels = self.tokens, (self.tokens.num_channels, self.width)
        self.tables = [
            self.param(f"table_{number}", self.start, (size, self.width))
            for number, size in enumerate(tokens.book_sizes)
        ]
        self.shared = len(tokens.book_names) < tokens.num_channels
        if self.shared:
            self.scale = self.param("scale", _signs, channels)
            self.bias = self.param("bias", self.start, channels)
        if self.masked:
            self.mask = self.param("mask", self.start, channels)

    def __call__(self, ids: Int[Array, "*rows M"]) -> Float[Array, "*rows M D"]:
        """The vectors of all channels, in `dtype`."""
        channels = range(self.tokens.num_channels)
        return jnp.stack([self.channel(ids[..., m], m) for m in channels], axis=-2)

    def channel(self, ids: Int[Array, "*rows"], m: int) -> Float[Array, "*rows D"]:
        """The vectors of channel `m`, in `dtype`."""
        rows = jnp.take(self.table(m), ids, axis=0)
        if self.shared:
            ones = (1,) * ids.ndim
            scale, bias = (a[m].reshape(*ones, -1) for a in (self.scale, self.bias))
            rows = rows * scale + bias
        return rows.astype(self.dtype)

    def table(self, m: int) -> Float[Array, "K D"]:
        """The table of channel `m`, without [MASK]."""
        return self.tables[self.tokens.channel_book[m]]

    def mask_rows(self) -> Float[Array, "M D"]:
        """The vector of [MASK] in each channel, in `dtype`."""
        return self.mask.astype(self.dtype)


def _signs(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32):
    return jax.random.rademacher(key, shape, dtype)
