"""Pooling by shifted sums and maxima, whose gradient scatters nothing.

The gradient of `nn.max_pool` is a select-and-scatter, which is slow, and which GPUs
refuse where results are to be deterministic. Where several elements of a window share
the maximum, they share its gradient here (torch gives all of it to one of them).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def max_pool_2x2(x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
    """2x2 windows, stride 2; an odd last row or column is left out, as in torch."""
    batch, height, width, channels = x.shape
    height, width = height // 2, width // 2
    windows = x[:, : 2 * height, : 2 * width].reshape(
        batch, height, 2, width, 2, channels
    )
    return windows.max(axis=(2, 4))


def max_pool_3x3(x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
    """3x3 windows, stride 2, all of them inside, as in torch; sides are at least 3.

    A side s becomes (s - 3) // 2 + 1.
    """
    return _max_of_nine(x, (x.shape[1] - 1) // 2, (x.shape[2] - 1) // 2)


def max_pool_3x3_ceil(x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
    """3x3 windows, stride 2, where the last one may lie half outside, as in Caffe.

    A side s >= 2 becomes ceil((s - 3) / 2) + 1 = s // 2.
    """
    height, width = x.shape[1] // 2, x.shape[2] // 2
    outside = ((0, 0), (0, 1 - x.shape[1] % 2), (0, 1 - x.shape[2] % 2), (0, 0))
    padded = jnp.pad(x, outside, constant_values=-jnp.inf)
    return _max_of_nine(padded, height, width)


def max_pool_3x3_same(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """3x3 windows, stride 1, around each position; those at the border are smaller."""
    return _around(x, jnp.maximum, -jnp.inf)


def average_pool_3x3_same(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """3x3 windows, stride 1, around each position; the mean of what lies inside.

    As torch with `count_include_pad=False`, and as TensorFlow.
    """
    height, width = x.shape[1:3]
    counts = _inside(height)[:, None] * _inside(width)
    return _around(x, jnp.add, 0.0) / jnp.asarray(counts, x.dtype)[None, :, :, None]


def _inside(side: int) -> np.ndarray:
    """How many of three neighbouring places lie inside, by the one in the middle."""
    place = np.arange(side)
    return np.minimum(place + 1, side - 1) - np.maximum(place - 1, 0) + 1


def _around(x: jax.Array, combine: Callable, outside: float) -> jax.Array:
    """Each position combined with its eight neighbours; the window is separable."""
    for axis in (1, 2):
        border = [(0, 0)] * 4
        border[axis] = (1, 1)
        padded = jnp.pad(x, border, constant_values=outside)
        side = x.shape[axis]
        cut = functools.partial(jax.lax.slice_in_dim, padded, axis=axis)
        x = functools.reduce(combine, [cut(i, i + side) for i in range(3)])
    return x


def _max_of_nine(x: jax.Array, height: int, width: int) -> jax.Array:
    """The maxima of the first height x width windows of 3x3 that are 2 apart."""
    last_row, last_column = 2 * height - 1, 2 * width - 1  # of the first in a window
    shifted = [
        x[:, row : row + last_row : 2, column : column + last_column : 2]
        for row in range(3)
        for column in range(3)
    ]
    return functools.reduce(jnp.maximum, shifted)
