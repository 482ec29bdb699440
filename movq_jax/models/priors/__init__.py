"""Priors: distributions over grids of M indices at N positions, chosen by name.

`build_prior(config.model, Tokens)` makes one. What all of them share: ids [B, N, M]
int32, labels [B] int32, logits [B, N, M, K] float32, and a `draw` that calls back for
each channel.
"""

from collections.abc import Mapping
from typing import Any

import flax.core
import flax.linen as nn

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.models.priors.autoregressive import AutoregressivePrior
from movq_jax.models.priors.heads import NEG_INF
from movq_jax.models.priors.masked import MaskedPrior
from movq_jax.models.priors.tokens import Tokens

PRIORS = {"masked": MaskedPrior, "autoregressive": AutoregressivePrior}


def build_prior(
    model: Mapping[str, Any], tokens: Tokens, *, remat: bool = False
) -> nn.Module:
    """The prior of a config's `model` section.

    Args:
      model: the section. What is in it makes the model's fingerprint.
      tokens: what is modelled.
      remat: whether blocks are computed again for the gradient.

    Raises:
      UserError: for an unknown or missing key or family name, or a bad value.
    """
    if not hasattr(model, "items"):
        raise UserError(f"config.model is {model!r}; it must be a section with keys")
    fields = {key: _frozen(value) for key, value in model.items()}
    return families.make(PRIORS, fields, "config.model", tokens=tokens, remat=remat)


def _frozen(value: Any) -> Any:
    """What a config holds, as a hashable value: so the module is one, too."""
    return flax.core.FrozenDict(value.items()) if hasattr(value, "items") else value


__all__ = [
    "NEG_INF",
    "PRIORS",
    "AutoregressivePrior",
    "MaskedPrior",
    "Tokens",
    "build_prior",
]
