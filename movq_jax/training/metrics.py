"""Metrics of a step: name -> clu metric, as (sum, count), merged and then computed."""

from collections.abc import Iterable, Mapping
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from clu.metrics import Average, Metric

Metrics = dict[str, Metric]

_FOLD_AT = 100  # steps whose metrics wait on the device


class Window:
    """The metrics of the steps since the last log line, however long that is ago.

    They are folded now and then, so that a window of a million steps holds no more
    than one of a hundred.
    """

    def __init__(self) -> None:
        self._parts: list[Metrics] = []

    def append(self, metrics: Metrics) -> None:
        """One step's, as they lie on the device."""
        self._parts.append(metrics)
        if len(self._parts) > _FOLD_AT:
            # Not the latest, which is still being computed: nobody should wait for it.
            *done, latest = self._parts
            self._parts = [merge(jax.device_get(done)), latest]

    def take(self) -> Metrics:
        """All of them as one; the window is empty then."""
        parts, self._parts = self._parts, []
        return merge(jax.device_get(parts))


def average(value: jax.Array, mask: jax.Array | None = None) -> Average:
    """A scalar or one value an example; what `mask` (as many) rejects is left out."""
    value = jnp.atleast_1d(jnp.asarray(value, jnp.float32))
    mask = None if mask is None else jnp.atleast_1d(mask)
    return Average.from_model_output(value, mask)


def ratio(total: jax.Array, count: jax.Array) -> Average:
    """A mean whose sum and number are known: `total / count`, two scalars."""
    total, count = (jnp.asarray(value, jnp.float32) for value in (total, count))
    return Average(total=total, count=count)


def merge(parts: Iterable[Metrics]) -> Metrics:
    """The metrics of several steps as one; not every step has to have each."""
    return reduce(_merge_two, parts)


def _merge_two(a: Metrics, b: Metrics) -> Metrics:
    merged = {name: a[name].merge(b[name]) for name in a if name in b}
    return {**a, **b, **merged}


def compute(metrics: Metrics, prefix: str) -> dict[str, float]:
    """Plain numbers, named `prefix/name`; a metric of several numbers names each."""
    values = {}
    for name, metric in metrics.items():
        if isinstance(metric, Average) and not np.any(metric.count):
            continue  # no step had it: there is no number
        result = metric.compute()
        parts = result if isinstance(result, Mapping) else {name: result}
        values.update({f"{prefix}/{key}": float(v) for key, v in parts.items()})
    return values
