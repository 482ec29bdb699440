"""How likely a prior finds given indices, in nats: exactly, or as an upper bound."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from movq_jax.errors import UserError
from movq_jax.sampling.drawing import check_shapes
from movq_jax.sampling.keys import purpose_keys
from movq_jax.sampling.orders import keep_masked


def nll_autoregressive(
    module: nn.Module, variables: dict, ids: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Negative log-likelihood by an `AutoregressivePrior`, exact.

    Args:
      module: an `AutoregressivePrior`.
      variables: of the module.
      ids: int32 [B, N, M].
      labels: int32 [B]; read by a class-conditional prior.

    Returns:
      (nats float32 [B], nats of each channel [B, M], which add up to them).

    Raises:
      UserError: a shape is wrong.
    """
    check_shapes(module, ids, labels)
    channels = jnp.sum(surprise(module.apply(variables, ids, labels), ids), axis=1)
    return jnp.sum(channels, axis=-1), channels


def nll_masked(
    module: nn.Module,
    variables: dict,
    keys: jax.Array,
    ids: jax.Array,
    labels: jax.Array,
    *,
    samples: int,
) -> tuple[jax.Array, jax.Array]:
    """Unbiased estimate of an upper bound of the negative log-likelihood.

        -log p(x) <= E (U / n) sum over the n masked units of -log p(unit | the others)

    over n ~ U{1..U} and which n units are masked, uniform: decoding in a random order,
    unit by unit, has at most this mean code length, and exactly this one where the
    network's conditionals are those of one joint distribution. A unit is a position
    with the joint log p of its channels, or in a prior with independent channels one
    channel of a position.

    The n of one image are drawn stratified, which changes no mean: with U samples each
    n comes once.

    Args:
      module: a `MaskedPrior`.
      variables: of the module.
      keys: [B], see `image_keys`.
      ids: int32 [B, N, M].
      labels: int32 [B]; read by a class-conditional prior.
      samples: draws of n and of what is masked, from 1; a pass of the network each.

    Returns:
      (nats float32 [B], nats of each channel [B, M], which add up to them).

    Raises:
      UserError: a shape is wrong, or there is no sample.
    """
    check_shapes(module, ids, labels, keys)
    if samples < 1:
        raise UserError(f"samples is {samples}; the bound needs 1 at least")
    batch, positions, channels = ids.shape
    units = positions if module.whole_positions else positions * channels
    starts = jax.vmap(jax.random.uniform)(purpose_keys(keys, "masked count"))

    def sample(total, s):
        place = (starts + s / samples) % 1.0
        count = jnp.minimum(1 + jnp.floor(place * units).astype(jnp.int32), units)
        noise_keys = purpose_keys(keys, "masked units", s)
        noise = jax.vmap(lambda key: jax.random.uniform(key, (units,)))(noise_keys)
        masked = keep_masked(noise, jnp.zeros_like(noise, bool), count)
        masked = masked.reshape(batch, positions, -1)
        masked = jnp.broadcast_to(masked, ids.shape)
        logits = module.apply(variables, ids, ~masked, labels, ids)
        hidden = jnp.where(masked, surprise(logits, ids), 0.0)
        weight = units / count.astype(jnp.float32)
        return total + weight[:, None] * jnp.sum(hidden, axis=1), None

    total = jnp.zeros((batch, channels))
    total, _ = jax.lax.scan(sample, total, jnp.arange(samples))
    return jnp.sum(total, axis=-1) / samples, total / samples


def surprise(logits: jax.Array, ids: jax.Array) -> jax.Array:
    """Logits [B, N, M, K] -> -log p of ids, float32 [B, N, M]."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.take_along_axis(log_p, ids[..., None], axis=-1)[..., 0]
