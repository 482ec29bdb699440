"""Masked decoding (MaskGIT, arXiv 2202.04200): all positions at once, a few steps."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from movq_jax.sampling.drawing import check_shapes, make_choose, with_streams
from movq_jax.sampling.keys import gumbel, purpose_keys
from movq_jax.sampling.options import SampleOptions
from movq_jax.sampling.orders import Confidence, fixed_priorities, keep_masked
from movq_jax.sampling.plan import Plan, masked_plan


@flax.struct.dataclass
class Trace:
    """What each of the T steps did."""

    ids: jax.Array  # [T, B, N, M] int32, what is known and what the step drew
    known: jax.Array  # [T, B, N, M] bool, what is known after the step
    confidence: jax.Array  # [T, B, N] float32, mean over channels of log p drawn


def decode_masked(
    module: nn.Module,
    variables: dict,
    keys: jax.Array,
    ids: jax.Array,
    known: jax.Array,
    labels: jax.Array,
    options: SampleOptions | Plan,
    *,
    trace: bool = False,
) -> jax.Array | tuple[jax.Array, Trace]:
    """Draws the unknown indices of a grid.

    Each step draws all unknown units, and keeps those whose scores are highest; how
    many, says the schedule. The score of the order `confidence` is the mean over
    channels of the drawn tokens' log p (one channel: as published), plus noise.

    A unit is a position, or in a prior with independent channels a channel of a
    position. Where a unit is a position, and only some of its channels are known, it is
    unknown to the network, as positions are in training, and its known channels are
    forced when it is drawn: the channels before them do not see them.

    What becomes of an image depends on its key, ids, known and label alone, and not on
    the others in the batch.

    Args:
      module: a `MaskedPrior`.
      variables: of the module.
      keys: [B], see `image_keys`.
      ids: int32 [B, N, M]; where not `known` they may be anything.
      known: bool [B, N, M]; these indices stay as they are.
      labels: int32 [B]; read by a class-conditional prior.
      options: or what `masked_plan` made of them, an argument of a compiled function.
      trace: return what each step did, too.

    Returns:
      ids int32 [B, N, M], or (ids, Trace).

    Raises:
      UserError: the options do not fit the prior, or a shape is wrong.
    """
    check_shapes(module, ids, labels, keys, known)
    plan = masked_plan(module, options)
    step = _make_step(module, variables, keys, ids, known, labels, plan)
    units_known = _units(module, known)
    start = jnp.where(known, ids, 0).astype(jnp.int32), units_known
    steps = jnp.arange(len(plan.choice), dtype=jnp.int32)
    (drawn, _), traces = jax.lax.scan(lambda c, k: step(c, k, trace), start, steps)
    return (drawn, traces) if trace else drawn


def _make_step(module, variables, keys, given, known, labels, plan: Plan):
    """The body of the scan over steps, of (ids [B, N, M], known units [B, U])."""
    tokens = module.tokens
    units_known = _units(module, known)
    unknown_count = jnp.sum(~units_known, axis=-1, dtype=jnp.int32)
    labels = with_streams(plan, module, labels)
    priorities = None
    if not isinstance(plan.order, Confidence):
        channels = units_known.shape[1] // tokens.num_positions
        priorities = fixed_priorities(plan.order, keys, tokens.grid, channels)

    def step(carry, k, trace):
        ids, now_known = carry
        seen = _spread(module, now_known)
        twice = (jnp.concatenate([x] * plan.streams) for x in (ids, seen))
        features = module.apply(variables, *twice, labels, method="features")
        features = features.reshape(plan.streams, len(ids), *features.shape[1:])
        choose = make_choose(plan, keys, k, given, known)
        drawn, log_p = module.apply(variables, features, choose, method="draw")
        drawn = jnp.where(seen, ids, drawn)
        if priorities is None:
            noise = gumbel(purpose_keys(keys, "choice", k), now_known.shape[1:])
            scores = _unit_means(module, log_p) + plan.choice[k] * noise
        else:
            scores = priorities
        count = plan.remaining[k][unknown_count]
        now_known = ~keep_masked(scores, now_known, count)
        seen = _spread(module, now_known)
        confidence = jnp.mean(log_p, axis=-1)
        record = Trace(drawn, seen | known, confidence) if trace else None
        return (jnp.where(seen | known, drawn, 0), now_known), record

    return step


def _units(module: nn.Module, known: jax.Array) -> jax.Array:
    """Known channels bool [B, N, M] -> known units [B, U]."""
    if module.whole_positions:
        return jnp.all(known, axis=-1)
    return known.reshape(len(known), -1)


def _spread(module: nn.Module, units: jax.Array) -> jax.Array:
    """Values of units [B, U] -> of channels [B, N, M]."""
    shape = (len(units), module.tokens.num_positions, -1)
    units = units.reshape(shape)
    channels = module.tokens.num_channels
    return jnp.broadcast_to(units, (*units.shape[:2], channels))


def _unit_means(module: nn.Module, log_p: jax.Array) -> jax.Array:
    """log p of channels [B, N, M] -> of units [B, U], the mean of a position."""
    if module.whole_positions:
        return jnp.mean(log_p, axis=-1)
    return log_p.reshape(len(log_p), -1)
