"""Decoding one position, or one index, after the other, with cached keys and values."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from movq_jax.sampling.drawing import check_shapes, make_choose, with_streams
from movq_jax.sampling.options import SampleOptions
from movq_jax.sampling.plan import Plan, autoregressive_plan


def decode_autoregressive(
    module: nn.Module,
    variables: dict,
    keys: jax.Array,
    ids: jax.Array,
    known: jax.Array,
    labels: jax.Array,
    options: SampleOptions | Plan,
) -> jax.Array:
    """Draws the unknown indices of a grid, in raster order.

    Known indices are forced: what comes after sees them, what comes before does not. So
    known rows at the top are completed as the model would have gone on, and anything
    else that is known is only met.

    What becomes of an image depends on its key, ids, known and label alone, and not on
    the others in the batch.

    Args:
      module: an `AutoregressivePrior`.
      variables: of the module.
      keys: [B], see `image_keys`.
      ids: int32 [B, N, M]; where not `known` they may be anything.
      known: bool [B, N, M]; these indices stay as they are.
      labels: int32 [B]; read by a class-conditional prior.
      options: or what `autoregressive_plan` made of them, an argument of a compiled
        function.

    Returns:
      ids int32 [B, N, M].

    Raises:
      UserError: the options do not fit the prior, or a shape is wrong.
    """
    check_shapes(module, ids, labels, keys, known)
    plan = autoregressive_plan(module, options)
    batch, positions, channels = ids.shape
    given = jnp.where(known, ids, 0).astype(jnp.int32)
    labels = with_streams(plan, module, labels)
    flat = module.num_steps != positions
    width = 1 if flat else channels  # indices that a step draws

    def step(carry, t):
        cache, previous = carry
        twice = jnp.concatenate([previous] * plan.streams)
        features, cache = module.apply(
            variables, cache, t, twice, labels, method="step"
        )
        features = features.reshape(plan.streams, batch, *features.shape[1:])
        at = t // channels if flat else t
        here = (jax.lax.dynamic_slice_in_dim(x, at, 1, 1) for x in (given, known))
        choose = make_choose(plan, keys, t, *here)
        extra = {"t": t} if flat else {}
        drawn, _ = module.apply(variables, features, choose, **extra, method="draw")
        drawn = drawn.reshape(batch, width)
        return (cache, drawn), drawn

    cache = module.apply(variables, plan.streams * batch, method="init_cache")
    start = cache, jnp.zeros((batch, width), jnp.int32)
    steps = jnp.arange(module.num_steps, dtype=jnp.int32)
    _, drawn = jax.lax.scan(step, start, steps)
    return jnp.moveaxis(drawn, 0, 1).reshape(ids.shape)
