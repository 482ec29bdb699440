"""The autoregressive prior: a causal transformer over the grid, row by row."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int

from movq_jax import families
from movq_jax.fields import check_size
from movq_jax.models.priors.checks import check_prior
from movq_jax.models.priors.embedding import ChannelEmbedding
from movq_jax.models.priors.heads import Choose, DepthHead, Drawn, FlatHead
from movq_jax.models.priors.tokens import Tokens
from movq_jax.models.transformer import (
    Cache,
    LlamaBlock,
    Rope,
    Stack,
    init_cache,
    normal,
    rms_norm,
    rope_angles,
)


def _depth(prior: "AutoregressivePrior", *, depth: int) -> Callable[..., nn.Module]:
    check_size("config.model.channels.depth", depth)
    return partial(
        DepthHead,
        depth=depth,
        heads=prior.heads,
        dropout=prior.dropout,
        dtype=jnp.dtype(prior.dtype),
        remat=prior.remat,
    )


def _flat(prior: "AutoregressivePrior") -> Callable[..., nn.Module]:
    return partial(FlatHead, dtype=jnp.dtype(prior.dtype))


# How the channels of a position are modelled: (prior, fields) -> makes the head.
CHANNELS = {"depth": _depth, "flat": _flat}


class AutoregressivePrior(nn.Module):
    """A Llama over the indices of a grid, as LlamaGen's (arXiv 2406.06525).

    A token in front, the class or a learned start, then the grid from left to right,
    row by row; the trunk's feature at step t has seen what comes before it. RMSNorm,
    SwiGLU, 2-D rotary positions by a token's cell of the grid. LlamaGen's token in
    front has cos = sin = 0, which makes its queries and keys zero; here it is not
    turned.

    - depth: a step a position, N of them; the token of a position is the sum of its
      channels' embeddings, and `DepthHead` models its channels (RQ-Transformer).
    - flat: a step an index, N * M of them; M tokens share a cell.

    Attributes:
      width, depth, heads, dropout: see `LlamaBlock`.
      channels: {name: 'depth', depth: layers of the head} or {name: 'flat'}.
      num_classes: labels are 0 to num_classes - 1, and num_classes for no class. With 0
        there are no classes, and labels are ignored.
      attention: 'xla' or 'cudnn', see `Attention`.
      dtype: of matrix products, 'float32' or 'bfloat16'. Logits are float32.
      tokens: what is modelled.
      remat: whether blocks are computed again for the gradient. How a model is trained,
        not what it is: no part of the config's `model` section.
    """

    width: int
    depth: int
    heads: int
    dropout: float
    channels: Mapping[str, Any]
    num_classes: int
    attention: str
    dtype: str
    tokens: Tokens
    remat: bool = False

    def __post_init__(self):
        check_prior(
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            head_multiple=4,
            dropout=self.dropout,
            num_classes=self.num_classes,
            attention=self.attention,
            dtype=self.dtype,
        )
        families.make(CHANNELS, self.channels, "config.model.channels", self)
        super().__post_init__()

    @property
    def is_flat(self) -> bool:
        """Whether a step is an index, and not a position."""
        return self.channels["name"] == "flat"

    @property
    def num_steps(self) -> int:
        """Steps of an image: N, or N * M in `flat`."""
        return self.tokens.units if self.is_flat else self.tokens.num_positions

    def setup(self):
        dtype = jnp.dtype(self.dtype)
        self.embedding = ChannelEmbedding(
            self.tokens, self.width, masked=False, start=normal, dtype=dtype
        )
        # The last row is "no class"; without classes it is the only one: the start.
        rows = (self.num_classes + 1, self.width)
        self.classes = self.param("classes", normal, rows)
        self.drop = nn.Dropout(self.dropout)
        make = partial(
            LlamaBlock,
            *(self.width, self.heads, self.dropout),
            implementation=self.attention,
            dtype=dtype,
        )
        self.layers = Stack(make, self.depth, self.remat)
        self.norm = rms_norm(dtype=dtype)
        where = "config.model.channels"
        self.head = families.make(CHANNELS, self.channels, where, self)(self.embedding)

    def __call__(
        self,
        ids: Int[Array, "B N M"],
        labels: Int[Array, " B"],
        *,
        train: bool = False,
    ) -> Float[Array, "B N M K"]:
        """The logits of each index given those before it, all at once.

        float32; NEG_INF where a channel's codebook has no such code.
        """
        rows = self.embedding(ids)
        if self.is_flat:
            tokens = rearrange(rows, "b n m d -> b (n m) d")
        else:
            tokens = jnp.sum(rows, axis=-2)
        x = jnp.concatenate([self._first(labels), tokens[:, :-1]], axis=1)
        x = self.drop(x, deterministic=not train)
        rope = self._rope(jnp.arange(self.num_steps))
        features = self.norm(self.layers(x, rope, train=train))
        if self.is_flat:
            features = rearrange(features, "b (n m) d -> b n m d", n=ids.shape[1])
        return self.head.logits(features, ids, train=train)

    def init_cache(self, batch: int) -> Cache:
        """An empty cache for `batch` sequences: streams times images."""
        return init_cache(
            self.depth, batch, self.num_steps, self.heads, self.width, self.dtype
        )

    def step(
        self,
        cache: Cache,
        position: Int[Array, ""],
        previous: Int[Array, "B M"],
        labels: Int[Array, " B"],
    ) -> tuple[Float[Array, "B 1 D"], Cache]:
        """The feature from which step `position` is drawn, and the cache with it.

        Args:
          cache: after all steps before this one.
          position: from 0 to num_steps - 1; its steps come in this order.
          previous: what the step before this one drew: M indices of the position, or
            one, [B, 1], in `flat`. Step 0 has none and ignores it.
          labels: as in `__call__`. Only step 0 looks at them.
        """
        position = jnp.asarray(position, jnp.int32)
        if self.is_flat:
            rows = jnp.stack(
                [
                    self.embedding.channel(previous[:, 0], m)
                    for m in range(self.tokens.num_channels)
                ]
            )
            token = rows[(position - 1) % self.tokens.num_channels]
        else:
            token = jnp.sum(self.embedding(previous), axis=-2)
        x = jnp.where(position == 0, self._first(labels), token[:, None])
        x, cache = self.layers.step(x, cache, position, self._rope(position[None]))
        return self.norm(x), cache

    def draw(
        self,
        features: Float[Array, "S B 1 D"],
        choose: Choose,
        t: int | Int[Array, ""] = 0,
    ) -> Drawn:
        """Draws the indices of one step.

        Args:
          features: of S streams, such as with and without class, that share the draw.
          choose: (m, logits [S, B, 1, K]) -> (ids, log p), both [B, 1].
          t: in `flat`, the step. It draws channel m = t % M alone, and `choose` may get
            an array for m.

        Returns:
          ids int32 and the log p of each, [B, 1, M], or [B, 1, 1] in `flat`.
        """
        if self.is_flat:
            return self.head.draw(features, choose, t)
        return self.head.draw(features, choose)

    def _first(self, labels: jax.Array) -> jax.Array:
        """The token in front, [B, 1, D]."""
        rows = labels if self.num_classes else jnp.zeros_like(labels)
        return self.classes[rows][:, None].astype(self.dtype)

    def _rope(self, steps: jax.Array) -> Rope:
        """Rotations of the tokens that are read at these steps, by their cells."""
        cells = steps - 1
        if self.is_flat:
            cells = cells // self.tokens.num_channels
        columns = self.tokens.grid[1]
        places = cells // columns, cells % columns
        # The token in front is not turned: as at row 0 and column 0.
        rows, cols = (jnp.where(steps > 0, place, 0) for place in places)
        return rope_angles(rows, cols, self.width // self.heads)
