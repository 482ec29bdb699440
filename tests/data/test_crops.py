import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from movq_jax.data.crops import (
    CenterCrop,
    CenterSquare,
    OneOfTen,
    RandomResizedCrop,
    RandomShortSide,
)
from movq_jax.data.transforms import CROPS
from movq_jax.errors import UserError

IMAGE = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)


def generator(seed=0):
    return np.random.default_rng(seed)


# A remainder -> how much of it torchvision leaves above, half a pixel becoming even.
@pytest.mark.parametrize("remainder, offset", [(4, 2), (5, 2), (7, 4), (9, 4), (0, 0)])
def test_center_rounded_to_the_nearest(remainder, offset):
    image = IMAGE[: 16 + remainder, :16]
    result = CenterCrop(16, rounding="nearest")(image, generator())
    np.testing.assert_array_equal(result, image[offset : offset + 16])


def test_center_has_two_roundings():
    with pytest.raises(UserError, match="rounding of 'center' is 'up'; use down or"):
        CenterCrop(16, rounding="up")


def movqgans_square(image, size, reducing_gap):
    """As SBER-MoVQGAN has it, by Pillow."""
    image = Image.fromarray(image)
    width, height = image.size
    side = min(width, height)
    box = (
        (width - side) / 2,
        (height - side) / 2,
        (width + side) / 2,
        (height + side) / 2,
    )
    square = image.crop(box)
    return np.asarray(
        square.resize((size, size), Image.BICUBIC, reducing_gap=reducing_gap)
    )


@pytest.mark.parametrize("shape", [(37, 51), (37, 52), (50, 36), (37, 40), (90, 90)])
@pytest.mark.parametrize("gap", [0.0, 1.0])
def test_center_square_is_pillows(shape, gap):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    result = CenterSquare(16, reducing_gap=gap)(image, generator())
    np.testing.assert_array_equal(result, movqgans_square(image, 16, gap or None))


def test_center_square_of_a_line():
    for width in range(1, 9):
        line = np.full((1, width, 3), 9, np.uint8)
        assert (CenterSquare(4)(line, generator()) == 9).all()


def test_reducing_gaps_that_make_no_sense():
    with pytest.raises(UserError, match="must be 0, for none, or from 1"):
        CenterSquare(8, reducing_gap=0.5)
    with pytest.raises(UserError, match="linear_no_antialias has none"):
        CenterSquare(8, resample="linear_no_antialias", reducing_gap=1.0)


def test_random_resized_is_the_rectangle_resized_by_pillow():
    crop = RandomResizedCrop(8, resample="bicubic")
    for seed in range(20):
        top, left, height, width = crop.rectangle(37, 51, generator(seed))
        part = Image.fromarray(IMAGE).crop((left, top, left + width, top + height))
        expected = part.resize((8, 8), Image.Resampling.BICUBIC)
        result = crop(IMAGE, generator(seed))
        np.testing.assert_array_equal(result, np.asarray(expected))


def test_random_resized_areas_and_aspects():
    crop = RandomResizedCrop(8)
    areas, ratios = [], []
    for seed in range(3000):
        top, left, height, width = crop.rectangle(1000, 1000, generator(seed))
        assert 0 <= top <= 1000 - height and 0 <= left <= 1000 - width
        areas.append(height * width / 1e6)
        ratios.append(math.log(width / height))
    assert 0.079 < min(areas) and max(areas) <= 1
    assert max(map(abs, ratios)) < math.log(4 / 3) + 0.01
    # Areas are uniform, but for the large ones with an aspect that does not fit.
    assert abs(np.mean(np.array(areas) < 0.375) - 0.295 / 0.92) < 0.06
    assert abs(np.mean(ratios)) < 0.01


# What no draw can fit: the largest rectangle in the middle, of the nearest aspect.
@pytest.mark.parametrize(
    "shape, rectangle",
    [((10, 400), (0, 193, 10, 13)), ((400, 12), (192, 0, 16, 12))],
)
def test_random_resized_of_a_strip(shape, rectangle):
    crop = RandomResizedCrop(8, min_scale=0.5)
    assert crop.rectangle(*shape, generator()) == rectangle


def test_random_short_side_is_adms():
    crop = RandomShortSide(30)
    sides = Counter()
    for seed in range(300):
        rng = generator(seed)  # the draws: short side, row, column
        side = rng.integers(30, 38, endpoint=True)
        sides[side] += 1
        scale = side / 37
        size = (round(51 * scale), round(37 * scale))
        resized = Image.fromarray(IMAGE).resize(size, Image.Resampling.BICUBIC)
        top = rng.integers(size[1] - 30, endpoint=True)
        left = rng.integers(size[0] - 30, endpoint=True)
        expected = np.asarray(resized)[top : top + 30, left : left + 30]
        np.testing.assert_array_equal(crop(IMAGE, generator(seed)), expected)
    assert set(sides) == set(range(30, 39)) and min(sides.values()) > 15


@pytest.mark.parametrize("fracs", [(0.0, 1.0), (0.9, 0.8), (0.8, 1.2)])
def test_fractions_that_make_no_sense(fracs):
    with pytest.raises(UserError, match="min_crop_frac <= max_crop_frac <= 1"):
        RandomShortSide(8, *fracs)


@pytest.mark.parametrize(
    "fields", [{"min_scale": 0.0}, {"max_scale": 1.5}, {"min_ratio": 2.0}]
)
def test_rectangles_that_make_no_sense(fields):
    with pytest.raises(UserError, match=r"'random_resized' needs 0 < min_"):
        RandomResizedCrop(8, **fields)


def test_one_of_ten():
    square = IMAGE[:, 7:44]  # the middle of 51 columns
    rest = 37 - 16  # 21: the middle is at 10, also of the mirrored square
    places = [(0, 0), (0, rest), (rest, 0), (rest, rest), (10, 10)]
    ten = {
        image[y : y + 16, x : x + 16].tobytes()
        for image in (square, square[:, ::-1])
        for y, x in places
    }
    seen = {OneOfTen(16)(IMAGE, generator(s)).tobytes() for s in range(200)}
    assert seen == ten and len(ten) == 10


@pytest.mark.parametrize("name", sorted(set(CROPS) - {"none", "random_scaled"}))
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (7, 3), (16, 16), (17, 16)])
def test_any_shape_can_be_cropped(name, shape):
    image = np.zeros((*shape, 3), np.uint8)
    image.flags.writeable = False
    assert CROPS[name](16)(image, generator()).shape == (16, 16, 3)
