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
        left_out: pairs without a finite number, such as the PSNR of equal images.
        reason: why the last of those that are too small has none; '' for none.
    """

    def __init__(self, name: str, networks: Networks, *, worst: int = 0) -> None:
        """Take a metric of `METRICS` and load what it needs.

        Args:
            name: of the metric.
            networks: loads them.
            worst: how many pairs to keep of those with the worst numbers.
        """
        self.name = name
        self.left_out = 0
        self.reason = ""
        if name in _DISTANCES:
            self._distance = _DISTANCES[name]
        else:
            self._distance = networks.perceptual(_PERCEPTUAL[name])
        self._values: list[float] = []
        self._seen = 0
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
            values = np.full(len(images), np.nan)
        for i, value in enumerate(values.tolist()):
            self._seen += 1
            if not math.isfinite(value):
                self.left_out += 1
                continue
            self._values.append(value)
            self._keep(names[i], images[i], partners[i], value)

    def record(self) -> dict[str, Any]:
        """Return the mean with its interval; null where no pair has a number."""
        metric = METRICS[self.name]
        low = high = value = None
        if self._values:
            values = np.asarray(self._values)
            value = float(values.mean())
            if len(values) > 1:
                low, high = bootstrap_mean(values)
        return {
            "value": value,
            "low": low,
            "high": high,
            "count": len(self._values),
            "left_out": self.left_out,
            "higher_is_better": metric.higher_is_better,
        }

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
        if self._extremes.wants(score, self._seen):
            box = (SHOWN, SHOWN)
            small = (np.array(thumbnail(x, box)) for x in (partner, image))
            self._extremes.add(score, self._seen, Shown(name, *small, value))
