"""Finite scalar quantisation: each channel rounded to a few levels, no codebook."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from movq_jax.errors import UserError
from movq_jax.fields import are_whole
from movq_jax.models.quantizers.base import (
    WHERE,
    QuantizerOutput,
    error_per_image,
    straight_through,
)
from movq_jax.models.quantizers.implicit import ImplicitQuantizer

EPSILON = 1e-3  # keeps the ends of tanh away from the rounding's edge


class FiniteScalarQuantizer(ImplicitQuantizer):
    """FSQ (arXiv 2309.15505): `round(f(z))`, f bounds channel i to L_i values.

    There is nothing to learn, no loss, and no code can die. Codes lie in [-1, 1]. All
    in float32: bfloat16 cannot hold the indices.

    Attributes:
      levels: L_i of each channel of the latent, from 2. K is their product: (8, 6, 5)
        for about 2^8, (8, 5, 5, 5) for 2^10, (7, 5, 5, 5, 5) for 2^12, (8, 8, 8, 6, 5)
        for 2^14, (8, 8, 8, 5, 5, 5) for 2^16.
    """

    levels: Sequence[int]

    def __post_init__(self):
        levels = self.levels
        if not are_whole(levels) or not levels or min(levels) < 2:
            raise UserError(
                f"{WHERE}.levels is {levels!r}; give a whole number from 2 for each "
                "channel of the latent, such as (8, 5, 5, 5)"
            )
        if self.codebook_size >= 2**31:
            raise UserError(
                f"{WHERE}.levels is {levels!r}: {self.codebook_size:,} codes are more "
                "than an index of 31 bits can name"
            )
        super().__post_init__()

    @property
    def codebook_size(self) -> int:
        """K, the product of the levels."""
        return int(np.prod(self.levels, dtype=object))

    @property
    def latent_channels(self) -> int:
        """Channels of the latent."""
        return len(self.levels)

    def __call__(self, z: jax.Array, *, train: bool = False) -> QuantizerOutput:
        """z [B, h, w, len(levels)], any float dtype -> QuantizerOutput."""
        del train
        bounded = self._bounded(z.astype(jnp.float32))
        digits = jnp.round(bounded)
        half = self._half(z)
        z_q = straight_through(bounded, digits) / half
        error = error_per_image(bounded / half, digits / half)
        return QuantizerOutput(
            z_q=z_q,
            ids=self._ids(digits),
            loss=jnp.zeros(()),
            stats={"quantisation_mse": error},
        )

    def codes(self, ids: jax.Array) -> jax.Array:
        """ids [B, h, w, 1] -> z_q [B, h, w, len(levels)] float32."""
        levels = _aligned(self.levels, ids)
        digits = (ids // _aligned(self._basis(), ids)) % levels - levels // 2
        return digits.astype(jnp.float32) / self._half(ids)

    def _bounded(self, z: jax.Array) -> jax.Array:
        """z squeezed so that rounding gives L_i values, symmetric or one more below."""
        levels = _aligned(self.levels, z)
        half = (levels - 1) * (1 + EPSILON) / 2
        offset = np.where(levels % 2 == 0, 0.5, 0.0)
        shift = np.arctanh(offset / half)
        f32 = np.float32
        return jnp.tanh(z + f32(shift)) * f32(half) - f32(offset)

    def _half(self, like: jax.Array) -> np.ndarray:
        return (_aligned(self.levels, like) // 2).astype(np.float32)

    def _basis(self) -> np.ndarray:
        return np.cumprod([1, *self.levels[:-1]]).astype(np.int32)

    def _ids(self, digits: jax.Array) -> jax.Array:
        """Rounded values [B, h, w, d] -> ids [B, h, w, 1]; channel 0 counts 1."""
        shifted = digits.astype(jnp.int32) + _aligned(self.levels, digits) // 2
        values = shifted * _aligned(self._basis(), digits)
        return jnp.sum(values, axis=-1, keepdims=True, dtype=jnp.int32)


def _aligned(values: Sequence[int], like: jax.Array) -> np.ndarray:
    """One value a channel, int32, with as many axes as `like` [..., d]."""
    return np.asarray(values, np.int32).reshape((1,) * (like.ndim - 1) + (-1,))
