"""PSNR and SSIM of 8-bit images, in NumPy and float64.

Both compare uint8 images on the scale 0..1 and give one number an image; a figure for
many images is the mean of theirs, never the PSNR of a mean error.

    >>> import numpy as np
    >>> grey = np.full((16, 16, 3), 100, np.uint8)
    >>> round(float(psnr(grey, grey + np.uint8(1))), 2)
    48.13
"""

import numpy as np
from jaxtyping import Float64, UInt8

from movq_jax.errors import UserError

SSIM_TAPS = 11
SSIM_SIGMA = 1.5
SSIM_C1 = 0.01**2  # (K1 * data range) ** 2, for data in 0..1
SSIM_C2 = 0.03**2


def psnr(
    a: UInt8[np.ndarray, "*batch h w c"], b: UInt8[np.ndarray, "*batch h w c"]
) -> float | Float64[np.ndarray, "*batch"]:
    """Return the peak signal-to-noise ratio in dB: 10 log10(1 / MSE).

    Args:
        a: uint8 [H, W, C], or [B, H, W, C].
        b: uint8, of the same shape.

    Returns:
        A number an image: a float, or float64 [B]. Infinite for equal images.
    """
    difference = (a.astype(np.float64) - b.astype(np.float64)) / 255
    error = np.mean(difference**2, axis=(-3, -2, -1))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(1 / error)


def ssim(
    a: UInt8[np.ndarray, "*batch h w c"], b: UInt8[np.ndarray, "*batch h w c"]
) -> float | Float64[np.ndarray, "*batch"]:
    """Return the structural similarity, at most 1 and 1 for equal images.

    The window is a Gaussian of 11 taps and sigma 1.5; variances are those of the
    population; the map is averaged over the positions where the window lies inside
    the image, then over the channels. Equal to scikit-image's with
    `gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1`;
    averages over a padded map, as torchmetrics takes them, are another variant.

    Args:
        a: uint8 [H, W, C], or [B, H, W, C].
        b: uint8, of the same shape.

    Returns:
        A number an image: a float, or float64 [B].

    Raises:
        UserError: a side is shorter than the window.

    Reference: Wang et al., "Image quality assessment: from error visibility to
    structural similarity", IEEE TIP 2004.
    """
    height, width, channels = a.shape[-3:]
    if min(height, width) < SSIM_TAPS:
        raise UserError(
            f"SSIM needs sides of at least {SSIM_TAPS} pixels, got {width} x {height}"
        )
    # A channel at a time: the five filtered maps of a large photograph are big.
    means = [_ssim_channel(a[..., c], b[..., c]) for c in range(channels)]
    return np.mean(means, axis=0)


def _ssim_channel(
    a: UInt8[np.ndarray, "*batch h w"], b: UInt8[np.ndarray, "*batch h w"]
) -> float | Float64[np.ndarray, "*batch"]:
    """Return the mean of the SSIM map of one channel."""
    x, y = a.astype(np.float64) / 255, b.astype(np.float64) / 255
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    var_x = _window_mean(x * x) - mean_x**2
    var_y = _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    similarity = (
        (2 * mean_x * mean_y + SSIM_C1)
        * (2 * covariance + SSIM_C2)
        / ((mean_x**2 + mean_y**2 + SSIM_C1) * (var_x + var_y + SSIM_C2))
    )
    return np.mean(similarity, axis=(-2, -1))


def _window_mean(
    x: Float64[np.ndarray, "*batch h w"],
) -> Float64[np.ndarray, "*batch h-10 w-10"]:
    """Return the Gaussian-weighted mean around each position of the interior."""
    offsets = np.arange(SSIM_TAPS) - SSIM_TAPS // 2
    taps = np.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    taps /= taps.sum()
    height, width = x.shape[-2] - SSIM_TAPS + 1, x.shape[-1] - SSIM_TAPS + 1
    # The window is separable: down the columns first, then along the rows.
    rows = sum(tap * x[..., i : i + height, :] for i, tap in enumerate(taps))
    return sum(tap * rows[..., i : i + width] for i, tap in enumerate(taps))
