"""The Fréchet distance of two sets of features, from their means and covariances.

Sums are kept on the host in float64, so a set may come in batches of any size, in any
order, and from several processes:

    a, b = FeatureStatistics(512), FeatureStatistics(512)
    for images, reconstructions in batches:
        a.update(features(images))
        b.update(features(reconstructions))
    distance = frechet(a, b)

The distance is biased: two samples of one distribution are apart, by about 1/N, so
distances of different N are not to be compared. Below N = D + 1 the covariances have
not even full rank; the distance is exact for that, too, but says much about the N
images and little about where they come from.
"""

import numpy as np
from jaxtyping import Float64

from movq_jax.errors import UserError


class FeatureStatistics:
    """Mean and covariance of features, in one pass over them.

    What is kept besides the mean is the sum of squares around it, not around zero
    (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
    sample variances", 1979): a mean far from zero costs no digits.

    Attributes:
      width: D, of a feature vector.
      count: N, how many there were so far.
    """

    def __init__(self, width: int) -> None:
        """Statistics of no features yet, which are to have `width` numbers each."""
        self.width = width
        self.count = 0
        self._mean = np.zeros(width)
        self._scatter = np.zeros((width, width))

    def update(self, features: np.ndarray) -> None:
        """Takes in features [N, D] of any real dtype; N may be 0.

        Raises:
          UserError: another shape, or numbers that are not finite. Nothing of the
            batch is taken in then.
        """
        features = np.asarray(features)
        if features.ndim != 2 or features.shape[1] != self.width:
            raise UserError(
                f"features must be [N, {self.width}], not {list(features.shape)}: "
                "were they made by another network?"
            )
        if not len(features):
            return
        features = features.astype(np.float64)
        bad = len(features) - np.isfinite(features).all(axis=1).sum()
        if bad:
            raise UserError(
                f"the features of {bad} of {len(features)} images are not finite; "
                "look for NaN in the images and in the network's weights"
            )
        mean = features.mean(axis=0)
        centred = features - mean
        self._add(len(features), mean, centred.T @ centred)

    def merge(self, other: "FeatureStatistics") -> "FeatureStatistics":
        """The statistics of both sets together; the two stay as they are.

        Raises:
          UserError: their features are not of one width.
        """
        if other.width != self.width:
            raise UserError(
                f"features of {self.width} and of {other.width} numbers cannot be "
                "merged: they are of two networks"
            )
        merged = FeatureStatistics(self.width)
        for part in (self, other):
            merged._add(part.count, part._mean, part._scatter)
        return merged

    @property
    def mean(self) -> Float64[np.ndarray, " d"]:
        """The mean, float64 [D].

        Raises:
          UserError: there were no features.
        """
        if self.count < 1:
            raise UserError("there is no mean of 0 images: give at least 1")
        return self._mean.copy()

    @property
    def covariance(self) -> Float64[np.ndarray, "d d"]:
        """The covariance, float64 [D, D], symmetric: sum of squares over N - 1.

        Raises:
          UserError: there were fewer than two features.
        """
        if self.count < 2:
            raise UserError(
                f"a covariance needs at least 2 images, and there "
                f"{'was' if self.count == 1 else 'were'} {self.count}"
            )
        return self._scatter / (self.count - 1)

    def to_array(self) -> Float64[np.ndarray, " n"]:
        """All that is known as one array, to be sent: float64 [1 + D + D * D]."""
        parts = [self.count], self._mean, self._scatter.ravel()
        return np.concatenate(parts, dtype=np.float64)

    @classmethod
    def from_array(
        cls, array: Float64[np.ndarray, " n"], width: int
    ) -> "FeatureStatistics":
        """What `to_array` gave of statistics of `width`, bit by bit."""
        made = cls(width)
        made.count = int(array[0])
        made._mean = array[1 : 1 + width].copy()
        made._scatter = array[1 + width :].reshape(width, width).copy()
        return made

    def _add(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        """Takes in a set by its size, its mean and the squares around it."""
        if not count:
            return
        total = self.count + count
        shift = mean - self._mean
        between = shift * np.sqrt(self.count * count / total)
        self._scatter += scatter
        self._scatter += between[:, None] * between
        self._mean = self._mean + shift * (count / total)
        self.count = total


def frechet(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """The Fréchet distance (squared, as is usual) of two sets of features; at least 0.

    Raises:
      UserError: see `frechet_distance`, or a set of fewer than two images.
    """
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def frechet_distance(
    mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray
) -> float:
    """The squared Fréchet (2-Wasserstein) distance of two Gaussians; at least 0.

    |mean_a - mean_b|² + tr A + tr B - 2 tr (A^½ B A^½)^½ (Dowson and Landau, 1982;
    as FID: Heusel et al., arXiv 1706.08500, equation 6), in float64.

    The last trace is the sum of the singular values of F'G, for any F and G with
    A = FF' and B = GG'; they are taken from `eigh`. This is the same number, but no
    root is taken of what rounding left of an eigenvalue 0, which would turn 1e-16 into
    1e-8 for each of them: covariances of fewer images than features are no special
    case. To that end eigenvalues below D * 2.2e-16 of the largest count as 0.

    Args:
      mean_a: [D].
      cov_a: [D, D], symmetric, without negative eigenvalues but for rounding.
      mean_b: [D].
      cov_b: [D, D], as `cov_a`.

    Raises:
      UserError: shapes do not fit, numbers are not finite, or a matrix is no
        covariance.
    """
    moments = (mean_a, cov_a, mean_b, cov_b)
    mean_a, cov_a, mean_b, cov_b = (np.asarray(m, np.float64) for m in moments)
    if mean_a.shape != mean_b.shape:
        raise UserError(
            f"the means are {list(mean_a.shape)} and {list(mean_b.shape)}: features of "
            "two networks have no distance"
        )
    root_a, root_b = _root(mean_a, cov_a, "first"), _root(mean_b, cov_b, "second")
    common = np.linalg.svd(root_a.T @ root_b, compute_uv=False).sum()
    shift = np.sum((mean_a - mean_b) ** 2)
    return max(0.0, float(shift + np.trace(cov_a) + np.trace(cov_b) - 2 * common))


def _root(
    mean: Float64[np.ndarray, "..."], cov: Float64[np.ndarray, "..."], which: str
) -> Float64[np.ndarray, "d rank"]:
    """F [D, rank] with FF' = `cov`, once that and `mean` have been looked over."""
    if mean.ndim != 1 or not mean.size or cov.shape != mean.shape * 2:
        raise UserError(
            f"the {which} mean and covariance must be [D] and [D, D], not "
            f"{list(mean.shape)} and {list(cov.shape)}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        raise UserError(f"the {which} mean or covariance is not finite")
    values, vectors = np.linalg.eigh(cov)
    asymmetry = np.abs(cov - cov.T).max()
    if asymmetry > 1e-6 * np.abs(cov).max() or -values[0] > 1e-3 * max(values[-1], 0):
        raise UserError(
            f"the {which} covariance is none: it must be symmetric, without negative "
            "eigenvalues"
        )
    kept = values > len(values) * np.finfo(np.float64).eps * values[-1]
    return vectors[:, kept] * np.sqrt(values[kept])
