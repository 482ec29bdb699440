"""Inception v3 as FID means it: the TensorFlow graph of 2015-12-05.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (arXiv
1512.00567), with what that graph does and others do not: 1008 outputs, average pools
that do not count the padding, and a max pool in the last block where the paper has an
average. FID, KID, IS, precision and recall are only comparable on this network with its
published weights (`movq_jax.pretrained.inception`).

Layers have their published names, those of torchvision and of the public ports.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from movq_jax.models.features.pooling import (
    average_pool_3x3_same,
    max_pool_3x3,
    max_pool_3x3_same,
)

SIDE = 299
POOL_WIDTH = 2048
CLASSES = 1008  # 1000 of them mean something
SPATIAL_CHANNELS = 7
SPATIAL_WIDTH = 17 * 17 * SPATIAL_CHANNELS
EPSILON = 1e-3  # of the normalisation


@flax.struct.dataclass
class InceptionOutput:
    """What the metrics look at, float32; the host's results have NumPy arrays."""

    pool: jax.Array  # [B, 2048]: FID, KID, precision and recall
    spatial: jax.Array  # [B, 2023]: sFID
    logits: jax.Array  # [B, 1008]
    logits_unbiased: jax.Array  # [B, 1008], without the bias: IS


class ConvNorm(nn.Module):
    """Convolution without bias, normalisation by stored statistics, ReLU.

    Parameters: `kernel` [height, width, in, C]; `scale`, `bias`, `mean`, `var` [C]. The
    statistics are parameters as all else is: nothing here is trained, and what is not
    loaded is zero.
    """

    width: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, in] -> [B, H', W', C], >= 0."""
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        shape = (*self.size, x.shape[-1], self.width)
        kernel = self.param("kernel", zeros, shape)
        scale = self.param("scale", ones, (self.width,))
        bias = self.param("bias", zeros, (self.width,))
        mean = self.param("mean", zeros, (self.width,))
        var = self.param("var", ones, (self.width,))
        strides = (self.stride, self.stride)
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, kernel, strides, self.padding, dimension_numbers=layout
        )
        scale = scale * jax.lax.rsqrt(var + EPSILON)
        x = (x - mean.reshape(1, 1, 1, -1)) * scale.reshape(1, 1, 1, -1)
        return nn.relu(x + bias.reshape(1, 1, 1, -1))


class BlockA(nn.Module):
    """Mixed_5b to 5d: 1x1, 5x5, two 3x3 and an average pool, at 35x35."""

    pooled: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, 224 + pooled]."""
        one = ConvNorm(64, name="branch1x1")(x)
        five = ConvNorm(48, name="branch5x5_1")(x)
        five = ConvNorm(64, (5, 5), name="branch5x5_2")(five)
        three = ConvNorm(64, name="branch3x3dbl_1")(x)
        three = ConvNorm(96, (3, 3), name="branch3x3dbl_2")(three)
        three = ConvNorm(96, (3, 3), name="branch3x3dbl_3")(three)
        pool = ConvNorm(self.pooled, name="branch_pool")(average_pool_3x3_same(x))
        return jnp.concatenate([one, five, three, pool], axis=-1)


class BlockB(nn.Module):
    """Mixed_6a: from 35x35 to 17x17."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, (H - 1) // 2, (W - 1) // 2, 480 + C]."""
        three = ConvNorm(384, (3, 3), 2, "VALID", name="branch3x3")(x)
        double = ConvNorm(64, name="branch3x3dbl_1")(x)
        double = ConvNorm(96, (3, 3), name="branch3x3dbl_2")(double)
        double = ConvNorm(96, (3, 3), 2, "VALID", name="branch3x3dbl_3")(double)
        return jnp.concatenate([three, double, max_pool_3x3(x)], axis=-1)


