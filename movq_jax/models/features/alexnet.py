"""The convolutions of AlexNet, in the widths of torchvision."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from movq_jax.models.features.pooling import max_pool_3x3

WIDTHS = (64, 192, 384, 256, 256)  # of the five convolutions, and of the maps
SIZES = (11, 5, 3, 3, 3)
PADDINGS = (2, 2, 1, 1, 1)
STRIDES = (4, 1, 1, 1, 1)
POOL_BEFORE = (2, 3)  # a convolution, counted from 1
MIN_SIDE = 31


class AlexNetTrunk(nn.Module):
    """Five convolutions with ReLU, and two 3x3 max pools of stride 2.

    Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (arXiv
    1404.5997). Parameters are named `conv1` to `conv5`; `dtype` is that of the
    convolutions.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """Scaled images [B, H, W, 3], sides >= 31 -> relu1 to relu5 in `dtype`.

        Of 64 x 64 images the maps have 15, 7, 3, 3 and 3 positions a side.
        """
        maps = []
        layers = zip(WIDTHS, SIZES, STRIDES, PADDINGS, strict=True)
        for i, (width, size, stride, padding) in enumerate(layers, 1):
            if i in POOL_BEFORE:
                x = max_pool_3x3(x)
            conv = nn.Conv(
                width,
                (size, size),
                (stride, stride),
                padding=padding,
                dtype=self.dtype,
                name=f"conv{i}",
            )
            x = nn.relu(conv(x))
            maps.append(x)
        return tuple(maps)
