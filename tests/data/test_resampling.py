import hashlib

import numpy as np
import pytest
from PIL import Image

from movq_jax.data.resampling import (
    RESAMPLERS,
    SMOOTH,
    check_resample,
    resize,
    resize_linear,
    resize_short_side,
    resize_short_side_adm,
    resize_short_side_down,
)
from movq_jax.errors import UserError

RNG = np.random.default_rng(7)
SMALL = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def photograph(height=480, width=640):
    """Return uint8 [H, W, 3] that is the same everywhere, with every frequency."""
    y, x = np.mgrid[:height, :width]
    channels = [(x * y) % 256, (x + 3 * y) % 256, (x * x + y) % 256]
    return np.stack(channels, axis=-1).astype(np.uint8)


# What OpenCV 4.10 and 5.0 give for `cv2.resize(..., interpolation=cv2.INTER_LINEAR)`.
@pytest.mark.parametrize(
    "red",
    [
        [[144, 81, 149, 96], [175, 127, 107, 92], [135, 143, 169, 143]],
        [[106, 152, 134], [159, 82, 192]],
        [
            [139, 185, 219, 70, 42, 106, 158, 199, 225, 110, 10],
            [116, 138, 158, 115, 110, 133, 138, 156, 191, 110, 39],
            [96, 82, 78, 168, 194, 171, 114, 98, 138, 109, 80],
            [199, 133, 63, 119, 169, 212, 132, 77, 55, 90, 122],
            [237, 169, 91, 122, 149, 170, 107, 70, 67, 121, 167],
            [212, 188, 161, 177, 134, 45, 38, 76, 175, 204, 215],
            [160, 140, 119, 139, 146, 144, 146, 160, 188, 159, 132],
            [122, 102, 80, 105, 157, 230, 236, 225, 189, 118, 63],
        ],
    ],
)
def test_linear_without_antialiasing_is_opencvs(red):
    result = resize_linear(SMALL, len(red), len(red[0]))
    np.testing.assert_array_equal(result[..., 0], red)


@pytest.mark.parametrize(
    "height, width, sha256",
    [
        (256, 341, "bb551cc0f2212a8cb4335e43715d8c1f5048a7968974c2f9b6faae12850bd445"),
        (240, 320, "b21736bcfe4ca1dedabdddd39ce9249f1d4b1f8b24f2a30dd5499929dc953655"),
        (700, 1000, "209ba0bb1d50cc2b2f4878941c178a2fd5d76c2d706868d7538f60b455e678e0"),
    ],
)
def test_linear_without_antialiasing_is_opencvs_at_common_sizes(height, width, sha256):
    result = resize(photograph(), height, width, "linear_no_antialias")
    assert hashlib.sha256(result.tobytes()).hexdigest() == sha256


def test_linear_without_antialiasing_against_opencv():
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width, new_height, new_width = map(int, rng.integers(1, 200, 4))
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = cv2.resize(image, (new_width, new_height))
        result = resize_linear(image, new_height, new_width)
        np.testing.assert_array_equal(result, expected)


def test_linear_without_antialiasing_of_every_narrow_shape():
    for height, width in [(1, 1), (1, 9), (9, 1), (2, 2)]:
        flat = np.full((height, width, 3), 200, np.uint8)
        for size in [(1, 1), (3, 1), (1, 4), (30, 20)]:
            result = resize_linear(flat, *size)
            assert result.shape == (*size, 3) and (abs(result - 200.0) <= 1).all()


def adms_resize(image, size):
    """As ADM has it, in its own words."""
    image = Image.fromarray(image)
    while min(*image.size) >= 2 * size:
        image = image.resize(tuple(x // 2 for x in image.size), resample=Image.BOX)
    scale = size / min(*image.size)
    new = tuple(round(x * scale) for x in image.size)
    return np.asarray(image.resize(new, resample=Image.BICUBIC))


@pytest.mark.parametrize("size", [30, 64, 113, 256, 500])
@pytest.mark.parametrize("shape", [(427, 640), (641, 483), (256, 256), (101, 99)])
def test_adms_resize(shape, size):
    image = photograph(*shape)
    result = resize_short_side_adm(image, size)
    np.testing.assert_array_equal(result, adms_resize(image, size))
    assert min(result.shape[:2]) == size


def test_adms_resize_is_not_one_step():
    one_step = resize_short_side(photograph(), 64, "bicubic")
    assert (one_step != resize_short_side_adm(photograph(), 64)).any()


def test_the_long_side_is_rounded_to_the_nearest_or_down():
    image = photograph(37, 51)  # 51 * 16 / 37 = 22.05, 51 * 20 / 37 = 27.57
    for size, nearest, down in [(16, 22, 22), (20, 28, 27), (37, 51, 51)]:
        assert resize_short_side(image, size, "box").shape == (size, nearest, 3)
        assert resize_short_side_down(image, size, "box").shape == (size, down, 3)
        upright = image.swapaxes(0, 1)
        assert resize_short_side_down(upright, size, "box").shape == (down, size, 3)


@pytest.mark.parametrize("resample", RESAMPLERS)
def test_reducing_gap_is_pillows(resample):
    image = photograph()
    result = resize(image, 100, 120, resample, reducing_gap=1.0)
    expected = Image.fromarray(image).resize(
        (120, 100), RESAMPLERS[resample], reducing_gap=1.0
    )
    np.testing.assert_array_equal(result, np.asarray(expected))


def test_names():
    assert set(RESAMPLERS) > SMOOTH
    check_resample("linear_no_antialias")
    with pytest.raises(UserError, match="did you mean 'linear_no_antialias'"):
        check_resample("linear_no_antialiasing")
