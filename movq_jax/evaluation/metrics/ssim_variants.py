"""SSIM by other definitions than `metrics.pixels.ssim`, for older tables.

On one pair of photographs the three differ by a few hundredths: say which it is, and
never set two of them side by side. All take uint8 images, calculate in float64 on the
scale 0..1, and average over the channels.
"""

import numpy as np
from jaxtyping import Float64, UInt8

from movq_jax.evaluation.metrics.image_pairs import check_pair
from movq_jax.evaluation.metrics.ssim_maps import (
    REFLECTED,
    gaussian_window,
    mean_ssim,
    mirrored,
    uniform_window,
)

UNIFORM_TAPS = 7


def ssim_uniform(
    a: UInt8[np.ndarray, "*batch h w c"], b: UInt8[np.ndarray, "*batch h w c"]
) -> float | Float64[np.ndarray, "*batch"]:
    """SSIM under a uniform window of 7 x 7, as scikit-image has it by default.

    Covariances are those of a sample (over 48, not 49); the map is averaged over the
    positions where the window lies inside the image.

    Args:
      a: uint8 [H, W, C], or [B, H, W, C].
      b: uint8, of the same shape.

    Returns:
      A number an image: a float, or float64 [B].

    Raises:
      UserError: another dtype, two shapes, or a side below 7 pixels.
    """
    check_pair(a, b, UNIFORM_TAPS, "SSIM under a uniform window")
    pixels = UNIFORM_TAPS**2
    return mean_ssim(a, b, uniform_window(UNIFORM_TAPS), pixels / (pixels - 1))


def ssim_torchmetrics(
    a: UInt8[np.ndarray, "*batch h w c"], b: UInt8[np.ndarray, "*batch h w c"]
) -> float | Float64[np.ndarray, "*batch"]:
    """SSIM as torchmetrics 1.9 has it by default: averaged over a reflected map.

    The window is the Gaussian of the primary definition, but at every pixel of the
    image, which is mirrored at its edges (without repeating the edge) for it.

    Args and result are those of `ssim_uniform`.

    Raises:
      UserError: another dtype, two shapes, or a side below 6 pixels.
    """
    check_pair(a, b, REFLECTED + 1, "SSIM as torchmetrics has it")
    a, b = (mirrored(image, (-3, -2)) for image in (a, b))
    return mean_ssim(a, b, gaussian_window())
