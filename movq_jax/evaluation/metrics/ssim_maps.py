"""Local means, variances and similarities of two images: what all SSIMs are made of.

In NumPy and float64, on the scale 0..1. Reference: Wang et al., "Image quality
assessment: from error visibility to structural similarity", IEEE TIP 2004; equations
are of that paper.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8

C1 = 0.01**2  # (K1 * data range) ** 2, for data in 0..1
C2 = 0.03**2
GAUSSIAN_TAPS = 11
GAUSSIAN_SIGMA = 1.5
REFLECTED = GAUSSIAN_TAPS // 2  # pixels outside each edge that torchmetrics adds


class SimilarityMaps(NamedTuple):
    """How alike two images are at each position of the window.

    Attributes:
      ssim: the product of all three terms, equation 13.
      contrast: that of contrast and structure alone, without the luminance.
    """

    ssim: np.ndarray  # [..., h, w] float64
    contrast: np.ndarray  # [..., h, w] float64


def gaussian_window() -> Float64[np.ndarray, "11"]:
    """Eleven taps of a Gaussian of sigma 1.5 that sum to 1."""
    offsets = np.arange(GAUSSIAN_TAPS) - GAUSSIAN_TAPS // 2
    taps = np.exp(-0.5 * (offsets / GAUSSIAN_SIGMA) ** 2)
    return taps / taps.sum()


def uniform_window(taps: int) -> Float64[np.ndarray, " taps"]:
    """That many equal taps that sum to 1."""
    return np.full(taps, 1 / taps)


def window_mean(
    x: Float64[np.ndarray, "*batch h w"], taps: Float64[np.ndarray, " taps"]
) -> Float64[np.ndarray, "*batch h2 w2"]:
    """The weighted mean around each position where the window lies inside the image.

    Weights are the products of two taps; a side s becomes s - len(taps) + 1.
    """
    height, width = (side - len(taps) + 1 for side in x.shape[-2:])
    # The window is separable: down the columns first, then along the rows.
    rows = sum(tap * x[..., i : i + height, :] for i, tap in enumerate(taps))
    return sum(tap * rows[..., i : i + width] for i, tap in enumerate(taps))


def mirrored(x: np.ndarray, sides: tuple[int, int] = (-2, -1)) -> np.ndarray:
    """The image with `REFLECTED` pixels more beyond each edge, which is not repeated.

    So the Gaussian window has a place at every pixel.

    Args:
      x: of any dtype, with sides above `REFLECTED`.
      sides: the axes of height and width.
    """
    around = [(0, 0)] * x.ndim
    for side in sides:
        around[side] = (REFLECTED, REFLECTED)
    return np.pad(x, around, mode="reflect")


def similarity_maps(
    x: Float64[np.ndarray, "*batch h w"],
    y: Float64[np.ndarray, "*batch h w"],
    taps: Float64[np.ndarray, " taps"],
    covariance_scale: float = 1.0,
) -> SimilarityMaps:
    """Compares one channel of two images, in 0..1, under a window.

    Args:
      x: the one.
      y: the other.
      taps: the window, see `window_mean`.
      covariance_scale: n / (n - 1) makes covariances those of a sample of n pixels.

    Variances below 0, which are rounding errors, count as 0.
    """
    mean_x, mean_y = window_mean(x, taps), window_mean(y, taps)
    var_x = np.maximum(window_mean(x * x, taps) - mean_x**2, 0)
    var_y = np.maximum(window_mean(y * y, taps) - mean_y**2, 0)
    covariance = window_mean(x * y, taps) - mean_x * mean_y
    contrast = (2 * covariance_scale * covariance + C2) / (
        covariance_scale * (var_x + var_y) + C2
    )
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return SimilarityMaps(luminance * contrast, contrast)


def mean_ssim(
    a: UInt8[np.ndarray, "*batch h w c"],
    b: UInt8[np.ndarray, "*batch h w c"],
    taps: Float64[np.ndarray, " taps"],
    covariance_scale: float = 1.0,
) -> float | Float64[np.ndarray, "*batch"]:
    """The mean of the SSIM map of uint8 images, over positions and channels."""
    # A channel at a time: the five filtered maps of a large photograph are big.
    means = [
        np.mean(
            similarity_maps(*pair, taps, covariance_scale).ssim,
            axis=(-2, -1),
        )
        for pair in channels(a, b)
    ]
    return np.mean(means, axis=0)


def channels(
    a: UInt8[np.ndarray, "*batch h w c"], b: UInt8[np.ndarray, "*batch h w c"]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of channels [*batch, h, w] of uint8 images, float64 in 0..1."""
    for c in range(a.shape[-1]):
        yield a[..., c].astype(np.float64) / 255, b[..., c].astype(np.float64) / 255
