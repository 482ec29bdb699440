"""The Kernel Inception Distance (Binkowski et al., arXiv 1801.01401).

The squared maximum mean discrepancy of two sets of features under the kernel
(x . y / D + 1)³, by its unbiased estimate (there: section 4, equation 4): unlike a
Fréchet distance it does not shrink as images become more, and it may fall below 0
where two sets are alike.
"""

import numpy as np

from movq_jax.errors import UserError
from movq_jax.evaluation.metrics.feature_arrays import check_two_sets


def kid(
    features_a: np.ndarray,
    features_b: np.ndarray,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> tuple[float, float]:
    """The mean and the standard deviation of KID over random subsets.

    Subsets are those of torch-fidelity: of NumPy's `RandomState(seed)` one `choice`
    without replacement of A, then one of B, for each. The order of the images within
    a set tells which are drawn: there it is that of sorted paths. Kernels are float64
    here and float32 there, which moves its result by some 1e-8.

    Args:
      features_a: [N, D], any real dtype.
      features_b: [M, D].
      subsets: how many.
      subset_size: images of each set in one, at least 2.
      seed: of the subsets, 0 to 2³² - 1.

    Returns:
      The mean over subsets, and their standard deviation (over N): of one subset's
      result, not of the mean.

    Raises:
      UserError: fewer images than a subset has, or features that are not finite or of
        two widths.
    """
    a, b = check_two_sets(features_a, features_b, ("first", "second"))
    if subsets < 1 or subset_size < 2:
        raise UserError(
            f"KID needs at least 1 subset of 2 images, not {subsets} of {subset_size}"
        )
    for features, which in ((a, "first"), (b, "second")):
        if len(features) < subset_size:
            raise UserError(
                f"KID draws subsets of {subset_size} images, and the {which} set has "
                f"{len(features)}: give more images, or a smaller subset size (results "
                "of different sizes cannot be compared)"
            )
    draw = np.random.RandomState(seed)
    distances = []
    for _ in range(subsets):
        x = a[draw.choice(len(a), subset_size, replace=False)].astype(np.float64)
        y = b[draw.choice(len(b), subset_size, replace=False)].astype(np.float64)
        distances.append(_squared_discrepancy(x, y))
    return float(np.mean(distances)), float(np.std(distances))


def _squared_discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate from float64 [n, D] and [n, D]."""
    within = _mean_of_others(_kernel(x, x)) + _mean_of_others(_kernel(y, y))
    return within - 2 * _kernel(x, y).mean()


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x . y / D + 1)³ of all pairs, float64 [n, m]."""
    kernel = x @ y.T
    kernel /= x.shape[1]
    kernel += 1
    return kernel * kernel * kernel  # several times as fast as a power of 3


def _mean_of_others(kernel: np.ndarray) -> float:
    """The mean over all pairs of two different images."""
    count = len(kernel)
    return (kernel.sum() - np.trace(kernel)) / (count * (count - 1))
