"""How one token is drawn: guidance, temperature, top-k, top-p, known tokens forced."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from movq_jax.errors import UserError
from movq_jax.sampling.filters import cut
from movq_jax.sampling.guidance import guided
from movq_jax.sampling.keys import fold, gumbel, purpose_keys
from movq_jax.sampling.plan import Plan

Choose = Callable[[jax.Array | int, jax.Array], tuple[jax.Array, jax.Array]]


def make_choose(
    plan: Plan,
    keys: jax.Array,
    step: jax.Array,
    ids: jax.Array,
    known: jax.Array,
) -> Choose:
    """The function that a prior's `draw` asks for the indices of each channel.

    It takes the channel m and logits [S, B, n, K], and returns the indices [B, n] and
    their log-probabilities, float32. The noise is Gumbel's, of the purpose 'token', the
    step and the channel.

    The log-probability is that at the temperature, with guidance, but before top-k and
    top-p: what they leave may be one token, and every position equally certain. At
    temperature 0 it is that at temperature 1.

    Args:
      plan: of the options.
      keys: [B], one an image.
      step: int32 scalar.
      ids: int32 [B, n, M], the indices that are drawn where `known`.
      known: bool [B, n, M].
    """
    keys = purpose_keys(keys, "token", step)

    def choose(m, logits):
        w = 0.0 if plan.guidance is None else plan.guidance[step]
        logits = guided(logits.astype(jnp.float32), w)
        temperature = plan.temperature[m]
        greedy = temperature == 0
        # Not so small that logits become infinite.
        logits = logits / jnp.where(greedy, 1.0, jnp.maximum(temperature, 1e-6))
        candidates = cut(
            logits,
            top_k=None if plan.top_k is None else plan.top_k[m],
            top_p=None if plan.top_p is None else plan.top_p[m],
        )
        noise = gumbel(fold(keys, m), logits.shape[1:])
        drawn = jnp.argmax(candidates + jnp.where(greedy, 0.0, noise), axis=-1)
        given, forced = (jnp.take(x, m, axis=-1) for x in (ids, known))
        drawn = jnp.where(forced, given, drawn.astype(jnp.int32))
        log_p = jax.nn.log_softmax(logits)
        log_p = jnp.take_along_axis(log_p, drawn[..., None], axis=-1)[..., 0]
        return drawn, log_p

    return choose


def with_streams(plan: Plan, module: nn.Module, labels: jax.Array) -> jax.Array:
    """Labels [B] -> [S * B]: guided, the labels and then as many of no class."""
    if plan.streams == 1:
        return labels
    return jnp.concatenate([labels, jnp.full_like(labels, module.num_classes)])


def check_shapes(
    module: nn.Module,
    ids: jax.Array,
    labels: jax.Array,
    keys: jax.Array | None = None,
    known: jax.Array | None = None,
) -> None:
    """Arrays fit the prior: ids and known [B, N, M], labels and keys [B].

    Raises:
      UserError: one does not.
    """
    tokens = module.tokens
    shape = (len(labels), tokens.num_positions, tokens.num_channels)
    for name, array, expected in [
        ("ids", ids, shape),
        ("known", known, shape),
        ("labels", labels, shape[:1]),
        ("keys", keys, shape[:1]),
    ]:
        if array is not None and array.shape != expected:
            raise UserError(
                f"{name} has the shape {array.shape}; for {shape[0]} labels and this "
                f"prior it must have {expected}"
            )
    if known is not None and known.dtype != bool:
        raise UserError(f"known is {known.dtype}; give bool, True where ids are given")
