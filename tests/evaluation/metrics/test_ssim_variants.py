import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.metrics import pixels
from movq_jax.evaluation.metrics.ssim_variants import ssim_torchmetrics, ssim_uniform

BOTH = pytest.mark.parametrize("metric", [ssim_uniform, ssim_torchmetrics])


def pair(height, width, noise=20, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + c) + np.cos(y / (7 + c)) for c in range(3)]
    a = np.stack(waves, axis=-1) * 60 + 128
    b = a + rng.normal(0, noise, a.shape)
    return tuple(np.uint8(np.clip(image, 0, 255)) for image in (a, b))


@pytest.mark.parametrize("size", [(40, 32), (7, 7), (9, 30)])
def test_uniform_equals_scikit_image(size):
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pair(*size)
    expected = metrics.structural_similarity(
        a / 255, b / 255, data_range=1, channel_axis=-1
    )
    assert ssim_uniform(a, b) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [(40, 32), (6, 9)])
def test_torchmetrics_is_the_mean_over_a_reflected_map(size):
    """By scipy's filter, whose `mirror` is what others call reflecting."""
    ndimage = pytest.importorskip("scipy.ndimage")
    a, b = pair(*size)

    def mean(x):
        filtered = lambda c: ndimage.gaussian_filter(c, 1.5, mode="mirror", radius=5)  # noqa: E731
        return np.stack([filtered(x[..., c]) for c in range(3)], axis=-1)

    x, y = a / 255, b / 255
    luminance = (2 * mean(x) * mean(y) + 1e-4) / (mean(x) ** 2 + mean(y) ** 2 + 1e-4)
    variances = mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2
    contrast = (2 * (mean(x * y) - mean(x) * mean(y)) + 9e-4) / (variances + 9e-4)
    expected = np.mean(luminance * contrast)
    assert ssim_torchmetrics(a, b) == pytest.approx(expected, abs=1e-12)


def test_the_three_definitions_are_not_one():
    a, b = pair(40, 32)
    values = sorted(metric(a, b) for metric in (pixels.ssim, *BOTH.args[1]))
    assert np.all(np.diff(values) > 1e-3)


@BOTH
def test_extremes(metric):
    black, white = (np.full((16, 16, 3), value, np.uint8) for value in (0, 255))
    assert metric(white, white) == pytest.approx(1, abs=1e-12)
    assert metric(black, white) == pytest.approx(1e-4 / (1 + 1e-4), rel=1e-9)
    a, b = pair(20, 20)
    assert metric(a, b) == metric(b, a) < 1


@BOTH
def test_a_batch_gives_a_number_an_image(metric):
    pairs = [pair(20, 24, noise, seed) for seed, noise in enumerate((5, 10, 40))]
    a, b = (np.stack(images) for images in zip(*pairs, strict=True))
    result = metric(a, b)
    assert result.shape == (3,) and result.dtype == np.float64
    np.testing.assert_array_equal(result, [metric(*images) for images in pairs])
    assert np.all(np.diff(result) < 0)


def test_no_room_for_the_window():
    with pytest.raises(UserError, match="uniform .* at least 7 pixels, got 40 x 6"):
        ssim_uniform(*pair(6, 40))
    with pytest.raises(UserError, match="torchmetrics .* at least 6 pixels, got 5 x 9"):
        ssim_torchmetrics(*pair(9, 5))


@pytest.mark.parity
@pytest.mark.parametrize("size", [(40, 32), (6, 9)])
def test_equals_torchmetrics(torch, size):
    image = pytest.importorskip("torchmetrics.functional.image")
    pairs = [pair(*size, noise, seed) for seed, noise in enumerate((10, 40))]
    a, b = (np.stack(images) for images in zip(*pairs, strict=True))
    x, y = (torch.from_numpy(i / 255).permute(0, 3, 1, 2) for i in (a, b))
    expected = image.structural_similarity_index_measure(
        x, y, data_range=1.0, reduction="none"
    )
    np.testing.assert_allclose(ssim_torchmetrics(a, b), expected.numpy(), atol=1e-6)
