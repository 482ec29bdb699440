import numpy as np
import pytest

from movq_jax.evaluation.metrics.ssim_maps import (
    gaussian_window,
    mean_ssim,
    mirrored,
    similarity_maps,
    uniform_window,
    window_mean,
)


@pytest.mark.parametrize("taps", [gaussian_window(), uniform_window(7)])
def test_windows_sum_to_1_and_are_symmetric(taps):
    assert taps.sum() == pytest.approx(1, abs=1e-15)
    np.testing.assert_array_equal(taps, taps[::-1])


def test_the_gaussian_has_a_sigma_of_one_and_a_half():
    taps = gaussian_window()
    assert len(taps) == 11
    assert taps[5] / taps[2] == pytest.approx(np.exp(2))  # two sigmas from the middle


def test_a_window_is_separable_and_stays_inside():
    image = np.random.default_rng(0).uniform(size=(2, 13, 12))
    taps = gaussian_window()
    made = window_mean(image, taps)
    assert made.shape == (2, 3, 2)
    expected = np.sum(image[1, 2:13, 1:12] * np.outer(taps, taps))
    assert made[1, 2, 1] == pytest.approx(expected, rel=1e-12)


def test_mirrored_images_give_the_window_a_place_at_every_pixel():
    image = np.random.default_rng(0).uniform(size=(2, 9, 7))
    made = mirrored(image)
    assert made.shape == (2, 19, 17)
    np.testing.assert_array_equal(made[:, 5:14, 5:12], image)
    np.testing.assert_array_equal(made[:, 5:14, :5], image[:, :, 5:0:-1])
    np.testing.assert_array_equal(made[:, 14:, 5:12], image[:, 7:2:-1])
    assert window_mean(made, gaussian_window()).shape == image.shape
    last = np.moveaxis(image, 0, -1)  # with channels
    np.testing.assert_array_equal(mirrored(last, (-3, -2)), np.moveaxis(made, 0, -1))


def test_terms_by_hand():
    """Two images under a window as large as they are: one number each."""
    x, y = np.random.default_rng(0).uniform(size=(2, 7, 7))
    covariance = np.cov(x.ravel(), y.ravel())  # over 48
    expected = (2 * covariance[0, 1] + 9e-4) / (np.trace(covariance) + 9e-4)
    maps = similarity_maps(x, y, uniform_window(7), 49 / 48)
    assert maps.contrast.item() == pytest.approx(expected, rel=1e-9)
    luminance = 2 * x.mean() * y.mean() + 1e-4
    luminance /= x.mean() ** 2 + y.mean() ** 2 + 1e-4
    assert maps.ssim.item() == pytest.approx(luminance * expected, rel=1e-9)


def test_the_mean_is_over_positions_and_channels():
    grey = np.random.default_rng(0).integers(0, 256, (2, 12, 12), np.uint8)
    flat = np.full((2, 12, 12), 90, np.uint8)
    a, b = np.stack([grey, flat], axis=-1), np.stack([flat, flat], axis=-1)
    one = similarity_maps(grey / 255, flat / 255, gaussian_window()).ssim
    expected = (one.mean(axis=(1, 2)) + 1) / 2
    np.testing.assert_allclose(mean_ssim(a, b, gaussian_window()), expected, rtol=1e-9)
