import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.metrics.ms_ssim import MIN_SIDE, ms_ssim, ms_ssim_torchmetrics

BOTH = pytest.mark.parametrize("metric", [ms_ssim, ms_ssim_torchmetrics])
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def pair(height, width, noise=20, seed=0):
    """Waves of several lengths and a noisy copy, other in each channel."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (9 + 9 * c)) + np.cos(y / (7 + c)) for c in range(3)]
    a = np.stack(waves, axis=-1) * 60 + 128
    b = a + rng.normal(0, noise, a.shape) * [0.5, 1, 2]
    return tuple(np.uint8(np.clip(image, 0, 255)) for image in (a, b))


def terms(x, y, ndimage):
    """SSIM and contrast maps of one channel of the whole image, by scipy's filter."""
    mean = lambda c: ndimage.gaussian_filter(c, 1.5, mode="mirror", radius=5)  # noqa: E731
    luminance = (2 * mean(x) * mean(y) + 1e-4) / (mean(x) ** 2 + mean(y) ** 2 + 1e-4)
    variances = mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2
    contrast = (2 * (mean(x * y) - mean(x) * mean(y)) + 9e-4) / (variances + 9e-4)
    return luminance * contrast, contrast


def by_definition(a, b, ndimage, whole_map, channels_first):
    found = np.empty((5, 3))
    for c in range(3):
        x, y = a[..., c] / 255, b[..., c] / 255
        for scale in range(5):
            similarity, contrast = terms(x, y, ndimage)
            inner = slice(5, -5), slice(5, -5)
            last = similarity if whole_map else similarity[inner]
            found[scale, c] = np.mean(last if scale == 4 else contrast[inner])
            height, width = (side // 2 for side in x.shape)
            x, y = (i[: 2 * height, : 2 * width] for i in (x, y))
            x, y = (i.reshape(height, 2, width, 2).mean(axis=(1, 3)) for i in (x, y))
    if channels_first:
        found = found.mean(axis=1, keepdims=True)
    return np.prod(np.maximum(found, 0) ** np.reshape(BETAS, (5, 1)), axis=0).mean()


@pytest.mark.parametrize("size", [(MIN_SIDE, 190), (181, MIN_SIDE)])
def test_by_definition(size):
    ndimage = pytest.importorskip("scipy.ndimage")
    a, b = pair(*size)
    expected = by_definition(a, b, ndimage, whole_map=False, channels_first=False)
    assert ms_ssim(a, b) == pytest.approx(expected, abs=1e-12)
    expected = by_definition(a, b, ndimage, whole_map=True, channels_first=True)
    assert ms_ssim_torchmetrics(a, b) == pytest.approx(expected, abs=1e-12)


@BOTH
def test_extremes(metric):
    a, b = pair(MIN_SIDE, MIN_SIDE)
    assert metric(a, a) == pytest.approx(1, abs=1e-12)
    assert metric(a, b) == metric(b, a) < 1
    # An image and its negative have negative contrast terms, which count as 0.
    assert metric(a, 255 - a) == 0


@BOTH
def test_a_batch_gives_a_number_an_image(metric):
    pairs = [pair(MIN_SIDE, MIN_SIDE, noise) for noise in (5, 40)]
    a, b = (np.stack(images) for images in zip(*pairs, strict=True))
    result = metric(a, b)
    assert result.shape == (2,) and result.dtype == np.float64
    expected = [metric(*images) for images in pairs]
    np.testing.assert_allclose(result, expected, rtol=1e-14)
    assert result[0] > result[1] + 0.05


@BOTH
def test_no_room_for_the_window_at_the_last_scale(metric):
    with pytest.raises(UserError, match="at least 176 pixels, got 200 x 175"):
        metric(*pair(175, 200))


@pytest.mark.parity
def test_equals_torchmetrics(torch):
    image = pytest.importorskip("torchmetrics.functional.image")
    a, b = (i[None] for i in pair(MIN_SIDE, 190))
    x, y = (torch.from_numpy(i / 255).permute(0, 3, 1, 2) for i in (a, b))
    expected = image.multiscale_structural_similarity_index_measure(
        x, y, data_range=1.0, reduction="none"
    )
    np.testing.assert_allclose(ms_ssim_torchmetrics(a, b), expected.numpy(), atol=1e-6)
