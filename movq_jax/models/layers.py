"""The layers that encoder and decoder are made of.

Shapes are NHWC. Convolutions and matrix products run in `dtype` (float32 or
bfloat16); parameters, normalisation statistics and softmax stay in float32.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from jaxtyping import Array, Float

from movq_jax.errors import UserError

# A norm layer is called as norm(x, z_q): group norm ignores the quantised map,
# spatial norm is modulated by it. Blocks are handed a factory and never ask which.
NormFactory = Callable[..., nn.Module]

NORM_GROUPS = 32
NORM_EPSILON = 1e-6

# Attention scores of an image, above which the queries go by in blocks: 64² positions
# to one another, 64 MiB in float32. Training sizes, to 512² at f8, lie at or below.
MAX_SCORES = 4096**2


def num_groups(channels: int, most: int = NORM_GROUPS) -> int:
    """The largest divisor of `channels` up to `most`, which is 32 in all papers."""
    return next(g for g in range(min(most, channels), 0, -1) if channels % g == 0)


class GroupNorm(nn.Module):
    """Group normalisation, eps 1e-6, affine; the quantised map is ignored.

    Statistics are taken in float32, the result is returned in `dtype`. For `groups`
    see `num_groups`.
    """

    groups: int = NORM_GROUPS
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, z_q: jax.Array | None = None) -> jax.Array:
        groups = num_groups(x.shape[-1], self.groups)
        norm = nn.GroupNorm(groups, epsilon=NORM_EPSILON, dtype=self.dtype, name="norm")
        return norm(x)


class SpatialNorm(nn.Module):
    """Spatially conditional normalisation: `norm(x) * conv_y(z_q) + conv_b(z_q)`.

    MoVQ (arXiv 2209.09002), section 3: point-wise convolutions of the quantised
    map, resized to x by nearest neighbour, scale and shift the normalised
    activations. There is no "1 +" on the scale.

    The convolutions run at the latent's resolution and their *results* are
    upsampled: a 1x1 convolution commutes with nearest-neighbour upsampling, so the
    values are the same for 1/f² of the work.

    Attributes:
      start: 'identity' starts as plain group norm (conv_y bias 1, conv_b bias 0,
        small kernels), a deviation from the published code: with zero biases and
        codes of size 1/K every norm would start at scale 0 and pass no gradient.
        'torch' is torch's default, U(±1/sqrt(fan_in)) for kernels and biases.
      groups: see `num_groups`.
      dtype: of the convolutions and of the result.
    """

    start: str = "identity"
    groups: int = NORM_GROUPS
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, z_q: jax.Array) -> jax.Array:
        """x [B, H, W, C], z_q [B, h, w, D] with H a multiple of h -> [B, H, W, C]."""
        channels, depth = x.shape[-1], z_q.shape[-1]
        scale_init, shift_init = MODULATION_STARTS[self.start](depth)
        groups = num_groups(channels, self.groups)
        normed = nn.GroupNorm(
            groups, epsilon=NORM_EPSILON, dtype=self.dtype, name="norm"
        )(x)
        scale = nn.Conv(
            channels, (1, 1), dtype=self.dtype, name="conv_y", **scale_init
        )(z_q)
        shift = nn.Conv(
            channels, (1, 1), dtype=self.dtype, name="conv_b", **shift_init
        )(z_q)
        factor = x.shape[1] // z_q.shape[1]
        return normed * upsample_nearest(scale, factor) + upsample_nearest(
            shift, factor
        )


def _identity_start(fan_in: int) -> tuple[dict, dict]:
    """Initialisers of conv_y and conv_b, as keyword arguments of `nn.Conv`."""
    kernel = nn.initializers.normal(0.02)
    return (
        dict(kernel_init=kernel, bias_init=nn.initializers.ones),
        dict(kernel_init=kernel, bias_init=nn.initializers.zeros),
    )


def _torch_start(fan_in: int) -> tuple[dict, dict]:
    uniform = symmetric_uniform(fan_in**-0.5)
    both = dict(kernel_init=uniform, bias_init=uniform)
    return both, both


MODULATION_STARTS = {"identity": _identity_start, "torch": _torch_start}


# torch's default for the kernels of linear layers: U(-bound, bound), as above.
torch_kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def symmetric_uniform(bound: float) -> nn.initializers.Initializer:
    """Draws from U(-bound, bound): torch's default with bound = 1/sqrt(fan_in)."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def group_norm(*, groups: int = NORM_GROUPS, dtype: Any = jnp.float32) -> NormFactory:
    """Norms that ignore the quantised map: VQGAN's decoder."""
    return partial(GroupNorm, groups=groups, dtype=dtype)


