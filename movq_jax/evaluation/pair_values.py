"""Metrics of pairs, an image and its partner: a number each, their mean, the worst."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from movq_jax.errors import UserError
from movq_jax.evaluation.extremes import Extremes
from movq_jax.evaluation.metric_table import METRICS
from movq_jax.evaluation.metrics import ms_ssim, pixels, ssim_variants
from movq_jax.evaluation.metrics.intervals import bootstrap_mean
from movq_jax.evaluation.networks import Networks
from movq_jax.evaluation.pictures import thumbnail

SHOWN = 256  # pixels of a side of the images that are kept to be shown

# uint8 [B, H, W, 3] twice -> float64 [B].
Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]

_DISTANCES: dict[str, Distance] = {
    "psnr": pixels.psnr,
    "ssim": pixels.ssim,
    "ssim_uniform": ssim_variants.ssim_uniform,
    "ssim_torchmetrics": ssim_variants.ssim_torchmetrics,
    "ms_ssim": ms_ssim.ms_ssim,
    "ms_ssim_torchmetrics": ms_ssim.ms_ssim_torchmetrics,
    "l1": pixels.l1,
    "mse": pixels.mse,
}
_PERCEPTUAL = {
    "lpips_vgg": "lpips_vgg",
    "lpips_alex": "lpips_alex",
    "squeezenet_perceptual": "squeezenet",
}


@dataclasses.dataclass(frozen=True)
class Shown:
    """A pair that is kept to be shown, small."""

    name: str
    partner: np.ndarray
    image: np.ndarray
    value: float


class PairValues:
    """One metric's numbers of all pairs.

    Attributes:
        values: of all pairs, as they came; what is not finite is not in the mean.
        too_small: pairs below the metric's window, which have no number.
        reason: why the last of them has none; '' for none.
    """

    def __init__(self, name: str, networks: Networks, *, worst: int = 0) -> None:
        """Take a metric of `METRICS` and load what it needs.

        Args:
            name: of the metric.
            networks: loads them.
            worst: how many pairs to keep of those with the worst numbers.
        """
        self.name = name
        self.values: list[float] = []
        self.too_small = 0
        self.reason = ""
        if name in _DISTANCES:
            self._distance = _DISTANCES[name]
        else:
            self._distance = networks.perceptual(_PERCEPTUAL[name])
        self._most = worst
        self._extremes = Extremes(worst) if worst else None

    def add(
        self,
        names: Sequence[str],
        images: np.ndarray,
        partners: np.ndarray,
    ) -> None:
        """Take a batch of pairs, uint8 [B, H, W, 3] both."""
        try:
            values = np.asarray(self._distance(partners, images), np.float64)
        except UserError as error:  # smaller than the metric's window
            self.reason = str(error)
            self.too_small += len(images)
            values = np.full(len(images), np.nan)
        for i, value in enumerate(values.tolist()):
            self.values.append(value)
            if math.isfinite(value):
                self._keep(names[i], images[i], partners[i], value)

    def record(self) -> dict[str, Any]:
        """Return the mean with its interval; null where no pair has a number."""
        low = high = value = None
        values = np.asarray(self.values)
        values = values[np.isfinite(values)]
        if values.size:
            value = float(values.mean())
            if len(values) > 1:
                low, high = bootstrap_mean(values)
        record = {
            "value": value,
            "low": low,
            "high": high,
            "count": len(values),
            "left_out": len(self.values) - len(values),  # those too small, too
            "higher_is_better": METRICS[self.name].higher_is_better,
        }
        if self.reason:
            record |= {"too_small": self.too_small, "reason": self.reason}
        return record

    def worst(self) -> list[Shown]:
        """Return the pairs with the worst numbers, the worst first."""
        if self._extremes is None:
            return []
        best, worst = self._extremes.best_and_worst()
        # Of a few pairs half count as the best.
        return [*worst, *reversed(best)][: self._most]

    def _keep(
        self, name: str, image: np.ndarray, partner: np.ndarray, value: float
    ) -> None:
        if self._extremes is None:
            return
        score = value if METRICS[self.name].higher_is_better else -value
        number = len(self.values)
        if self._extremes.wants(score, number):
            box = (SHOWN, SHOWN)
            small = (np.array(thumbnail(x, box)) for x in (partner, image))
            self._extremes.add(score, number, Shown(name, *small, value))
