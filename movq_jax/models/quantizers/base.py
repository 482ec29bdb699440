"""What every quantizer shares: its output, the straight-through step, the VQ loss."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float


@flax.struct.dataclass
class QuantizerOutput:
    """The result of quantising a batch of latents."""

    z_q: jax.Array  # [B, h, w, D] float32, straight-through to the latents
    ids: jax.Array  # [B, h, w, M] int32
    loss: jax.Array  # scalar, to be added to the image losses
    stats: dict[str, Any]  # name -> scalar, for the log


def straight_through(
    z: Float[Array, "*shape"], z_q: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The value of z_q exactly, with gradient 1 to z.

    Written as `sg(z_q) + (z - sg(z))`: `z + sg(z_q - z)` is not z_q after rounding.
    """
    return stop_gradient(z_q) + (z - stop_gradient(z))


def vq_loss(
    z: Float[Array, "*shape"],
    z_q: Float[Array, "*shape"],
    *,
    beta: float,
    legacy: bool,
) -> Float[Array, ""]:
    """Codebook and commitment loss, mean over all elements (VQ-VAE, 1711.00937, eq. 3).

    `mean (sg(z) - z_q)² + beta * mean (z - sg(z_q))²`. With `legacy` beta weighs the
    codebook term and the commitment has weight 1: the placement that the published
    VQGAN models and SBER-MoVQGAN were trained with.
    """
    codebook = jnp.mean(jnp.square(stop_gradient(z) - z_q))
    commitment = jnp.mean(jnp.square(z - stop_gradient(z_q)))
    if legacy:
        return beta * codebook + commitment
    return codebook + beta * commitment


def uniform_codebook(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """U(-1/K, 1/K) for K = shape[0], the initialisation of VQ-VAE and VQGAN."""
    return jax.random.uniform(key, shape, minval=-1 / shape[0], maxval=1 / shape[0])