class BlockC(nn.Module):
    """Mixed_6b to 6e: 7x7 in factors 1x7 and 7x1, at 17x17."""

    inner: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, H, W, C] -> [B, H, W, 768], and its first 192: those of `branch1x1`."""
        row, column = (1, 7), (7, 1)
        one = ConvNorm(192, name="branch1x1")(x)
        seven = ConvNorm(self.inner, name="branch7x7_1")(x)
        seven = ConvNorm(self.inner, row, name="branch7x7_2")(seven)
        seven = ConvNorm(192, column, name="branch7x7_3")(seven)
        double = ConvNorm(self.inner, name="branch7x7dbl_1")(x)
        double = ConvNorm(self.inner, column, name="branch7x7dbl_2")(double)
        double = ConvNorm(self.inner, row, name="branch7x7dbl_3")(double)
        double = ConvNorm(self.inner, column, name="branch7x7dbl_4")(double)
        double = ConvNorm(192, row, name="branch7x7dbl_5")(double)
        pool = ConvNorm(192, name="branch_pool")(average_pool_3x3_same(x))
        return jnp.concatenate([one, seven, double, pool], axis=-1), one


class BlockD(nn.Module):
    """Mixed_7a: from 17x17 to 8x8."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, (H - 1) // 2, (W - 1) // 2, 512 + C]."""
        three = ConvNorm(192, name="branch3x3_1")(x)
        three = ConvNorm(320, (3, 3), 2, "VALID", name="branch3x3_2")(three)
        seven = ConvNorm(192, name="branch7x7x3_1")(x)
        seven = ConvNorm(192, (1, 7), name="branch7x7x3_2")(seven)
        seven = ConvNorm(192, (7, 1), name="branch7x7x3_3")(seven)
        seven = ConvNorm(192, (3, 3), 2, "VALID", name="branch7x7x3_4")(seven)
        return jnp.concatenate([three, seven, max_pool_3x3(x)], axis=-1)


class BlockE(nn.Module):
    """Mixed_7b and 7c: 3x3 in factors side by side, at 8x8."""

    pools_by_maximum: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, 2048]."""
        row, column = (1, 3), (3, 1)
        one = ConvNorm(320, name="branch1x1")(x)
        three = ConvNorm(384, name="branch3x3_1")(x)
        threes = [
            ConvNorm(384, row, name="branch3x3_2a")(three),
            ConvNorm(384, column, name="branch3x3_2b")(three),
        ]
        double = ConvNorm(448, name="branch3x3dbl_1")(x)
        double = ConvNorm(384, (3, 3), name="branch3x3dbl_2")(double)
        doubles = [
            ConvNorm(384, row, name="branch3x3dbl_3a")(double),
            ConvNorm(384, column, name="branch3x3dbl_3b")(double),
        ]
        pool = (
            max_pool_3x3_same(x) if self.pools_by_maximum else average_pool_3x3_same(x)
        )
        pool = ConvNorm(192, name="branch_pool")(pool)
        return jnp.concatenate([one, *threes, *doubles, pool], axis=-1)


class Classifier(nn.Module):
    """The last layer, with and without its bias."""

    @nn.compact
    def __call__(self, pool: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, 2048] -> logits [B, 1008], and the same without the bias."""
        shape = (pool.shape[-1], CLASSES)
        kernel = self.param("kernel", nn.initializers.zeros, shape)
        bias = self.param("bias", nn.initializers.zeros, (CLASSES,))
        unbiased = pool @ kernel
        return unbiased + bias.reshape(1, -1), unbiased


class Inception(nn.Module):
    """The whole network, all of it in float32."""

    @nn.compact
    def __call__(self, x: jax.Array) -> InceptionOutput:
        """Images [B, 299, 299, 3], RGB, scaled by `inception_input` to about [-1, 1].

        `spatial` is the TensorFlow graph's `mixed_6/conv`, here the branch 1x1 of
        Mixed_6d after its ReLU: the first 7 of its 192 channels, flattened row by row
        (sFID: Nash et al., arXiv 2103.03841, as ADM's evaluation takes it).
        """
        x = ConvNorm(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(x)
        x = ConvNorm(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = max_pool_3x3(ConvNorm(64, (3, 3), name="Conv2d_2b_3x3")(x))
        x = ConvNorm(80, name="Conv2d_3b_1x1")(x)
        x = ConvNorm(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x)
        x = max_pool_3x3(x)
        for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = BlockA(pooled, name=name)(x)
        x = BlockB(name="Mixed_6a")(x)
        x, _ = BlockC(128, name="Mixed_6b")(x)
        x, _ = BlockC(160, name="Mixed_6c")(x)
        x, branch = BlockC(160, name="Mixed_6d")(x)
        x, _ = BlockC(192, name="Mixed_6e")(x)
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE(pools_by_maximum=False, name="Mixed_7b")(x)
        x = BlockE(pools_by_maximum=True, name="Mixed_7c")(x)
        pool = jnp.mean(x, axis=(1, 2))
        logits, logits_unbiased = Classifier(name="fc")(pool)
        spatial = branch[..., :SPATIAL_CHANNELS].reshape(len(x), -1)
        return InceptionOutput(pool, spatial, logits, logits_unbiased)
