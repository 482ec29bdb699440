"""What a prior learns from: masks that are drawn, and cross-entropies of indices."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from movq_jax.sampling.schedules import mask_ratio


class Predicted(NamedTuple):
    """How well each index was predicted."""

    loss: jax.Array  # [B, N, M] float32, smoothed cross-entropy in nats
    hit: jax.Array  # [B, N, M] bool, whether the likeliest code is the right one


def draw_masked(
    key: jax.Array,
    batch: int,
    units: int,
    *,
    schedule: Mapping[str, Any],
    min_rate: float,
) -> Bool[Array, "B U"]:
    """Which units are masked: as many an image as the schedule says, drawn uniformly.

    With r ~ U(0, 1), ceil(ratio(r) U) of them (MaskGIT, 2202.04200), at least one and
    at least ceil(min_rate U). An exact number, chosen by the rank of noise: no coins.

    Args:
      schedule: {name, ...}, see `movq_jax.sampling.schedules`.
      min_rate: in 0..1.
    """
    time_key, noise_key = jax.random.split(key)
    r = jax.random.uniform(time_key, (batch,))
    share = mask_ratio(schedule, r, "config.loss.mask")
    # As floats, 0.1 * 30 is a little more than 3.
    least = max(1, math.ceil(min_rate * units - 1e-9))
    count = jnp.clip(jnp.ceil(share * units), least, units)
    noise = jax.random.uniform(noise_key, (batch, units))
    rank = jnp.argsort(jnp.argsort(noise, axis=1), axis=1)
    return rank < count[:, None]


def spread(
    masked: Bool[Array, "B U"], num_channels: int, *, whole_positions: bool
) -> Bool[Array, "B N M"]:
    """Masked units as masked indices: a unit is a position, or index n * M + m."""
    if not whole_positions:
        return masked.reshape(masked.shape[0], -1, num_channels)
    return jnp.broadcast_to(masked[:, :, None], (*masked.shape, num_channels))


def drop_classes(
    key: jax.Array, labels: Int[Array, " B"], num_classes: int, share: float
) -> Int[Array, " B"]:
    """Labels of which a random `share` says "no class", which is `num_classes`."""
    dropped = jax.random.bernoulli(key, share, labels.shape)
    return jnp.where(dropped, num_classes, labels)


def predicted(
    logits: Float[Array, "B N M K"],
    ids: Int[Array, "B N M"],
    sizes: Sequence[int],
    smoothing: float,
) -> Predicted:
    """Cross-entropy with smoothed targets, for each index.

    The target of a channel with V codes is `1 - s + s / V` for the right one and
    `s / V` for the others: columns beyond V are none of its codes.

    Args:
      sizes: V of each channel.
      smoothing: s, in 0..1.
    """
    logp = jax.nn.log_softmax(logits, axis=-1)
    right = jnp.take_along_axis(logp, ids[..., None], axis=-1)[..., 0]
    loss = -right
    if smoothing:
        sizes = jnp.asarray(sizes)
        is_code = jnp.arange(logits.shape[-1])[None] < sizes[:, None]  # [M, K]
        total = jnp.sum(jnp.where(is_code[None, None], logp, 0.0), axis=-1)
        loss = -(1 - smoothing) * right - smoothing * total / sizes[None, None]
    return Predicted(loss, jnp.argmax(logits, axis=-1) == ids)


def mean_by_image(
    loss: Float[Array, "B N M"], weights: Float[Array, "B N M"]
) -> Float[Array, " B"]:
    """The weighted mean of each image: those with few masked indices count alike."""
    axes = (1, 2)
    return jnp.sum(loss * weights, axes) / jnp.sum(weights, axes)


def weights_of(
    masked: Bool[Array, "B N M"], unmasked_weight: float
) -> Float[Array, "B N M"]:
    """1 where an index is masked, `unmasked_weight` where it is seen."""
    return jnp.where(masked, 1.0, jnp.float32(unmasked_weight))
