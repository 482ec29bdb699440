"""Pixels in and out of the models' range: uint8 0..255 and float32 -1..1."""

import jax
import jax.numpy as jnp
import numpy as np


def from_uint8(images: jax.Array) -> jax.Array:
    """uint8 0..255 -> float32 in [-1, 1], the same bits however it is compiled.

    One rounding: the bracket is exact. `x / 127.5 - 1` has two, and compilers turn the
    division into a product, which gives 1.0000001 for 255.
    """
    return (2.0 * images.astype(jnp.float32) - 255.0) * np.float32(1 / 255)


def to_uint8(x: jax.Array) -> jax.Array:
    """float in [-1, 1], clipped to it, -> uint8 0..255, rounded half to even."""
    return jnp.round((jnp.clip(x, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)
