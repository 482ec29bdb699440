"""Max pooling whose gradient scatters nothing.

The gradient of `nn.max_pool` is a select-and-scatter, which is slow, and which GPUs
refuse where results are to be deterministic. Where several elements of a window share
the maximum, they share its gradient here (torch gives all of it to one of them).
"""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float


def max_pool_2x2(x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
    """2x2 windows, stride 2; an odd last row or column is left out, as in torch."""
    batch, height, width, channels = x.shape
    height, width = height // 2, width // 2
    windows = x[:, : 2 * height, : 2 * width].reshape(
        batch, height, 2, width, 2, channels
    )
    return windows.max(axis=(2, 4))


def max_pool_3x3_ceil(x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
    """3x3 windows, stride 2, where the last one may lie half outside, as in Caffe.

    A side s >= 2 becomes ceil((s - 3) / 2) + 1 = s // 2.
    """
    height, width = x.shape[1] // 2, x.shape[2] // 2
    outside = ((0, 0), (0, 1 - x.shape[1] % 2), (0, 1 - x.shape[2] % 2), (0, 0))
    padded = jnp.pad(x, outside, constant_values=-jnp.inf)
    shifted = [
        padded[:, row : row + 2 * height : 2, column : column + 2 * width : 2]
        for row in range(3)
        for column in range(3)
    ]
    return functools.reduce(jnp.maximum, shifted)
