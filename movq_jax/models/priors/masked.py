"""The masked prior: a bidirectional transformer that fills in what is not known."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from movq_jax import families
from movq_jax.fields import check_size
from movq_jax.models.priors.checks import check_prior
from movq_jax.models.priors.embedding import ChannelEmbedding
from movq_jax.models.priors.heads import Choose, DepthHead, Drawn, ParallelHead
from movq_jax.models.priors.tokens import Tokens
from movq_jax.models.transformer import (
    PostNormBlock,
    Stack,
    layer_norm,
    truncated_normal,
)


def _depth(prior: "MaskedPrior", *, depth: int) -> Callable[..., nn.Module]:
    check_size("config.model.channels.depth", depth)
    return partial(
        DepthHead,
        depth=depth,
        heads=prior.heads,
        dropout=prior.dropout,
        dtype=jnp.dtype(prior.dtype),
        remat=prior.remat,
    )


def _parallel(prior: "MaskedPrior") -> Callable[..., nn.Module]:
    return partial(ParallelHead, dtype=jnp.dtype(prior.dtype))


# How the channels of a position are modelled: (prior, fields) -> makes the head.
CHANNELS = {"depth": _depth, "independent": _parallel, "parallel": _parallel}


class MaskedPrior(nn.Module):
    """MaskGIT (arXiv 2202.04200) over N positions of M channels.

    A post-norm BERT over [class] + N positions (N where there are no classes): a
    position's vector is the sum of its channels' embeddings, of [MASK] for those that
    are not known. Learned positions, LayerNorm, dropout, blocks; then the head that
    `channels` names:

    - depth: positions are masked as a whole; a small causal transformer over channels.
    - independent: each channel of each position is masked for itself; M parallel heads.
    - parallel: positions are masked as a whole; M parallel heads, which miss the joint
      of a position's channels.

    With M = 1 and `parallel`, it is MaskGIT's network, but for the bias, which has no
    rows for classes and [MASK], and a row for "no class".

    Attributes:
      width, depth, heads, mlp, dropout: see `PostNormBlock`.
      channels: {name, ...fields}, see above.
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
    mlp: int
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
            head_multiple=1,
            dropout=self.dropout,
            num_classes=self.num_classes,
            attention=self.attention,
            dtype=self.dtype,
        )
        check_size("config.model.mlp", self.mlp)
        families.make(CHANNELS, self.channels, "config.model.channels", self)
        super().__post_init__()

    @property
    def whole_positions(self) -> bool:
        """Whether a position is masked as a whole.

        Otherwise the unit of masking is one index: channel m of position n has the
        number n * M + m.
        """
        return self.channels["name"] != "independent"

    def setup(self):
        dtype = jnp.dtype(self.dtype)
        self.embedding = ChannelEmbedding(
            self.tokens, self.width, masked=True, start=truncated_normal, dtype=dtype
        )
        length = self.tokens.num_positions
        if self.num_classes:
            rows = (self.num_classes + 1, self.width)
            self.classes = self.param("classes", truncated_normal, rows)
            length += 1
        self.places = self.param("places", truncated_normal, (length, self.width))
        self.norm = layer_norm(dtype=dtype)
        self.drop = nn.Dropout(self.dropout)
        make = partial(
            PostNormBlock,
            *(self.width, self.heads, self.mlp, self.dropout),
            implementation=self.attention,
            dtype=dtype,
        )
        self.layers = Stack(make, self.depth, self.remat)
        where = "config.model.channels"
        self.head = families.make(CHANNELS, self.channels, where, self)(self.embedding)

    def __call__(
        self,
        ids: Int[Array, "B N M"],
        known: Bool[Array, "B N M"],
        labels: Int[Array, " B"],
        targets: Int[Array, "B N M"],
        *,
        train: bool = False,
    ) -> Float[Array, "B N M K"]:
        """The logits of all indices, given those that are known.

        In `depth`, a channel's are given the targets of the position's channels before
        it as well.
        """
        features = self.features(ids, known, labels, train=train)
        return self.logits(features, targets, train=train)

    def features(
        self,
        ids: Int[Array, "B N M"],
        known: Bool[Array, "B N M"],
        labels: Int[Array, " B"],
        *,
        train: bool = False,
    ) -> Float[Array, "B N D"]:
        """What the trunk makes of each position. Unknown indices are not looked at."""
        masks = self.embedding.mask_rows()[None, None]
        # An index that is not known may be anything, also one that has no row.
        rows = self.embedding(jnp.where(known, ids, 0))
        x = jnp.sum(jnp.where(known[..., None], rows, masks), axis=-2)
        if self.num_classes:
            first = self.classes[labels].astype(x.dtype)
            x = jnp.concatenate([first[:, None], x], axis=1)
        x = self.norm(x + self.places.astype(x.dtype)[None])
        x = self.layers(self.drop(x, deterministic=not train), train=train)
        return x[:, 1:] if self.num_classes else x

    def logits(
        self,
        features: Float[Array, "B N D"],
        ids: Int[Array, "B N M"],
        *,
        train: bool = False,
    ) -> Float[Array, "B N M K"]:
        """Logits from features; only `depth` looks at `ids`: channel m at those before.

        float32; NEG_INF where a channel's codebook has no such code.
        """
        return self.head.logits(features, ids, train=train)

    def draw(self, features: Float[Array, "S B N D"], choose: Choose) -> Drawn:
        """Draws all channels of all positions, in the order of channels.

        Args:
          features: of S streams, such as with and without class, that share the draw.
          choose: (m, logits [S, B, N, K]) -> (ids, log p), both [B, N].

        Returns:
          ids [B, N, M] int32 and the log p of each, [B, N, M] float32.
        """
        return self.head.draw(features, choose)
