"""Random keys: one an image, and from it one for each purpose and step.

So what an image becomes is a function of the seed and its number alone, whatever stands
beside it in the batch.
"""

import zlib

import jax
import jax.numpy as jnp


def image_keys(seed: int, indices: jax.Array) -> jax.Array:
    """Keys [B] of the images with these numbers, int [B], in all that is drawn."""
    key = jax.random.key(seed)
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.asarray(indices))


def purpose_keys(keys: jax.Array, name: str, step: jax.Array | int = 0) -> jax.Array:
    """Keys [B] of one purpose at one step: folded by the name, then by the step."""
    return fold(fold(keys, zlib.crc32(name.encode())), step)


def fold(keys: jax.Array, data: jax.Array | int) -> jax.Array:
    """`fold_in` of a number, or of a number each, into keys [B]."""
    numbers = jnp.broadcast_to(jnp.asarray(data, jnp.uint32), keys.shape)
    return jax.vmap(jax.random.fold_in)(keys, numbers)


def gumbel(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard Gumbel noise [B, *shape] float32, from a key an image [B]."""
    return jax.vmap(lambda key: jax.random.gumbel(key, shape, jnp.float32))(keys)
