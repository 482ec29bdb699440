"""Look-up-free quantisation: the signs of the channels are the code."""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from movq_jax.errors import UserError
from movq_jax.fields import check_flag, check_number, check_size
from movq_jax.models.quantizers.base import (
    WHERE,
    QuantizerOutput,
    error_per_image,
    normalised,
    straight_through,
)
from movq_jax.models.quantizers.implicit import ImplicitQuantizer
from movq_jax.models.quantizers.search import chunk_size

MAX_BITS = 30  # of an index; the work of a group of more than 16 would be too much
MAX_GROUP = 16


class LookupFreeQuantizer(ImplicitQuantizer):
    """LFQ (MAGVIT-v2, arXiv 2310.05737): code = sign(z), index = its bits.

    The loss is `beta mean (z - sg(z_q))² + entropy (H_sample - H_batch)`: each feature
    shall choose clearly, all together shall use all codes. p is the softmax over the
    codes of `2 zᵀc / temperature`; H_sample is the mean entropy of p, H_batch the
    entropy of the mean p, logarithms clamped at 1e-5. The codes go by in chunks, so
    that memory is bounded; the work grows with 2^group. Channels may fall into groups
    whose entropies are added, as if independent.

    The weights are MaskBit's (2409.16211); the extra weight that it gives the entropy
    during its first 2,000 steps is left out.

    Attributes:
      bits: channels of the latent; K = 2^bits.
      beta: weight of the commitment.
      entropy: weight of the entropy term.
      temperature: of the softmax.
      group: channels a group of the entropy term; it divides bits.
      spherical: binary spherical quantisation (BSQ, 2406.07548): z is normalised to
        length 1 first, the codes are ±1/sqrt(bits).
    """

    bits: int
    beta: float = 0.25
    entropy: float = 0.02
    temperature: float = 0.01
    group: int = 0
    spherical: bool = False

    def __post_init__(self):
        check_size(f"{WHERE}.bits", self.bits)
        if self.bits > MAX_BITS:
            raise UserError(f"{WHERE}.bits is {self.bits}; {MAX_BITS} is the most")
        check_number(f"{WHERE}.beta", self.beta)
        check_number(f"{WHERE}.entropy", self.entropy)
        check_number(f"{WHERE}.temperature", self.temperature)
        check_size(f"{WHERE}.group", self.group, least=0)
        check_flag(f"{WHERE}.spherical", self.spherical)
        if self.temperature == 0:
            raise UserError(f"{WHERE}.temperature is 0; it must be above 0")
        if self.bits % self._group or self._group > MAX_GROUP:
            raise UserError(
                f"{WHERE}.group is {self._group}, but {WHERE}.bits is {self.bits}: "
                f"give a divisor of it, at most {MAX_GROUP}"
            )
        super().__post_init__()

    @property
    def _group(self) -> int:
        return self.group or self.bits

    @property
    def codebook_size(self) -> int:
        """K = 2^bits."""
        return 2**self.bits

    @property
    def latent_channels(self) -> int:
        """Channels of the latent."""
        return self.bits

    @property
    def _size(self) -> float:
        """The magnitude of a channel of a code."""
        return self.bits**-0.5 if self.spherical else 1.0

    def __call__(self, z: jax.Array, *, train: bool = False) -> QuantizerOutput:
        """z [B, h, w, bits], any float dtype -> QuantizerOutput."""
        del train
        z = z.astype(jnp.float32)
        if self.spherical:
            z = normalised(z)
        z_q = jnp.where(z > 0, self._size, -self._size)
        error = error_per_image(z, z_q)
        sample, batch = self._entropies(z)
        loss = self.beta * jnp.mean(error) + self.entropy * (sample - batch)
        return QuantizerOutput(
            z_q=straight_through(z, z_q),
            ids=self._ids(z_q),
            loss=loss,
            stats={
                "quantisation_mse": error,
                "entropy_sample": sample,
                "entropy_batch": batch,
            },
        )

    def codes(self, ids: jax.Array) -> jax.Array:
        """ids [B, h, w, 1] -> z_q [B, h, w, bits] float32."""
        bits = (ids >> self._numbers(ids)) & 1
        return jnp.where(bits == 1, self._size, -self._size).astype(jnp.float32)

    def _ids(self, z_q: jax.Array) -> jax.Array:
        bits = (z_q > 0).astype(jnp.int32) << self._numbers(z_q)
        return jnp.sum(bits, axis=-1, keepdims=True, dtype=jnp.int32)

    def _numbers(self, like: jax.Array) -> np.ndarray:
        """0, 1, ..., with as many axes as `like`."""
        numbers = np.arange(self.bits, dtype=np.int32)
        return numbers.reshape((1,) * (like.ndim - 1) + (-1,))

    def _entropies(self, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """H_sample and H_batch, in nats, summed over the groups."""
        groups = rearrange(z, "b h w (g c) -> g (b h w) c", c=self._group)
        # The bits of a code are independent: p = prod of sigmoid(± logit).
        logits = 4 * self._size / self.temperature * groups
        all_off = jnp.sum(jax.nn.log_sigmoid(-logits), axis=-1, keepdims=True)
        codes = 2**self._group
        chunk = min(codes, _power_of_two(chunk_size(groups[..., 0].size, codes)))

        @jax.checkpoint
        def part(start):
            numbers = start + jnp.arange(chunk)
            bits = (numbers[:, None] >> np.arange(self._group)[None, :]) & 1
            on = jnp.einsum("gnc,kc->gnk", logits, bits * 1.0, precision="highest")
            p = jnp.exp(all_off + on)
            return jnp.mean(_entropy(p), axis=-1), jnp.mean(p, axis=1)

        # [chunks, g], [chunks, g, chunk]
        sample, mean = jax.lax.map(part, jnp.arange(0, codes, chunk))
        return jnp.sum(sample), jnp.sum(_entropy(mean))


def _power_of_two(number: int) -> int:
    """The largest one up to `number`."""
    return 1 << (number.bit_length() - 1)


def _entropy(p: jax.Array) -> jax.Array:
    """-sum p log max(p, 1e-5) over the last axis."""
    return -jnp.sum(p * jnp.log(jnp.maximum(p, 1e-5)), axis=-1)
