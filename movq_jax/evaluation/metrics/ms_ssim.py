"""SSIM at five scales, in NumPy and float64.

The product of the contrast-and-structure terms of an image and of three halvings of it,
and of the whole SSIM at the fourth, each to a power (Wang et al., "Multi-scale
structural similarity for image quality assessment", Asilomar 2003, equation 7). The
window is that of SSIM: a Gaussian of 11 taps and sigma 1.5. Halving averages squares of
2 x 2 pixels; an odd last row or column is left out.
"""

import numpy as np
from jaxtyping import Float64, UInt8

from movq_jax.evaluation.metrics.image_pairs import check_pair
from movq_jax.evaluation.metrics.ssim_maps import (
    GAUSSIAN_TAPS,
    channels,
    gaussian_window,
    mirrored,
    similarity_maps,
)

BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the finest scale first
HALVINGS = len(BETAS) - 1
MIN_SIDE = GAUSSIAN_TAPS * 2**HALVINGS  # 176: the window fits into the last scale


def ms_ssim(
    a: UInt8[np.ndarray, "*batch h w c"], b: UInt8[np.ndarray, "*batch h w c"]
) -> float | Float64[np.ndarray, "*batch"]:
    """MS-SSIM, at most 1 and 1 for equal images.

    Every term is averaged over the positions where the window lies inside the image,
    and counts as 0 if that is negative; the product is taken for each channel, and
    averaged over them. Equal to pytorch-msssim's for sides that are multiples of 16;
    others it pads before it halves them.

    Args:
      a: uint8 [H, W, C], or [B, H, W, C].
      b: uint8, of the same shape.

    Returns:
      A number an image: a float, or float64 [B].

    Raises:
      UserError: another dtype, two shapes, or a side below 176 pixels.
    """
    check_pair(a, b, MIN_SIDE, "MS-SSIM")
    return np.mean([_product(_terms(*pair)) for pair in channels(a, b)], axis=0)


def ms_ssim_torchmetrics(
    a: UInt8[np.ndarray, "*batch h w c"], b: UInt8[np.ndarray, "*batch h w c"]
) -> float | Float64[np.ndarray, "*batch"]:
    """MS-SSIM as torchmetrics 1.9 has it by default.

    It differs from `ms_ssim` in two places: the last scale's SSIM is averaged over a
    map of every pixel, of the image mirrored at its edges; and every term is averaged
    over the channels before the product is taken. The latter is the larger part where
    channels differ in their errors: .012 of .876 for one such pair.

    Args, result and errors are those of `ms_ssim`.
    """
    check_pair(a, b, MIN_SIDE, "MS-SSIM as torchmetrics has it")
    terms = [_terms(*pair, every_pixel=True) for pair in channels(a, b)]
    return _product(np.mean(terms, axis=0))


def _terms(
    x: Float64[np.ndarray, "*batch h w"],
    y: Float64[np.ndarray, "*batch h w"],
    every_pixel: bool = False,
) -> Float64[np.ndarray, " 5 *batch"]:
    """The terms of one channel, the finest scale's first.

    With `every_pixel` the last one is of a map of every pixel, of mirrored images.
    """
    taps, terms = gaussian_window(), []
    for _ in range(HALVINGS):
        terms.append(np.mean(similarity_maps(x, y, taps).contrast, axis=(-2, -1)))
        x, y = _halved(x), _halved(y)
    if every_pixel:
        x, y = mirrored(x), mirrored(y)
    terms.append(np.mean(similarity_maps(x, y, taps).ssim, axis=(-2, -1)))
    return np.stack(terms)


def _product(
    terms: Float64[np.ndarray, " 5 *batch"],
) -> float | Float64[np.ndarray, "*batch"]:
    """The product over scales of the terms to their powers."""
    betas = np.reshape(BETAS, (-1,) + (1,) * (terms.ndim - 1))
    return np.prod(np.maximum(terms, 0) ** betas, axis=0)


def _halved(x: np.ndarray) -> np.ndarray:
    """[..., H, W] -> [..., H // 2, W // 2], means of squares of 2 x 2."""
    height, width = (side // 2 * 2 for side in x.shape[-2:])
    x = x[..., :height, :width]
    rows = x[..., 0::2, :] + x[..., 1::2, :]
    return (rows[..., 0::2] + rows[..., 1::2]) / 4
