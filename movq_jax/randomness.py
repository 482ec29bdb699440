"""Randomness as a function of (seed, name, step). No key is ever stored."""

import zlib

import jax


def named_key(seed: int, name: str, step: jax.Array | int = 0) -> jax.Array:
    """The key of one purpose at one step: folded by name, then by step."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return jax.random.fold_in(key, step)
