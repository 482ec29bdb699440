"""Mask schedules: how many units are unknown after each step of decoding.

A unit is what is revealed as a whole: a position, or one channel of a position.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.fields import check_size

WHERE = "sample.schedule"


@dataclass(frozen=True)
class Cosine:
    """`cos(pi r / 2)` (MaskGIT, arXiv 2202.04200): few at first, many at the end."""

    def ratio(self, r: Any, xp: ModuleType) -> Any:
        return xp.clip(xp.cos(np.pi / 2 * r), 1e-6, 1.0)

    def masked(self, done: int, steps: int, unknown: np.ndarray) -> np.ndarray:
        return np.floor(self.ratio(done / steps, np) * unknown)


@dataclass(frozen=True)
class Arccos:
    """`acos(r) / (pi / 2)` (Halton-MaskGIT, arXiv 2503.17076; MaskBit)."""

    def ratio(self, r: Any, xp: ModuleType) -> Any:
        return xp.arccos(r) / (np.pi / 2)

    def masked(self, done: int, steps: int, unknown: np.ndarray) -> np.ndarray:
        # What is revealed is rounded down, not what is masked.
        return unknown - np.floor((1 - self.ratio(done / steps, np)) * unknown)


@dataclass(frozen=True)
class Linear:
    """`1 - r`: as many at every step."""

    def ratio(self, r: Any, xp: ModuleType) -> Any:
        return xp.asarray(1.0 - r)

    def masked(self, done: int, steps: int, unknown: np.ndarray) -> np.ndarray:
        # By integers: with a step for each unit, each step reveals exactly one.
        return (steps - done) * unknown // steps


@dataclass(frozen=True)
class Power:
    """`1 - r ** exponent`: 2 and 3 are MaskGIT's square and cubic."""

    exponent: float

    def __post_init__(self):
        if not 0 < self.exponent < math.inf:
            raise UserError(
                f"{WHERE}.exponent is {self.exponent}; give a number above 0, such as 2"
            )

    def ratio(self, r: Any, xp: ModuleType) -> Any:
        return xp.asarray(1.0 - r**self.exponent)

    def masked(self, done: int, steps: int, unknown: np.ndarray) -> np.ndarray:
        return np.floor(self.ratio(done / steps, np) * unknown + 1e-9)


SCHEDULES = {"cosine": Cosine, "arccos": Arccos, "linear": Linear, "power": Power}


def make_schedule(
    schedule: Mapping[str, Any], where: str = WHERE
) -> Cosine | Arccos | Linear | Power:
    """The schedule of `{name, ...fields}`.

    Raises:
      UserError: for an unknown name or field, or a value of no use.
    """
    return families.make(SCHEDULES, schedule, where)


def remaining(schedule: Mapping[str, Any], steps: int, units: int) -> np.ndarray:
    """How many units are unknown after each step, for each number at the start.

    In float64, as published. Each step but the last reveals at least one unit and
    leaves at least one; the last leaves none. With fewer units than steps the last unit
    stays unknown for several steps.

    Args:
      schedule: {name, ...fields}, see `SCHEDULES`.
      steps: T, from 1.
      units: of the whole grid, U.

    Returns:
      int32 [T, U + 1]; in column n the numbers of a grid of which n were unknown.

    Raises:
      UserError: for an unknown schedule or field, and for less than one step.

    Example:
      >>> 256 - remaining({"name": "cosine"}, 8, 256)[:3, 256]
      array([ 5, 20, 44])
    """
    chosen = make_schedule(schedule)
    check_size("sample.steps", steps)
    start = np.arange(units + 1)
    unknown, rows = start, []
    for done in range(1, steps):
        masked = chosen.masked(done, steps, start).astype(np.int64)
        unknown = np.maximum(np.minimum(masked, unknown - 1), np.minimum(unknown, 1))
        rows.append(unknown)
    rows.append(np.zeros_like(start))
    return np.stack(rows).astype(np.int32)


def mask_ratio(
    schedule: Mapping[str, Any], r: jax.Array, where: str = WHERE
) -> jax.Array:
    """The share that is masked at r, the share of decoding that is done.

    In training r is drawn from U(0, 1).

    Args:
      schedule: {name, ...fields}, see `SCHEDULES`.
      r: any shape, in [0, 1].
      where: path in the config, for error messages.

    Returns:
      float32, as r, in [0, 1].

    Raises:
      UserError: for an unknown schedule or field.
    """
    chosen = make_schedule(schedule, where)
    return chosen.ratio(jnp.asarray(r, jnp.float32), jnp)
