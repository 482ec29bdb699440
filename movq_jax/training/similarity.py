"""SSIM within a jitted step, in float32."""

import jax
import jax.numpy as jnp

from movq_jax.evaluation.metrics.ssim_maps import C1, C2, GAUSSIAN_TAPS, gaussian_window

MIN_SIDE = GAUSSIAN_TAPS


def ssim(a: jax.Array, b: jax.Array) -> jax.Array:
    """Structural similarity of uint8 images [B, H, W, C]: float32 [B].

    The same definition as `movq_jax.evaluation.metrics.pixels.ssim`, which computes in
    float64; the two agree to 1e-4. Sides are at least `MIN_SIDE`.
    """
    # Around the middle grey, products are small and their differences keep more digits.
    x, y = (image.astype(jnp.float32) / 255 - 0.5 for image in (a, b))
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    var_x = jnp.maximum(_window_mean(x * x) - mean_x**2, 0)
    var_y = jnp.maximum(_window_mean(y * y) - mean_y**2, 0)
    covariance = _window_mean(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + 0.5, mean_y + 0.5
    contrast = (2 * covariance + C2) / (var_x + var_y + C2)
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return jnp.mean(luminance * contrast, axis=(1, 2, 3))


def _window_mean(x: jax.Array) -> jax.Array:
    """The weighted mean around each position where the window lies inside the image.

    Sums of slices and no convolution, whose factors accelerators round.
    """
    taps = gaussian_window().tolist()
    height, width = (side - len(taps) + 1 for side in x.shape[1:3])
    x = sum(tap * x[:, i : i + height] for i, tap in enumerate(taps))
    return sum(tap * x[:, :, i : i + width] for i, tap in enumerate(taps))
