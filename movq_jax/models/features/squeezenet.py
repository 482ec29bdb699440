"""SqueezeNet v1.0 (arXiv 1602.07360), the Caffe model, and a distance made of it."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from movq_jax.models.features.distances import unit_distance
from movq_jax.models.features.pooling import max_pool_3x3_ceil

MEAN = np.array([104.0, 117.0, 123.0], np.float32)  # of 0..255, BGR
# fire2 to fire9: the squeezed width, and that of each of the two expansions.
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128))
FIRES += ((48, 192), (48, 192), (64, 256), (64, 256))
POOL_BEFORE = (2, 5, 9)
CLASSES = 1000
MIN_SIDE = 21


class Fire(nn.Module):
    """1x1 convolution, then 1x1 and 3x3 side by side, concatenated; ReLU after each."""

    squeezed: int
    expanded: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, 2 * expanded]."""
        conv = lambda *a, name: nn.Conv(*a, dtype=self.dtype, name=name)  # noqa: E731
        x = nn.relu(conv(self.squeezed, (1, 1), name="squeeze")(x))
        x = [
            conv(self.expanded, (1, 1), name="expand1x1")(x),
            conv(self.expanded, (3, 3), name="expand3x3")(x),
        ]
        return nn.relu(jnp.concatenate(x, axis=-1))


class SqueezeNet(nn.Module):
    """The network of the Caffe release: pools in ceil mode, input BGR minus a mean.

    It is not torchvision's squeezenet1_1, whose LPIPS heads do not belong to it.
    """

    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Parameters: `conv1`, `fire2` to `fire9`, and `conv_final` if classifying."""
        self.conv1 = nn.Conv(96, (7, 7), (2, 2), padding="VALID", dtype=self.dtype)
        for i, (squeezed, expanded) in enumerate(FIRES, 2):
            setattr(self, f"fire{i}", Fire(squeezed, expanded, self.dtype))
        self.conv_final = nn.Conv(CLASSES, (1, 1), padding=1, dtype=self.dtype)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """Images [B, H, W, 3] in [-1, 1], RGB, sides >= 21 -> fire2 to fire9."""
        x = (x.astype(jnp.float32) + 1.0) * 127.5
        x = x[..., ::-1] - jnp.reshape(MEAN, (1, 1, 1, 3))
        x = nn.relu(self.conv1(x))
        maps = []
        for i in range(2, 2 + len(FIRES)):
            if i in POOL_BEFORE:
                x = max_pool_3x3_ceil(x)
            x = getattr(self, f"fire{i}")(x)
            maps.append(x)
        return tuple(maps)

    def classify(self, x: jax.Array) -> jax.Array:
        """Images as above, meant for 227² -> logits [B, 1000] float32 of ImageNet."""
        x = nn.relu(self.conv_final(self(x)[-1]))
        return jnp.mean(x.astype(jnp.float32), axis=(1, 2))


class SqueezeNetPerceptual(nn.Module):
    """The squeezenet perceptual distance: a small stand-in for LPIPS, without heads.

    Unit-normalised activations of fire2 to fire9; their squared difference is summed
    over channels, averaged over positions, and averaged over the eight maps: in
    [0, 2]. This is no published metric: LPIPS with SqueezeNet is v1.1 with heads.

    Convolutions run in `dtype`, all else in float32. bfloat16 moves the distance of a
    photograph and a noisy copy by less than 2 %, and its gradient keeps a cosine above
    0.97 to that of float32 (tests/models/features/test_squeezenet.py).
    """

    dtype: Any = jnp.float32
    min_side = MIN_SIDE

    def setup(self) -> None:
        """Parameters: those of `SqueezeNet` in `trunk`, without `conv_final`."""
        self.trunk = SqueezeNet(dtype=self.dtype)

    def features(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """[B, H, W, 3] in [-1, 1], sides >= 21 -> fire2 to fire9 in `dtype`."""
        return self.trunk(x)

    def distance(
        self, fx: tuple[jax.Array, ...], fy: tuple[jax.Array, ...]
    ) -> jax.Array:
        """The distance from two images' maps: [B] float32 in [0, 2]."""
        layers = [unit_distance(a, b) for a, b in zip(fx, fy, strict=True)]
        return sum(layers) / len(layers)

    def __call__(self, x: jax.Array, x_hat: jax.Array) -> jax.Array:
        """The distance of images [B, H, W, 3] in [-1, 1]: [B] float32 in [0, 2]."""
        return self.distance(self.features(x), self.features(x_hat))
