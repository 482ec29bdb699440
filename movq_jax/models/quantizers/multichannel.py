"""Multichannel quantisation: M indices a position from one shared codebook."""

import jax
from einops import rearrange

from movq_jax.models.quantizers.base import QuantizerOutput, error_per_image
from movq_jax.models.quantizers.codebook import look_up
from movq_jax.models.quantizers.lookup import SharedBookQuantizer


class MultichannelQuantizer(SharedBookQuantizer):
    """Cuts each latent vector into M chunks, all quantised by the same codebook.

    MoVQ (arXiv 2209.09002), "multichannel quantisation". That the channels share
    one codebook of dimension D / M is inferred from the paper's sizes.

    The latent has M * dim channels.
    """

    @property
    def latent_channels(self) -> int:
        """Channels of the latent."""
        return self.num_channels * self.dim

    def __call__(self, z: jax.Array, *, train: bool = False) -> QuantizerOutput:
        """z [B, h, w, M * dim], any float dtype -> QuantizerOutput."""
        features = self._features(z)
        ids, z_q = look_up(features, self.codebook(train=train))
        return QuantizerOutput(
            z_q=self._merge(self.estimate(features, z_q)),
            ids=ids,
            loss=self.vq_loss(features, z_q),
            stats={"quantisation_mse": error_per_image(features, z_q)},
        )

    def codes(self, ids: jax.Array) -> jax.Array:
        """ids [B, h, w, M] -> z_q [B, h, w, M * dim] float32."""
        return self._merge(self.codebook()[ids])

    def assigned(
        self, z: jax.Array, ids: jax.Array
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
        """By book: the features [N, d] of z, and which code [N] each one has."""
        features = self._features(z)
        return {"codebook": (features.reshape(-1, self.dim), ids.reshape(-1))}

    def _features(self, z: jax.Array) -> jax.Array:
        chunks = rearrange(z, "b h w (m d) -> b h w m d", m=self.num_channels)
        return self.codebook.features(chunks)

    def _merge(self, z_q: jax.Array) -> jax.Array:
        return rearrange(z_q, "b h w m d -> b h w (m d)")
