import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation import pictures

BLUE = (0, 0, 255)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )


def contains(sheet, image):
    """Whether `image` stands somewhere in `sheet`, pixel by pixel."""
    height, width = image.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (height, width), (0, 1))
    corners = np.argwhere((windows[..., 0, 0] == image[0, 0]).all(axis=-1))
    return any(
        (sheet[y : y + height, x : x + width] == image).all() for y, x in corners
    )


def test_side_by_side_shows_both_at_full_size():
    a, b = noise(200, 230), noise(200, 230, seed=1)
    sheet = pictures.side_by_side(a, b)
    assert contains(sheet, a) and contains(sheet, b)
    np.testing.assert_array_equal(sheet[0, 0], pictures.BACKGROUND)
    assert (sheet[0] == pictures.BACKGROUND).all()


def test_small_images_are_enlarged_by_whole_numbers():
    a = noise(64, 64)
    assert contains(pictures.side_by_side(a, a), a.repeat(3, axis=0).repeat(3, axis=1))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2), (3, 500)])
def test_odd_sizes(size):
    a = noise(*size)
    for sheet in (pictures.side_by_side(a, a), pictures.comparison_grid([a], [a])):
        assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
        assert sheet.shape[0] < 1000 and sheet.shape[1] < 1500


def test_the_caption_fits():
    a = noise(64, 64)
    sheet = pictures.side_by_side(a, a, caption="a very long caption " * 5)
    assert (sheet[:, : pictures.MARGIN - 4] == pictures.BACKGROUND).all()
    sheet = pictures.comparison_grid([a], [a], captions=["a very long caption " * 5])
    assert sheet.shape[1] == 2 * 192 + pictures.GAP + 2 * pictures.MARGIN


def test_a_grid_of_a_batch():
    a, b = (
        np.stack([noise(64, 64, i) for i in range(8)]),
        np.zeros((8, 64, 64, 3), np.uint8),
    )
    sheet = pictures.comparison_grid(a, b, max_images=3, columns=2)
    shown = [image.repeat(3, axis=0).repeat(3, axis=1) for image in a]
    assert all(contains(sheet, image) for image in shown[:3])
    assert not contains(sheet, shown[3])


def test_a_grid_of_several_sizes():
    sizes = [(100, 192), (192, 100), (400, 300)]
    images = [noise(*size) for size in sizes]
    sheet = pictures.comparison_grid(images, images, captions=["a", "b", "c"])
    assert contains(sheet, images[0]) and contains(sheet, images[1])


def test_a_grid_is_the_same_each_time():
    images = [noise(30, 40)]
    first = pictures.comparison_grid(images, images)
    np.testing.assert_array_equal(first, pictures.comparison_grid(images, images))


def test_an_empty_grid_is_an_error():
    with pytest.raises(UserError, match="no image to show"):
        pictures.comparison_grid([], [])


def test_psnr_caption():
    a = np.zeros((4, 4, 3), np.uint8)
    assert pictures.psnr_caption(a, a) == "exact"
    assert pictures.psnr_caption(a, a + np.uint8(255)) == "0.00 dB"


def test_thumbnail():
    image = noise(100, 50)
    assert pictures.thumbnail(image, (100, 100)) is image
    assert pictures.thumbnail(image, (50, 50)).shape == (50, 25, 3)
    assert pictures.thumbnail(image, (220, 220)).shape == (200, 100, 3)
    assert pictures.thumbnail(noise(1000, 1), (50, 50)).shape == (50, 1, 3)
