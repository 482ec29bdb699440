"""Metrics of a step: name -> clu metric, as (sum, count), merged and then computed."""

from collections.abc import Iterable, Mapping
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from clu.metrics import Average, Metric

Metrics = dict[str, Metric]


def average(value: jax.Array, mask: jax.Array | None = None) -> Average:
    """A scalar or one value an example; what `mask` (as many) rejects is left out."""
    value = jnp.atleast_1d(jnp.asarray(value, jnp.float32))
    mask = None if mask is None else jnp.atleast_1d(mask)
    return Average.from_model_output(value, mask)


def merge(parts: Iterable[Metrics]) -> Metrics:
    """The metrics of several steps as one."""
    return reduce(lambda a, b: {name: a[name].merge(b[name]) for name in a}, parts)


def compute(metrics: Metrics, prefix: str) -> dict[str, float]:
    """Plain numbers, named `prefix/name`; a metric of several numbers names each."""
    values = {}
    for name, metric in metrics.items():
        with np.errstate(invalid="ignore"):  # 0 / 0: every step of it was a bad one
            result = metric.compute()
        parts = result if isinstance(result, Mapping) else {name: result}
        values.update({f"{prefix}/{key}": float(v) for key, v in parts.items()})
    return values
