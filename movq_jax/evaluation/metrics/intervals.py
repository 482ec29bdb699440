"""How far a mean over images may be off for want of images.

Only metrics that are means over images have such an interval: PSNR, SSIM, LPIPS and the
like. A Fréchet distance has none by this way: a set drawn with replacement has
about 63 % of the images, many of them twice, and its distance is biased upwards by that
(as by any smaller set), so that all resampled distances may lie above the one that
they are to surround. There, look at distances of several sets of samples instead.
"""

from collections.abc import Sequence

import numpy as np

from movq_jax.errors import UserError


def bootstrap_mean(
    values: Sequence[float] | np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean.

    Means of N values drawn with replacement, `resamples` times; the interval has
    the share `level` of them, and as many below it as above (Efron, "Bootstrap
    methods: another look at the jackknife", 1979). It says nothing about images that
    these are no sample of.

    Args:
      values: [N] of any real dtype, one an image, N from 2.
      seed: of the draws; the same seed gives the same interval.
      resamples: how many means are drawn.
      level: above 0 and below 1.

    Returns:
      (low, high), float64.

    Raises:
      UserError: fewer than two values, one that is not finite (such as the PSNR of an
        exact reconstruction), or a setting out of range.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise UserError(
            f"an interval needs the values of at least 2 images, not {values.size}"
        )
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise UserError(
            f"{bad} of {len(values)} values are not finite, and have no interval: "
            "leave them out, and say so"
        )
    if not 0 < level < 1 or resamples < 1:
        raise UserError(
            f"level is {level} and must lie between 0 and 1; resamples is {resamples} "
            "and must be at least 1"
        )
    draw = np.random.default_rng(seed)
    means = np.empty(resamples)
    for i in range(resamples):  # one by one: N * resamples numbers may be too many
        means[i] = values[draw.integers(len(values), size=len(values))].mean()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
