"""Discriminators: images to maps of logits."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class PatchDiscriminator(nn.Module):
    """PatchGAN (pix2pix, arXiv 1611.07004), as VQGAN uses it.

    4x4 convolutions with zero padding 1: 3 -> width, stride 2, then `layers` more
    whose width doubles up to 8 * width, the last of them with stride 1, then one to
    a single logit. Batch norm on all but the first and last; LeakyReLU 0.2.
    256² images give 30² logits with 3 layers, 62² with 2. Kernels start N(0, 0.02),
    batch-norm scales N(1, 0.02).

    Attributes:
      width: channels of the first layer.
      layers: of stride 2.
      norm: 'batch' or 'none'. Batch statistics are those of the global batch.
    """

    width: int = 64
    layers: int = 3
    norm: str = "batch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Images [B, H, W, 3] in [-1, 1] -> logits [B, H', W', 1] float32.

        With `train` the batch's statistics normalise, and the running averages are
        updated if 'batch_stats' is mutable.
        """
        h = self._conv(self.width, stride=2, use_bias=True, name="conv_0")(x)
        h = nn.leaky_relu(h, 0.2)
        for i in range(1, self.layers + 1):
            width = self.width * min(2**i, 8)
            stride = 2 if i < self.layers else 1
            has_norm = self.norm != "none"
            h = self._conv(width, stride, use_bias=not has_norm, name=f"conv_{i}")(h)
            if has_norm:
                h = nn.BatchNorm(
                    use_running_average=not train,
                    momentum=0.9,
                    epsilon=1e-5,
                    dtype=self.dtype,
                    scale_init=_around_one,
                    name=f"norm_{i}",
                )(h)
            h = nn.leaky_relu(h, 0.2)
        h = self._conv(1, stride=1, use_bias=True, name="conv_out")(h)
        return h.astype(jnp.float32)

    def _conv(self, width: int, stride: int, use_bias: bool, name: str) -> nn.Conv:
        return nn.Conv(
            width,
            (4, 4),
            strides=(stride, stride),
            padding=((1, 1), (1, 1)),
            use_bias=use_bias,
            dtype=self.dtype,
            kernel_init=nn.initializers.normal(0.02),
            name=name,
        )


def _around_one(key, shape, dtype=jnp.float32):
    return 1.0 + 0.02 * jax.random.normal(key, shape, dtype)


DISCRIMINATORS = {"patch": PatchDiscriminator}
