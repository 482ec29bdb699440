"""Multichannel quantisation: M indices a position from one shared codebook."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from movq_jax.models.quantizers.base import (
    QuantizerOutput,
    straight_through,
    uniform_codebook,
    vq_loss,
)
from movq_jax.models.quantizers.search import nearest_code


class MultichannelQuantizer(nn.Module):
    """Cuts each latent vector into M chunks, all quantised by the same codebook.

    MoVQ (arXiv 2209.09002), "multichannel quantisation". That the channels share
    one codebook of dimension D / M is inferred from the paper's sizes.

    Attributes:
      codebook_size: K.
      dim: dimension of a code; the latent has M * dim channels.
      num_channels: M, indices a position.
      beta: weight of the commitment term, see `vq_loss`.
      legacy: beta on the codebook term instead, see `vq_loss`.
    """

    codebook_size: int
    dim: int
    num_channels: int = 4
    beta: float = 0.25
    legacy: bool = False

    @property
    def depth(self) -> int:
        """Channels of the latent."""
        return self.num_channels * self.dim

    def setup(self):
        self.codebook = self.param(
            "codebook", uniform_codebook, (self.codebook_size, self.dim)
        )

    def __call__(self, z: jax.Array, *, train: bool = False) -> QuantizerOutput:
        """z [B, h, w, M * dim], any float dtype -> QuantizerOutput."""
        z = z.astype(jnp.float32)
        ids = nearest_code(self.split(jax.lax.stop_gradient(z)), self.codebook)
        ids = ids.reshape(*z.shape[:3], self.num_channels)
        z_q = self.codes(ids)
        return QuantizerOutput(
            z_q=straight_through(z, z_q),
            ids=ids,
            loss=vq_loss(z, z_q, beta=self.beta, legacy=self.legacy),
            stats={"quantisation_mse": jnp.mean(jnp.square(z - z_q))},
        )

    def split(self, z: jax.Array) -> jax.Array:
        """Latents [B, h, w, M * dim] -> what is searched for, [B * h * w * M, dim]."""
        z = z.astype(jnp.float32)
        return rearrange(z, "b h w (m d) -> (b h w m) d", m=self.num_channels)

    def codes(self, ids: jax.Array) -> jax.Array:
        """ids [B, h, w, M] -> z_q [B, h, w, M * dim] float32."""
        return rearrange(self.codebook[ids], "b h w m d -> b h w (m d)")
