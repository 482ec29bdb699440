import jax
import numpy as np

from movq_jax.evaluation.metrics import pixels
from movq_jax.training.similarity import MIN_SIDE, ssim


def test_equals_the_metric_in_float64():
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(0, 256, (4, 5, 4, 3)), np.ones((1, 8, 8, 1)))
    a = smooth.astype(np.uint8)
    noise = rng.normal(0, [[[[1.0]]], [[[5.0]]], [[[20.0]]], [[[80.0]]]], a.shape)
    b = np.clip(a + noise, 0, 255).astype(np.uint8)
    made = jax.jit(ssim)(a, b)
    np.testing.assert_allclose(made, pixels.ssim(a, b), atol=1e-5)
    assert np.ptp(made) > 0.3
    np.testing.assert_allclose(ssim(a, a), 1, atol=1e-6)


def test_flat_images_where_rounding_would_show():
    a = np.full((1, MIN_SIDE, MIN_SIDE, 3), 255, np.uint8)
    b = a - np.uint8(3)
    np.testing.assert_allclose(ssim(a, b), pixels.ssim(a, b), atol=1e-4)
