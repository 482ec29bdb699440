"""Classifier-free guidance (arXiv 2207.12598): `(1 + w) conditional - w unconditional`.

w = 0 is no guidance. LlamaGen's and RAR's scale s is 1 + w.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from movq_jax import families
from movq_jax.errors import UserError

WHERE = "sample.guidance_schedule"


@dataclass(frozen=True)
class Constant:
    """w at every step."""

    def factors(self, steps: int) -> np.ndarray:
        return np.ones(steps)


@dataclass(frozen=True)
class Linear:
    """From 0 at the first step to w at the last (Muse; Halton-MaskGIT)."""

    def factors(self, steps: int) -> np.ndarray:
        return np.arange(steps) / max(1, steps - 1)


@dataclass(frozen=True)
class PowerCosine:
    """`(1 - cos(pi (k / T) ** power)) / 2` (MDT; MaskBit has 3), from 0."""

    power: float

    def __post_init__(self):
        if not 0 < self.power < math.inf:
            raise UserError(
                f"{WHERE}.power is {self.power}; give a number above 0, such as 3"
            )

    def factors(self, steps: int) -> np.ndarray:
        return (1 - np.cos(np.pi * (np.arange(steps) / steps) ** self.power)) / 2


GUIDANCE_SCHEDULES = {
    "constant": Constant,
    "linear": Linear,
    "power_cosine": PowerCosine,
}


def guidance_scales(w: float, schedule: Mapping[str, Any], steps: int) -> np.ndarray:
    """w at each step, float32 [steps].

    Raises:
      UserError: for an unknown schedule or field, or a value of no use.
    """
    factors = families.make(GUIDANCE_SCHEDULES, schedule, WHERE).factors(steps)
    return (w * factors).astype(np.float32)


def guided(logits: jax.Array, w: jax.Array) -> jax.Array:
    """Logits [S, ..., K] of S streams -> [..., K].

    Args:
      logits: of one stream, which is returned, or of two: with the class, without it.
      w: scalar.
    """
    if len(logits) == 1:
        return logits[0]
    # By the difference: (1 + w) times the -1e30 of a code that does not exist, less w
    # times the same, could overflow.
    return logits[0] + w * (logits[0] - logits[1])
