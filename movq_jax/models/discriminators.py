"""Discriminators: images to maps of logits."""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.models.layers import num_groups

WHERE = "config.loss.discriminator"  # for error messages

PATCH_NORMS = ("batch", "group", "none")


class PatchDiscriminator(nn.Module):
    """PatchGAN (pix2pix, arXiv 1611.07004), as VQGAN uses it.

    4x4 convolutions with zero padding 1: 3 -> width, stride 2, then `layers` more
    whose width doubles up to 8 * width, the last of them with stride 1, then one to
    a single logit. A norm on all but the first and last; LeakyReLU 0.2.
    256² images give 30² logits with 3 layers, 62² with 2. Kernels start N(0, 0.02),
    batch-norm scales N(1, 0.02).

    Deviations from VQGAN's code: biases start at 0, not at torch's default; the
    running average of batch norm keeps the biased variance, not the unbiased one.

    Attributes:
      width: channels of the first layer.
      layers: of stride 2.
      norm: 'batch', 'group' or 'none'. Batch statistics are those of the global
        batch, and couple its images: a gradient penalty per image wants another norm.
        Groups are 32, or the largest divisor of the width below that; their scales
        start at 1. Convolutions have a bias unless a batch norm follows, as in
        pix2pix's code.

    Raises:
      UserError: a size below 1, an unknown norm; at the call, more layers than the
        images have pixels for.
    """

    width: int = 64
    layers: int = 3
    norm: str = "batch"
    dtype: Any = jnp.float32

    def __post_init__(self):
        _check_positive(self, "width", "layers")
        if self.norm not in PATCH_NORMS:
            hint = families.nearest(self.norm, PATCH_NORMS)
            raise UserError(f"{WHERE}.norm is {self.norm!r}{hint}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Images [B, H, W, 3] in [-1, 1] -> logits [B, H', W', 1] float32.

        With `train` the batch's statistics normalise, and the running averages are
        updated if 'batch_stats' is mutable.
        """
        self._check_map(*x.shape[1:3])
        h = self._conv(self.width, stride=2, use_bias=True, name="conv_0")(x)
        h = nn.leaky_relu(h, 0.2)
        for i in range(1, self.layers + 1):
            width = self.width * min(2**i, 8)
            stride = 2 if i < self.layers else 1
            use_bias = self.norm != "batch"
            h = self._conv(width, stride, use_bias=use_bias, name=f"conv_{i}")(h)
            h = self._normalised(h, train, name=f"norm_{i}")
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

    def _normalised(self, h: jax.Array, train: bool, name: str) -> jax.Array:
        """Both norms take their statistics in float32 and return `dtype`."""
        common = {"epsilon": 1e-5, "dtype": self.dtype, "name": name}
        if self.norm == "batch":
            return nn.BatchNorm(
                use_running_average=not train,
                momentum=0.9,
                scale_init=_around_one,
                **common,
            )(h)
        if self.norm == "group":
            return nn.GroupNorm(num_groups(h.shape[-1]), **common)(h)
        return h

    def _check_map(self, height: int, width: int) -> None:
        # Each stride 2 halves and rounds down, each of the two strides 1 takes one off.
        # A mean over the empty map would be NaN, in silence.
        if min(height, width) // 2**self.layers - 2 < 1:
            raise UserError(
                f"{WHERE}.layers is {self.layers}, too many for images of {height}x"
                f"{width} pixels: no logit is left; use fewer layers or larger images"
            )


class StyleGANDiscriminator(nn.Module):
    """The residual discriminator of StyleGAN 2 (arXiv 1912.04958), as MaskGIT has it.

    Without StyleGAN's equalised learning rate and minibatch deviation: conv 3x3 to
    `width`; `BlurBlock`s that halve the image and double the width, up to
    `max_width`, until the shorter side is at most 4; conv 3x3, a dense layer over the
    flattened map, both of the last width, and one to the logit. LeakyReLU 0.2, kernels
    Xavier-uniform, biases 0, no norm: images do not see each other. The parameters fit
    one image size, that of the first call.

    Of 256² images it is MaskGIT's network: 64 channels, then 128 at 128², 256 at 64²,
    512 from 32² to 4², 23,998,017 parameters. Deviation: there the width belongs to
    the resolution (128² images begin with 128 channels, 32² with 512), here the
    images, of any size, begin with `width`.

    Attributes:
      width: channels of the first layer.
      max_width: most channels of a layer.

    Raises:
      UserError: a size below 1; at the call, images with a side that would have to be
        halved while it is odd.
    """

    width: int = 64
    max_width: int = 512
    dtype: Any = jnp.float32

    def __post_init__(self):
        _check_positive(self, "width", "max_width")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Images [B, H, W, 3] in [-1, 1] -> logits [B, 1, 1, 1] float32.

        `train` changes nothing; the call is that of all discriminators.
        """
        widths = [
            min(self.width * 2**i, self.max_width)
            for i in range(1 + _num_halvings(*x.shape[1:3]))
        ]
        h = _xavier_conv(widths[0], 3, self.dtype, name="conv_in")(x)
        h = nn.leaky_relu(h, 0.2)
        for i, width in enumerate(widths[1:]):
            h = BlurBlock(width, self.dtype, name=f"block_{i}")(h)
        h = _xavier_conv(widths[-1], 3, self.dtype, name="conv_out")(h)
        h = nn.leaky_relu(h, 0.2).reshape(h.shape[0], 1, 1, -1)
        dense = partial(nn.Dense, kernel_init=nn.initializers.xavier_uniform())
        h = dense(widths[-1], dtype=self.dtype, name="dense")(h)
        return dense(1, dtype=jnp.float32, name="dense_out")(nn.leaky_relu(h, 0.2))


class BlurBlock(nn.Module):
    """A residual block that halves height and width by `blur_pool`."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H / 2, W / 2, width]."""
        h = _xavier_conv(x.shape[-1], 3, self.dtype, name="conv_0")(x)
        h = blur_pool(nn.leaky_relu(h, 0.2))
        h = _xavier_conv(self.width, 3, self.dtype, name="conv_1")(h)
        h = nn.leaky_relu(h, 0.2)
        shortcut = _xavier_conv(
            self.width, 1, self.dtype, use_bias=False, name="conv_shortcut"
        )(blur_pool(x))
        return (h + shortcut) / math.sqrt(2)


def blur_pool(x: jax.Array) -> jax.Array:
    """Halves height and width (arXiv 1904.11486): blur of 4 taps, stride 2.

    Each channel is filtered with outer([1, 3, 3, 1]) / 64 and zero padding 1.

    Args:
      x: [B, H, W, C] with even H and W.

    Returns:
      [B, H / 2, W / 2, C] in the dtype of x.
    """
    return _blur_rows(_blur_rows(x).swapaxes(1, 2)).swapaxes(1, 2)


def _blur_rows(x: jax.Array) -> jax.Array:
    """The half of `blur_pool` along axis 1.

    By sums, not as a depthwise convolution: XLA's gradients of those are slow, on a
    CPU by an order of magnitude, and R1 takes two of them.
    """
    even, odd = x[:, 0::2], x[:, 1::2]
    before = jnp.pad(odd, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
    after = jnp.pad(even, ((0, 0), (0, 1), (0, 0), (0, 0)))[:, 1:]
    return (before + 3 * even + 3 * odd + after) / 8


def _num_halvings(height: int, width: int) -> int:
    """How often both sides are halved until the shorter one is at most 4."""
    count = 0
    while min(height, width) >> count > 4:
        if (height >> count) % 2 or (width >> count) % 2:
            raise UserError(
                f"{WHERE}.name is 'stylegan', which halves images until their side is "
                f"at most 4; {height}x{width} pixels do not halve evenly that often; "
                "use a power of 2"
            )
        count += 1
    return count


def _xavier_conv(
    width: int, size: int, dtype: Any, *, name: str, use_bias: bool = True
) -> nn.Conv:
    return nn.Conv(
        width,
        (size, size),
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=nn.initializers.xavier_uniform(),
        name=name,
    )


def _around_one(key, shape, dtype=jnp.float32):
    return 1.0 + 0.02 * jax.random.normal(key, shape, dtype)


def _check_positive(module: nn.Module, *names: str) -> None:
    for name in names:
        if getattr(module, name) < 1:
            raise UserError(
                f"{WHERE}.{name} is {getattr(module, name)}; 1 is the least"
            )


DISCRIMINATORS = {"patch": PatchDiscriminator, "stylegan": StyleGANDiscriminator}
