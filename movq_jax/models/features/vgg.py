"""The convolutions of VGG16 (arXiv 1409.1556, configuration D)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from movq_jax.models.features.pooling import max_pool_2x2

WIDTHS = (64, 128, 256, 512, 512)  # of the five blocks, and of the maps
DEPTHS = (2, 2, 3, 3, 3)  # convolutions a block
MIN_SIDE = 16


class VGG16Trunk(nn.Module):
    """3x3 convolutions with ReLU in five blocks, 2x2 max pools between them.

    Parameters are named `conv1_1` to `conv5_3`; `dtype` is that of the convolutions.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """Scaled images [B, H, W, 3] -> relu1_2, 2_2, 3_3, 4_3 and 5_3 in `dtype`.

        Map i is [B, H // 2^i, W // 2^i, WIDTHS[i]]; sides are at least 16.
        """
        maps = []
        for block, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True), 1):
            if maps:
                x = max_pool_2x2(x)
            for i in range(1, depth + 1):
                name = f"conv{block}_{i}"
                conv = nn.Conv(width, (3, 3), padding=1, dtype=self.dtype, name=name)
                x = nn.relu(conv(x))
            maps.append(x)
        return tuple(maps)
