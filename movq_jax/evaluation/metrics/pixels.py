"""PSNR, SSIM and mean errors of 8-bit images, in NumPy and float64.

All compare uint8 images on the scale 0..1 and give one number an image; a figure for
many images is the mean of theirs, never the PSNR of a mean error.

    >>> import numpy as np
    >>> grey = np.full((16, 16, 3), 100, np.uint8)
    >>> round(float(psnr(grey, grey + np.uint8(1))), 2)
    48.13

Other definitions of SSIM are in `movq_jax.evaluation.metrics.ssim_variants`.
"""

import numpy as np
from jaxtyping import Float64, UInt8

from movq_jax.evaluation.metrics import ssim_maps
from movq_jax.evaluation.metrics.image_pairs import check_pair

SSIM_TAPS = ssim_maps.GAUSSIAN_TAPS


def psnr(
    a: UInt8[np.ndarray, "*batch h w c"], b: UInt8[np.ndarray, "*batch h w c"]
) -> float | Float64[np.ndarray, "*batch"]:
    """Return the peak signal-to-noise ratio in dB: 10 log10(1 / MSE).

    Args:
        a: uint8 [H, W, C], or [B, H, W, C].
        b: uint8, of the same shape.

    Returns:
        A number an image: a float, or float64 [B]. Infinite for equal images.

    Raises:
        UserError: another dtype, or two shapes.
    """
    with np.errstate(divide="ignore"):
        return 10 * np.log10(1 / mse(a, b))


def mse(
    a: UInt8[np.ndarray, "*batch h w c"], b: UInt8[np.ndarray, "*batch h w c"]
) -> float | Float64[np.ndarray, "*batch"]:
    """Return the mean squared difference on the scale 0..1; otherwise as `psnr`."""
    return np.mean(_difference(a, b) ** 2, axis=(-3, -2, -1))


def l1(
    a: UInt8[np.ndarray, "*batch h w c"], b: UInt8[np.ndarray, "*batch h w c"]
) -> float | Float64[np.ndarray, "*batch"]:
    """Return the mean absolute difference on the scale 0..1; otherwise as `psnr`."""
    return np.mean(np.abs(_difference(a, b)), axis=(-3, -2, -1))


def _difference(
    a: UInt8[np.ndarray, "*batch h w c"], b: UInt8[np.ndarray, "*batch h w c"]
) -> Float64[np.ndarray, "*batch h w c"]:
    """Return a - b on the scale 0..1."""
    check_pair(a, b)
    return (a.astype(np.float64) - b.astype(np.float64)) / 255


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
        UserError: another dtype, two shapes, or a side shorter than the window.

    Reference: Wang et al., "Image quality assessment: from error visibility to
    structural similarity", IEEE TIP 2004.
    """
    check_pair(a, b, SSIM_TAPS, "SSIM")
    return ssim_maps.mean_ssim(a, b, ssim_maps.gaussian_window())
