"""LPIPS v0.1 (Zhang et al., arXiv 1801.03924) with VGG16 and with AlexNet.

VQGAN trains with VGG16's; papers report either: the two are different numbers.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from movq_jax.models.features import alexnet, vgg
from movq_jax.models.features.distances import unit_distance

# Of images in [-1, 1], RGB.
SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
SCALE = np.array([0.458, 0.448, 0.450], np.float32)


class _LPIPS(nn.Module):
    """Weighted squared differences of a trunk's unit-normalised activations.

    The five maps' differences, each weighted by channel with a head (>= 0, no bias)
    and averaged over positions, are summed. The published heads have a dropout in
    front, which is off here as it is in VQGAN's training.

    Convolutions run in `dtype`, all else in float32. The normalisation has its epsilon
    inside the root, see `unit_normalize`. Subclasses have `min_side`, `widths` and
    `make_trunk`.
    """

    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Parameters: those of `trunk`, and `head_0` to `head_4` [C]."""
        self.trunk = self.make_trunk()
        self.heads = [
            self.param(f"head_{i}", nn.initializers.constant(1 / width), (width,))
            for i, width in enumerate(self.widths)
        ]

    def features(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """[B, H, W, 3] in [-1, 1], sides >= `min_side` -> the trunk's five maps."""
        shift, scale = (jnp.reshape(a, (1, 1, 1, 3)) for a in (SHIFT, SCALE))
        return self.trunk((x.astype(jnp.float32) - shift) / scale)

    def distance(
        self, fx: tuple[jax.Array, ...], fy: tuple[jax.Array, ...]
    ) -> jax.Array:
        """LPIPS from two images' maps: [B] float32, >= 0."""
        layers = zip(fx, fy, map(jnp.asarray, self.heads), strict=True)
        return sum(unit_distance(a, b, head) for a, b, head in layers)

    def __call__(self, x: jax.Array, x_hat: jax.Array) -> jax.Array:
        """LPIPS of images [B, H, W, 3] in [-1, 1]: [B] float32, >= 0."""
        return self.distance(self.features(x), self.features(x_hat))


class LPIPSVGG(_LPIPS):
    """LPIPS with VGG16; parameters `trunk.convB_I.{kernel, bias}` and the heads.

    bfloat16 moves the distance by less than 1 %, and its gradient keeps a cosine above
    0.97 to that of float32 (random weights, tests/models/features/test_lpips.py).
    """

    min_side = vgg.MIN_SIDE
    widths = vgg.WIDTHS

    def make_trunk(self) -> nn.Module:
        """relu1_2, 2_2, 3_3, 4_3 and 5_3."""
        return vgg.VGG16Trunk(dtype=self.dtype)


class LPIPSAlex(_LPIPS):
    """LPIPS with AlexNet; parameters `trunk.conv<i>.{kernel, bias}` and the heads.

    What its authors recommend for comparing images, and VGG16's for training. bfloat16
    does as little to it (random weights, same test).
    """

    min_side = alexnet.MIN_SIDE
    widths = alexnet.WIDTHS

    def make_trunk(self) -> nn.Module:
        """relu1 to relu5."""
        return alexnet.AlexNetTrunk(dtype=self.dtype)
