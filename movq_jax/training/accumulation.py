"""A large batch in parts that go one after the other, for the memory of one part."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# (carry, part of the batch, its number) -> (carry, what is averaged, what is collected)
Part = Callable[[Any, Any, jax.Array | int], tuple[Any, Any, Any]]


def accumulate(part: Part, carry: Any, batch: Any, count: int) -> tuple[Any, Any, Any]:
    """Runs `part` over `count` micro-batches with `lax.scan`; 1: calls it as it is.

    On a CPU they are written out one after the other instead, which saves no memory:
    a convolution inside a loop takes ten times as long there.

    The average of gradients over micro-batches is the gradient of the whole batch for
    losses that are means over images. It is not where a loss or a layer looks at
    several images at once: batch norm, the adaptive weight (one for each micro-batch,
    from its own gradients), and the running averages of batch statistics, which move
    once for each micro-batch.

    Args:
      batch: arrays [B, ...], `count` divides B.

    Returns:
      the last carry, the mean over micro-batches of what `part` gave to be averaged,
      and what it gave to be collected, [B / count, ...] each, as [B, ...]. Images of
      micro-batch i are number i, i + count, ... of the batch: so each device takes its
      own images apart, and none travel.
    """
    if count == 1:
        return part(carry, batch, 0)
    parts = jax.tree.map(lambda a: _split(a, count), batch)
    example = jax.tree.map(lambda a: a[0], parts)
    _, shapes, _ = jax.eval_shape(part, carry, example, 0)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def step(state, inputs):
        carry, total = state
        carry, averaged, collected = part(carry, *inputs)
        return (carry, jax.tree.map(jnp.add, total, averaged)), collected

    loop = _in_a_row if jax.default_backend() == "cpu" else jax.lax.scan
    (carry, total), collected = loop(step, (carry, zeros), (parts, jnp.arange(count)))
    return (
        carry,
        jax.tree.map(lambda t: t / count, total),
        jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), collected),
    )


def _in_a_row(step: Callable, state: Any, inputs: Any) -> tuple[Any, Any]:
    """`lax.scan` without a loop. It saves no memory: the parts need not wait."""
    return jax.lax.scan(step, state, inputs, unroll=True)


def _split(array: jax.Array, count: int) -> jax.Array:
    """[B, ...] -> [count, B / count, ...]."""
    return jnp.moveaxis(array.reshape(-1, count, *array.shape[1:]), 1, 0)
