"""What every quantizer shares: its output, the two estimators, the VQ loss."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

WHERE = "config.model.quantizer"  # where the fields of a quantizer stand


@flax.struct.dataclass
class QuantizerOutput:
    """The result of quantising a batch of latents."""

    z_q: jax.Array  # [B, h, w, D] float32; gradients go to the latents, see ESTIMATORS
    ids: jax.Array  # [B, h, w, M] int32
    loss: jax.Array  # scalar, to be added to the image losses
    stats: dict[str, Any]  # for the log: name -> scalar, or one value an image [B]


def straight_through(
    z: Float[Array, "*shape"], z_q: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The value of z_q exactly, with gradient 1 to z.

    Written as `sg(z_q) + (z - sg(z))`: `z + sg(z_q - z)` is not z_q after rounding.
    """
    return stop_gradient(z_q) + (z - stop_gradient(z))


def rotate(
    z: Float[Array, "*rows D"], z_q: Float[Array, "*rows D"]
) -> Float[Array, "*rows D"]:
    """The value of z_q exactly; the gradient is turned and scaled as z is onto z_q.

    The rotation trick (arXiv 2410.06424, eq. 4): with u = z/|z|, v = z_q/|z_q| and
    r = (u+v)/|u+v|, all held constant, `|z_q|/|z| (z - 2 r rᵀz + 2 v uᵀz)` equals z_q
    and is linear in z. Where there is no such rotation, z or z_q of length 0 or
    opposite to each other, the gradient is that of `straight_through`.
    """
    u, z_norm = _direction(stop_gradient(z))
    v, q_norm = _direction(stop_gradient(z_q))
    r, bisector = _direction(u + v)
    turned = z - 2 * r * _dot(r, z) + 2 * v * _dot(u, z)
    exists = (z_norm > 1e-6) & (q_norm > 1e-6) & (bisector > 1e-3)
    scale = jnp.where(exists, q_norm / jnp.maximum(z_norm, 1e-6), 1.0)
    moving = jnp.where(exists, scale * turned, z)
    return straight_through(moving, z_q)


def _direction(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x / |x| (0 where x is 0) and |x| [..., 1]."""
    norm = jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True))
    return x / jnp.maximum(norm, 1e-12), norm


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(a * b, axis=-1, keepdims=True)


# How the gradient gets from the codes to the latents: (z, z_q) [..., D] -> z_q.
ESTIMATORS = {"straight_through": straight_through, "rotation": rotate}


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


def error_per_image(
    features: Float[Array, "B h w *d"], z_q: Float[Array, "B h w *d"]
) -> Float[Array, " B"]:
    """Mean square of what quantisation changes, for each image."""
    square = jnp.square(features - z_q)
    return jnp.mean(square, axis=tuple(range(1, square.ndim)))


def normalised(x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
    """x / max(|x|, 1e-12), with a gradient that is finite at 0."""
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
