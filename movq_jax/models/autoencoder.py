"""The convolutional encoder and decoder of VQGAN, with either kind of norm.

VQGAN, arXiv 2012.09841; MoVQ, arXiv 2209.09002, modulates every norm of the
decoder by the quantised map. Level i works at `width * multipliers[i]` channels and
at 1 / 2^i of the image's side; the last level is the latent's.

`remat_levels` names levels whose blocks keep no activations for the gradient but
compute them again from their input (`jax.checkpoint`): less memory for more work. The
high levels hold most of it (level 0 above all); the blocks in the middle, at the
latent's resolution, are left as they are. Names and values of parameters, and the
result, are the same with and without. On a CPU, XLA by default runs what it can as
early as it can, and saves little.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from movq_jax.models.layers import (
    NORM_GROUPS,
    AttnBlock,
    Downsample,
    GroupNorm,
    NormFactory,
    ResBlock,
    Upsample,
)


def _call_block(
    block: nn.Module, h: jax.Array, z_q: jax.Array | None, *, train: bool, remat: bool
) -> jax.Array:
    """`block(h, z_q, train=train)`, or the same with its activations made again."""

    def call(block, h, z_q):
        # Only a block with dropout asks whether it is being trained.
        options = {"train": train} if isinstance(block, ResBlock) else {}
        return block(h, z_q, **options)

    # In this form nn.remat neither renames the parameters nor traces `train`.
    return (nn.remat(call) if remat else call)(block, h, z_q)


class MidBlock(nn.Module):
    """Residual block, attention, residual block, at the latent's resolution."""

    norm: NormFactory
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, z_q: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        """[B, h, w, C] -> [B, h, w, C]."""

        def block(name):
            return ResBlock(x.shape[-1], self.norm, self.dropout, self.dtype, name=name)

        x = block("block_1")(x, z_q, train=train)
        x = AttnBlock(self.norm, self.dtype, name="attn_1")(x, z_q)
        return block("block_2")(x, z_q, train=train)


class Encoder(nn.Module):
    """Images to latents.

    Attributes:
      width: channels of the first level.
      multipliers: width of each level, in units of `width`.
      res_blocks: residual blocks a level.
      attention_factors: downsampling factors at which each residual block is
        followed by attention. VQGAN's "attention at 16" for 256² images is (16,).
      z_channels: channels of the latent.
      norm_groups: of the group norms, at most, see `layers.num_groups`.
      remat_levels: levels whose blocks are computed again for the gradient.
    """

    width: int
    multipliers: Sequence[int]
    res_blocks: int
    attention_factors: Sequence[int]
    z_channels: int
    norm_groups: int = NORM_GROUPS
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat_levels: Sequence[int] = ()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Images [B, H, W, 3] in [-1, 1] -> latents [B, H / f, W / f, z_channels]."""
        norm = partial(GroupNorm, groups=self.norm_groups, dtype=self.dtype)
        h = nn.Conv(self.width, (3, 3), dtype=self.dtype, name="conv_in")(x)
        for level, multiplier in enumerate(self.multipliers):
            remat = level in self.remat_levels
            for i in range(self.res_blocks):
                block = ResBlock(
                    self.width * multiplier,
                    norm,
                    self.dropout,
                    self.dtype,
                    name=f"down_{level}_block_{i}",
                )
                h = _call_block(block, h, None, train=train, remat=remat)
                if 2**level in self.attention_factors:
                    block = AttnBlock(norm, self.dtype, name=f"down_{level}_attn_{i}")
                    h = _call_block(block, h, None, train=train, remat=remat)
            if level + 1 < len(self.multipliers):
                h = Downsample(self.dtype, name=f"down_{level}_downsample")(h)
        h = MidBlock(norm, self.dropout, self.dtype, name="mid")(h, train=train)
        h = nn.swish(norm(name="norm_out")(h))
        return nn.Conv(self.z_channels, (3, 3), dtype=self.dtype, name="conv_out")(h)


class Decoder(nn.Module):
    """Quantised latents to images. One residual block a level more than the encoder.

    Attributes as the encoder's, but without `z_channels` and `norm_groups`, and:
      norm: makes each norm layer; group norm in VQGAN, spatial norm in MoVQ.
    """

    width: int
    multipliers: Sequence[int]
    res_blocks: int
    attention_factors: Sequence[int]
    norm: NormFactory
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat_levels: Sequence[int] = ()

    @nn.compact
    def __call__(
        self, z: jax.Array, z_q: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """z [B, h, w, C] (after post_quant_conv), z_q [B, h, w, D] -> [B, H, W, 3].

        The result is float32, not clipped; images lie in [-1, 1].
        """
        norm = self.norm
        z_q = z_q.astype(self.dtype)
        top = self.width * self.multipliers[-1]
        h = nn.Conv(top, (3, 3), dtype=self.dtype, name="conv_in")(z)
        h = MidBlock(norm, self.dropout, self.dtype, name="mid")(h, z_q, train=train)
        for level in reversed(range(len(self.multipliers))):
            remat = level in self.remat_levels
            for i in range(self.res_blocks + 1):
                block = ResBlock(
                    self.width * self.multipliers[level],
                    norm,
                    self.dropout,
                    self.dtype,
                    name=f"up_{level}_block_{i}",
                )
                h = _call_block(block, h, z_q, train=train, remat=remat)
                if 2**level in self.attention_factors:
                    block = AttnBlock(norm, self.dtype, name=f"up_{level}_attn_{i}")
                    h = _call_block(block, h, z_q, train=train, remat=remat)
            if level > 0:
                h = Upsample(self.dtype, name=f"up_{level}_upsample")(h)
        h = nn.swish(norm(name="norm_out")(h, z_q))
        h = nn.Conv(3, (3, 3), dtype=self.dtype, name="conv_out")(h)
        return h.astype(jnp.float32)
