"""In which order units become known: by confidence, at random, or Halton's."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from movq_jax import families
from movq_jax.fields import check_flag
from movq_jax.sampling.keys import purpose_keys

WHERE = "sample.order"


@dataclass(frozen=True)
class Confidence:
    """The likeliest draws first, with noise that fades (MaskGIT, arXiv 2202.04200)."""


@dataclass(frozen=True)
class Random:
    """Uniform. With a step for each unit it draws the model's joint distribution."""


@dataclass(frozen=True)
class Halton:
    """A fixed order that spreads over the grid (Halton-MaskGIT, arXiv 2503.17076).

    Attributes:
      roll: each image begins at another place of the sequence; published code has it as
        an option that is off.
    """

    roll: bool = False

    def __post_init__(self):
        check_flag(f"{WHERE}.roll", self.roll)


ORDERS = {"confidence": Confidence, "random": Random, "halton": Halton}


def make_order(order: Mapping[str, Any]) -> Confidence | Random | Halton:
    """The order of `{name, ...fields}`.

    Raises:
      UserError: for an unknown name or field, or a value of no use.
    """
    return families.make(ORDERS, order, WHERE)


def fixed_priorities(
    order: Random | Halton, keys: jax.Array, grid: tuple[int, int], channels: int
) -> jax.Array:
    """Priorities float32 [B, U]: the unit with the highest becomes known first.

    Args:
      order: one that what is drawn does not change.
      keys: [B], one an image.
      grid: (h, w).
      channels: units of a position, U = h * w * channels; in Halton's order they follow
        one another.
    """
    keys = purpose_keys(keys, "order")
    positions = grid[0] * grid[1]
    if isinstance(order, Random):
        units = positions * channels
        return jax.vmap(lambda key: _permutation(key, units))(keys)
    rank = jnp.asarray(halton_ranks(*grid))
    rank = jnp.broadcast_to(rank[None], (len(keys), positions))
    if order.roll:
        roll = jax.vmap(lambda key: jax.random.randint(key, (), 0, positions))(keys)
        rank = (rank + roll[:, None]) % positions
    rank = rank[:, :, None] * channels + jnp.arange(channels)[None, None]
    return -rank.reshape(len(keys), -1).astype(jnp.float32)


def keep_masked(scores: jax.Array, known: jax.Array, count: jax.Array) -> jax.Array:
    """Which units stay unknown: the `count` unknown ones with the lowest scores.

    By rank: a threshold would keep too many where scores are equal.

    Args:
      scores: float32 [B, U].
      known: bool [B, U].
      count: int32 [B], no more than are unknown.

    Returns:
      bool [B, U].
    """
    order = jnp.argsort(jnp.where(known, jnp.inf, scores), axis=-1, stable=True)
    rank = jnp.argsort(order, axis=-1)
    return rank < count[:, None]


@functools.cache
def halton_ranks(height: int, width: int) -> np.ndarray:
    """The place of each position in Halton's sequence, int32 [h * w], a permutation.

    Point i = 1, 2, ... is the cell (floor(h * v2(i)), floor(w * v3(i))), where v_b
    mirrors the digits of i in base b behind the point; a cell counts when it is met
    first. In whole numbers: rounding could put a point on a border into the next cell.
    """
    ranks = np.full((height, width), -1, np.int32)
    index = met = 0
    while met < height * width:
        index += 1
        cell = _mirrored(index, 2, height), _mirrored(index, 3, width)
        if ranks[cell] < 0:
            ranks[cell] = met
            met += 1
    ranks = ranks.reshape(-1)
    ranks.setflags(write=False)
    return ranks


def _mirrored(index: int, base: int, cells: int) -> int:
    """floor(cells * radical inverse of `index`)."""
    mirrored, scale = 0, 1
    while index:
        index, digit = divmod(index, base)
        mirrored, scale = mirrored * base + digit, scale * base
    return mirrored * cells // scale


def _permutation(key: jax.Array, count: int) -> jax.Array:
    return jax.random.permutation(key, count).astype(jnp.float32)
