import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.metrics import pixels


def pair(height, width, noise=20, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + c) + np.cos(y / (7 + c)) for c in range(3)]
    a = np.stack(waves, axis=-1) * 60 + 128
    b = a + rng.normal(0, noise, a.shape)
    return tuple(np.uint8(np.clip(image, 0, 255)) for image in (a, b))


@pytest.mark.parametrize("size", [(64, 48), (11, 11), (11, 40), (33, 31)])
def test_ssim_equals_scikit_image(size):
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pair(*size)
    expected = metrics.structural_similarity(
        a / 255,
        b / 255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
        channel_axis=-1,
    )
    assert pixels.ssim(a, b) == pytest.approx(expected, abs=1e-6)


def test_psnr_equals_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pair(40, 30)
    expected = metrics.peak_signal_noise_ratio(a, b, data_range=255)
    assert pixels.psnr(a, b) == pytest.approx(expected, abs=1e-9)


def test_psnr_and_mean_errors_by_hand():
    a = np.zeros((2, 2, 3), np.uint8)
    b = a.copy()
    b[0, 0, 0] = 255  # one of twelve: MSE 1/12
    assert pixels.psnr(a, b) == pytest.approx(10 * np.log10(12))
    b[1, 1, 2] = 51  # a fifth of the scale
    assert pixels.mse(a, b) == pytest.approx((1 + 0.2**2) / 12)
    assert pixels.l1(a, b) == pixels.l1(b, a) == pytest.approx((1 + 0.2) / 12)


def test_extremes():
    black, white = (np.full((16, 16, 3), value, np.uint8) for value in (0, 255))
    assert pixels.psnr(black, white) == 0
    assert pixels.psnr(white, white) == np.inf
    assert pixels.mse(white, white) == pixels.l1(white, white) == 0
    assert pixels.mse(black, white) == pixels.l1(black, white) == 1
    assert pixels.ssim(white, white) == pytest.approx(1, abs=1e-12)
    assert pixels.ssim(black, white) == pytest.approx(1e-4 / (1 + 1e-4), rel=1e-9)


@pytest.mark.parametrize("metric", [pixels.psnr, pixels.ssim, pixels.mse, pixels.l1])
def test_a_batch_gives_a_number_an_image(metric):
    pairs = [pair(20, 24, noise, seed) for seed, noise in enumerate((5, 10, 40))]
    a, b = (np.stack(images) for images in zip(*pairs, strict=True))
    result = metric(a, b)
    assert result.shape == (3,) and result.dtype == np.float64
    np.testing.assert_array_equal(result, [metric(*images) for images in pairs])


def test_a_mean_of_psnr_is_no_psnr_of_a_mean_error():
    """The latter is lower (Jensen), and is ruled by the worst image."""
    pairs = [pair(20, 24, noise, seed) for seed, noise in enumerate((2, 8, 60))]
    a, b = (np.stack(images) for images in zip(*pairs, strict=True))
    each = [10 * np.log10(1 / pixels.mse(*images)) for images in pairs]
    of_mean_error = 10 * np.log10(1 / pixels.mse(a, b).mean())
    assert pixels.psnr(a, b).mean() == pytest.approx(np.mean(each))
    assert of_mean_error < pixels.psnr(a, b).mean() - 5
    assert of_mean_error < min(each) + 10 * np.log10(3)  # three images
    same = np.stack([pairs[0]] * 3)  # without a spread the two agree
    assert pixels.psnr(same[:, 0], same[:, 1]).mean() == pytest.approx(each[0])


def test_ssim_needs_room_for_its_window():
    a, b = pair(10, 40)
    with pytest.raises(UserError, match="at least 11 pixels, got 40 x 10"):
        pixels.ssim(a, b)