def spatial_norm(
    *, init: str = "identity", groups: int = NORM_GROUPS, dtype: Any = jnp.float32
) -> NormFactory:
    """Norms modulated by the quantised map: MoVQ's decoder. See `SpatialNorm`.

    Raises:
      UserError: `init` is neither 'identity' nor 'torch'.
    """
    if init not in MODULATION_STARTS:
        raise UserError(
            f"config.model.decoder_norm.init is {init!r}; "
            f"use {' or '.join(MODULATION_STARTS)}"
        )
    return partial(SpatialNorm, start=init, groups=groups, dtype=dtype)


DECODER_NORMS = {"group": group_norm, "spatial": spatial_norm}


def upsample_nearest(x: jax.Array, factor: int) -> jax.Array:
    """[B, h, w, C] -> [B, h * factor, w * factor, C] by repetition."""
    if factor == 1:
        return x
    return repeat(x, "b h w c -> b (h r) (w s) c", r=factor, s=factor)


class ResBlock(nn.Module):
    """norm, swish, conv 3x3, norm, swish, dropout, conv 3x3, plus the input.

    Where the width changes, a 1x1 convolution of the input is added instead
    (`conv_shortcut`). As in VQGAN (arXiv 2012.09841).
    """

    channels: int
    norm: NormFactory
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, z_q: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, channels]."""
        h = nn.swish(self.norm(name="norm1")(x, z_q))
        h = nn.Conv(self.channels, (3, 3), dtype=self.dtype, name="conv1")(h)
        h = nn.swish(self.norm(name="norm2")(h, z_q))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = nn.Conv(self.channels, (3, 3), dtype=self.dtype, name="conv2")(h)
        if x.shape[-1] != self.channels:
            x = nn.Conv(self.channels, (1, 1), dtype=self.dtype, name="conv_shortcut")(
                x
            )
        return x + h


class AttnBlock(nn.Module):
    """Single-head self-attention over all positions, scale C^-0.5.

    The residual is taken from before the norm. Softmax in float32. Memory grows with
    the number of positions, not with its square, see `attend`.
    """

    norm: NormFactory
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, z_q: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        _, height, _, channels = x.shape
        h = rearrange(self.norm(name="norm")(x, z_q), "b h w c -> b (h w) c")

        def dense(name):
            return nn.Dense(channels, dtype=self.dtype, name=name)

        q, k, v = dense("q")(h), dense("k")(h), dense("v")(h)
        h = dense("proj_out")(attend(q, k, v))
        return x + rearrange(h, "b (h w) c -> b h w c", h=height)


def attend(
    q: Float[Array, "B N C"],
    k: Float[Array, "B N C"],
    v: Float[Array, "B N C"],
    max_scores: int = MAX_SCORES,
) -> Float[Array, "B N C"]:
    """`softmax(q kᵀ C^-0.5) v`, softmax in float32, the result in the inputs' dtype.

    With more than `max_scores` scores an image (N²), blocks of queries go by one after
    the other, each over all keys: the same sums, so the same result up to rounding,
    with at most about `max_scores` of them held at once. The gradient computes a
    block's scores again.
    """
    positions = q.shape[1]
    blocks = -(-(positions**2) // max_scores)
    if blocks == 1:
        return _attend(q, k, v)
    size = -(-positions // blocks)
    # Of the rows that fill the last block nothing is kept.
    q = jnp.pad(q, ((0, 0), (0, -positions % size), (0, 0)))
    parts = jax.lax.map(
        jax.checkpoint(lambda part: _attend(part, k, v), prevent_cse=False),
        rearrange(q, "b (n s) c -> n b s c", s=size),
    )
    return rearrange(parts, "n b s c -> b (n s) c")[:, :positions]


def _attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    scores = jnp.einsum("bic,bjc->bij", q, k, preferred_element_type=jnp.float32)
    weights = nn.softmax(scores * q.shape[-1] ** -0.5, axis=-1).astype(v.dtype)
    return jnp.einsum("bij,bjc->bic", weights, v)


class Downsample(nn.Module):
    """Halves height and width: 3x3 convolution, stride 2, padded below and right.

    Padding (0, 1) is torch's `pad (0,1,0,1)`; 'SAME' equals it for even sides only.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H // 2, W // 2, C]."""
        return nn.Conv(
            x.shape[-1],
            (3, 3),
            strides=(2, 2),
            padding=((0, 1), (0, 1)),
            dtype=self.dtype,
            name="conv",
        )(x)


class Upsample(nn.Module):
    """Doubles height and width: nearest neighbour, then a 3x3 convolution."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, 2 H, 2 W, C]."""
        x = upsample_nearest(x, 2)
        return nn.Conv(x.shape[-1], (3, 3), dtype=self.dtype, name="conv")(x)
