"""What is cut from a distribution before a token is drawn: top-k, then top-p."""

import jax
import jax.numpy as jnp

from movq_jax.models.priors.heads import NEG_INF


def cut(
    logits: jax.Array, *, top_k: jax.Array | None, top_p: jax.Array | None
) -> jax.Array:
    """Logits [..., K] with those of tokens that may not be drawn at -1e30.

    Tokens that are as likely as the last that is kept are kept, too.

    Args:
      logits: float32, already divided by the temperature.
      top_k: int32 scalar: only the k likeliest are kept; 0: all. None: not compiled.
      top_p: float32 scalar in (0, 1]: of those, the likeliest whose probabilities,
        renormalised, add up to p; the token that crosses p is kept. 1: all. None: not
        compiled.
    """
    if top_k is None and top_p is None:
        return logits
    ordered = -jnp.sort(-logits, axis=-1)
    count = logits.shape[-1]
    kept = jnp.full(logits.shape[:-1], count, jnp.int32)
    if top_k is not None:
        kept = jnp.where(top_k > 0, jnp.minimum(kept, top_k), kept)
    if top_p is not None:
        rank = jnp.arange(count).reshape((1,) * (logits.ndim - 1) + (count,))
        p = jax.nn.softmax(jnp.where(rank < kept[..., None], ordered, NEG_INF))
        before = jnp.cumsum(p, axis=-1) - p
        crossed = jnp.sum(before < top_p, axis=-1, dtype=jnp.int32)
        # Sums of rounded numbers may reach 1 before the last token.
        # One at least, also where p is so small that it is rounded to 0.
        crossed = jnp.maximum(crossed, 1)
        kept = jnp.where(top_p < 1, jnp.minimum(kept, crossed), kept)
    least = jnp.take_along_axis(ordered, kept[..., None] - 1, axis=-1)
    return jnp.where(logits >= least, logits, NEG_INF)
