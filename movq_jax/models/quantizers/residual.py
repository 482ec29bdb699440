"""Residual quantisation: M indices a position, each for what the ones before left."""

import jax
import jax.numpy as jnp

from movq_jax.errors import UserError
from movq_jax.models.quantizers.base import WHERE, QuantizerOutput, error_per_image
from movq_jax.models.quantizers.codebook import look_up
from movq_jax.models.quantizers.lookup import SharedBookQuantizer


class ResidualQuantizer(SharedBookQuantizer):
    """`r_0 = z; r_m = r_{m-1} - e(r_{m-1})`; the result is the sum of the codes.

    RQ-VAE (arXiv 2203.01941): all M steps share one book, which it trains by EMA
    (`config.train.codebook_update`). The loss is the mean over m of the VQ loss
    between z and the sum of the first m codes (eq. 9; its codebook term is ours, for
    books that are trained by gradient).

    The latent has dim channels.
    """

    def __post_init__(self):
        if self.form == "l2":
            raise UserError(
                f"{WHERE}.form is 'l2', but what is left of a feature has no length "
                "of 1: use plain or linear with the quantizer 'residual'"
            )
        super().__post_init__()

    @property
    def latent_channels(self) -> int:
        """Channels of the latent."""
        return self.dim

    def __call__(self, z: jax.Array, *, train: bool = False) -> QuantizerOutput:
        """z [B, h, w, dim], any float dtype -> QuantizerOutput."""
        z = z.astype(jnp.float32)
        codes = self.codebook(train=train)
        z_q, ids, loss = jnp.zeros_like(z), [], 0.0
        for _ in range(self.num_channels):
            chosen, code = look_up(z - z_q, codes)
            z_q = z_q + code
            ids.append(chosen)
            loss += self.vq_loss(z, z_q) / self.num_channels
        return QuantizerOutput(
            z_q=self.estimate(z, z_q),
            ids=jnp.stack(ids, axis=-1),
            loss=loss,
            stats={"quantisation_mse": error_per_image(z, z_q)},
        )

    def codes(self, ids: jax.Array) -> jax.Array:
        """ids [B, h, w, M] -> z_q [B, h, w, dim] float32, added in the same order."""
        codes = self.codebook()
        z_q = jnp.zeros((*ids.shape[:-1], self.dim))
        for channel in range(self.num_channels):
            z_q = z_q + codes[ids[..., channel]]
        return z_q

    def assigned(
        self, z: jax.Array, ids: jax.Array
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
        """By book: the features [N, d] of all steps, and the code [N] of each."""
        z, codes = z.astype(jnp.float32), self.codebook()
        left, features = z, []
        for channel in range(self.num_channels):
            features.append(left)
            left = left - codes[ids[..., channel]]
        features = jnp.stack(features, axis=-2)
        return {"codebook": (features.reshape(-1, self.dim), ids.reshape(-1))}
