"""MaskGIT's tokenizer: a convolutional VQGAN without attention, in images of [0, 1].

As in Google's published code and checkpoints of MaskGIT (arXiv 2202.04200). It differs
from VQGAN's (`movq_jax.models.autoencoder`):

- no attention; the blocks at the latent's resolution are as many as those of a level;
- levels are halved by 2x2 means, and convolutions of encoder and blocks have no bias;
- where a block changes the width, what is added to its output is a 1x1 convolution of
  that *output*, and not of its input: there is no way around it;
- a 1x1 convolution makes the latent, and none lies between quantizer and decoder;
- the decoder has as many blocks a level as the encoder, not one more.

The networks see images in [0, 1]; the tokenizer takes and gives [-1, 1] like all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from movq_jax.models.layers import NORM_GROUPS, GroupNorm, Upsample
from movq_jax.models.tokenizer import Tokenizer


class OutputBlock(nn.Module):
    """norm, swish, conv 3x3, norm, swish, conv 3x3, plus the input.

    Where the width changes, a 1x1 convolution of the *result* is added instead of the
    input (`conv_shortcut`), as in the published code. No convolution has a bias.
    """

    channels: int
    groups: int = NORM_GROUPS
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, channels]."""
        h = x
        for i in (1, 2):
            norm = GroupNorm(self.groups, self.dtype, name=f"norm{i}")
            h = self._conv(3, f"conv{i}")(nn.swish(norm(h)))
        if x.shape[-1] != self.channels:
            x = self._conv(1, "conv_shortcut")(h)
        return x + h

    def _conv(self, side: int, name: str) -> nn.Conv:
        return nn.Conv(
            self.channels, (side, side), use_bias=False, dtype=self.dtype, name=name
        )


class _Backbone(nn.Module):
    """What encoder and decoder have in common.

    Attributes:
      channels: of the result: the latent's, or 3.
      width: channels of the first level.
      multipliers: width of each level, in units of `width`.
      res_blocks: residual blocks a level, and at the latent's resolution.
      groups: of the norms, see `layers.num_groups`.
      remat_levels: levels whose blocks are computed again for the gradient.
    """

    channels: int
    width: int
    multipliers: Sequence[int]
    res_blocks: int
    groups: int = NORM_GROUPS
    dtype: Any = jnp.float32
    remat_levels: Sequence[int] = ()

    def blocks(self, h: jax.Array, level: int, name: str, remat: bool) -> jax.Array:
        """`res_blocks` blocks of that level's width, one after the other."""
        width = self.width * self.multipliers[level]
        for i in range(self.res_blocks):
            block = OutputBlock(width, self.groups, self.dtype, name=f"{name}_{i}")
            # In this form nn.remat does not rename the parameters.
            h = nn.remat(_call)(block, h) if remat else block(h)
        return h

    def out(self, h: jax.Array, side: int) -> jax.Array:
        """norm, swish and the last convolution."""
        h = nn.swish(GroupNorm(self.groups, self.dtype, name="norm_out")(h))
        size = (side, side)
        return nn.Conv(self.channels, size, dtype=self.dtype, name="conv_out")(h)


def _call(block: nn.Module, h: jax.Array) -> jax.Array:
    return block(h)


class MaskGITEncoder(_Backbone):
    """Images to latents."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images [B, H, W, 3] in [0, 1] -> [B, H / f, W / f, channels]."""
        h = nn.Conv(
            self.width, (3, 3), use_bias=False, dtype=self.dtype, name="conv_in"
        )(x)
        last = len(self.multipliers) - 1
        for level in range(last + 1):
            remat = level in self.remat_levels
            h = self.blocks(h, level, f"down_{level}_block", remat)
            if level < last:
                h = nn.avg_pool(h, (2, 2), strides=(2, 2))
        return self.out(self.blocks(h, last, "mid_block", False), 1)


class MaskGITDecoder(_Backbone):
    """Quantised latents to images."""

    @nn.compact
    def __call__(self, z_q: jax.Array) -> jax.Array:
        """[B, h, w, D] -> [B, H, W, channels] in `dtype`, not clipped; in [0, 1]."""
        last = len(self.multipliers) - 1
        top = self.width * self.multipliers[last]
        h = nn.Conv(top, (3, 3), dtype=self.dtype, name="conv_in")(z_q)
        h = self.blocks(h, last, "mid_block", False)
        for level in reversed(range(last + 1)):
            remat = level in self.remat_levels
            h = self.blocks(h, level, f"up_{level}_block", remat)
            if level > 0:
                h = Upsample(self.dtype, name=f"up_{level}_upsample")(h)
        return self.out(h, 3)


class MaskGITTokenizer(Tokenizer):
    """A `Tokenizer` with MaskGIT's networks. Make it by `maskgit_tokenizer`.

    Fields of `Tokenizer` that `maskgit_tokenizer` does not take are of no use here.
    """

    def make_decoder(self, **extra) -> MaskGITDecoder:
        return MaskGITDecoder(channels=3, **self._backbone(), **extra)

    def _backbone(self) -> dict[str, Any]:
        return dict(
            width=self.width,
            multipliers=tuple(self.multipliers),
            res_blocks=self.res_blocks,
            groups=self.norm_groups,
            dtype=jnp.dtype(self.dtype),
            remat_levels=tuple(self.remat_levels),
        )

    def setup(self):
        self.quantize = self.make_quantizer()
        channels = self.quantize.latent_channels
        self.encoder = MaskGITEncoder(channels=channels, **self._backbone())
        self.decoder = self.make_decoder()

    def encode_latents(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Images [B, H, W, 3] in [-1, 1] -> latents [B, h, w, D], not quantised.

        Nothing is dropped in training: `train` is of no use here.
        """
        with jax.named_scope("encoder"):
            return self.encoder((x + 1) / 2)

    def decode_latents(self, z_q: jax.Array, *, train: bool = False) -> jax.Array:
        """Quantised latents [B, h, w, D] -> images [B, H, W, 3], not clipped."""
        with jax.named_scope("decoder"):
            return 2 * self.decoder(z_q).astype(jnp.float32) - 1


def maskgit_tokenizer(
    *,
    quantizer: Mapping[str, Any],
    width: int = 128,
    multipliers: Sequence[int] = (1, 1, 2, 2, 4),
    res_blocks: int = 2,
    norm_groups: int = NORM_GROUPS,
    dtype: str = "float32",
    remat_levels: Sequence[int] = (),
) -> MaskGITTokenizer:
    """The tokenizer of a model section whose `architecture` is 'maskgit'.

    For the fields see `Tokenizer`. The published ones have the quantizer `vq` with 1024
    codes of 256 numbers, and else what stands here.
    """
    return MaskGITTokenizer(
        quantizer=quantizer,
        decoder_norm={"name": "group"},
        attention_factors=(),
        width=width,
        multipliers=multipliers,
        res_blocks=res_blocks,
        norm_groups=norm_groups,
        dtype=dtype,
        remat_levels=remat_levels,
    )
