import math

import numpy as np
import pytest
from PIL import Image

from movq_jax import families
from movq_jax.data.resampling import RESAMPLERS, SMOOTH
from movq_jax.data.transforms import (
    CROPS,
    RESIZES,
    Adm,
    CenterCrop,
    NoCrop,
    NoResize,
    RandomCrop,
    RandomScaledCrop,
    RandomShortSide,
    ShortSide,
    Squash,
    Transform,
    mirror,
)
from movq_jax.errors import UserError

IMAGE = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("resample", RESAMPLERS)
@pytest.mark.parametrize("size", [16, 64])
def test_short_side_is_pillows(resample, size):
    result = ShortSide(size, resample=resample)(IMAGE, generator())
    width = round(51 * size / 37)
    expected = Image.fromarray(IMAGE).resize((width, size), RESAMPLERS[resample])
    np.testing.assert_array_equal(result, np.asarray(expected))


def test_short_side_of_an_upright_image():
    upright = np.swapaxes(IMAGE, 0, 1)
    assert ShortSide(16)(upright, generator()).shape == (22, 16, 3)


def test_short_side_may_be_larger_than_the_crop():
    assert ShortSide(16, size=20)(IMAGE, generator()).shape == (20, 28, 3)
    with pytest.raises(UserError, match="short side of 10 is below"):
        ShortSide(16, size=10)


@pytest.mark.parametrize("resample", RESAMPLERS)
def test_squash_is_pillows(resample):
    result = Squash(32, resample=resample)(IMAGE, generator())
    expected = Image.fromarray(IMAGE).resize((32, 32), RESAMPLERS[resample])
    np.testing.assert_array_equal(result, np.asarray(expected))


def test_an_image_of_the_right_size_is_left_alone():
    square = IMAGE[:32, :32]
    assert Squash(32)(square, generator()) is square
    assert ShortSide(37)(IMAGE, generator()) is IMAGE


def test_center_crop_leaves_the_odd_pixel_below_and_right():
    result = CenterCrop(16)(IMAGE, generator())
    np.testing.assert_array_equal(result, IMAGE[10:26, 17:33])


def test_random_crop_is_pillows_and_reaches_every_place():
    corners = set()
    for seed in range(400):
        result = RandomCrop(32)(IMAGE, generator(seed))
        # Both draws come from one generator, first the row.
        rng = generator(seed)
        top, left = (
            rng.integers(0, 5, endpoint=True),
            rng.integers(0, 19, endpoint=True),
        )
        expected = Image.fromarray(IMAGE).crop((left, top, left + 32, top + 32))
        np.testing.assert_array_equal(result, np.asarray(expected))
        corners.add((top, left))
    assert {top for top, _ in corners} == set(range(6))
    assert {left for _, left in corners} == set(range(20))


@pytest.mark.parametrize("crop", [CenterCrop(64), RandomCrop(64)])
def test_a_crop_enlarges_an_image_that_is_too_small(crop):
    small = IMAGE[:20, :40]
    result = crop(small, generator())
    assert result.shape == (64, 64, 3)
    enlarged = Image.fromarray(small).resize((128, 64), Image.Resampling.BICUBIC)
    columns = np.lib.stride_tricks.sliding_window_view(np.asarray(enlarged), 64, axis=1)
    assert (columns.transpose(1, 0, 3, 2) == result).all(axis=(1, 2, 3)).any()


@pytest.mark.parametrize("name", ["center", "random", "random_scaled"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (7, 3), (16, 16), (17, 16)])
def test_any_shape_can_be_cropped(name, shape):
    scales = {"min_scale": 0.5, "max_scale": 3.0} if name == "random_scaled" else {}
    image = np.zeros((*shape, 3), np.uint8)
    assert CROPS[name](16, **scales)(image, generator()).shape == (16, 16, 3)


def test_random_scaled_crop_is_a_square_resized_by_pillow():
    crop = RandomScaledCrop(8, min_scale=1.0, max_scale=4.0, resample="lanczos")
    result = crop(IMAGE, generator(1))
    rng = generator(1)  # the draws: scale, row, column
    side = round(8 * math.exp(rng.uniform(0, math.log(4))))
    top = rng.integers(37 - side, endpoint=True)
    left = rng.integers(51 - side, endpoint=True)
    square = Image.fromarray(IMAGE).crop((left, top, left + side, top + side))
    expected = square.resize((8, 8), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(result, np.asarray(expected))


def test_random_scales_are_log_uniform_and_clamped(monkeypatch):
    sides = []
    monkeypatch.setattr(
        "movq_jax.data.crops.resize",
        lambda image, *_: sides.append(len(image)) or image,
    )
    large = np.zeros((2000, 1500, 3), np.uint8)
    crop = RandomScaledCrop(100, min_scale=0.5, max_scale=20.0)
    for seed in range(600):
        crop(large, generator(seed))
    assert min(sides) >= 50 and max(sides) == 1500
    free = [math.log(side) for side in sides if side < 1500]
    middle = (math.log(50) + math.log(1500)) / 2
    assert abs(np.mean(free) - middle) < 0.15


def test_scales_that_make_no_sense():
    with pytest.raises(UserError, match="0 < min_scale <= max_scale"):
        RandomScaledCrop(8, min_scale=3.0, max_scale=2.0)


def test_short_side_rounded_down():
    result = ShortSide(20, rounding="down")(IMAGE, generator())
    assert result.shape == (20, 27, 3)  # 51 * 20 / 37 = 27.57
    with pytest.raises(UserError, match="rounding of 'short_side' is 'up'; use near"):
        ShortSide(20, rounding="up")


def test_adm_has_a_size_of_its_own():
    assert Adm(16)(IMAGE, generator()).shape == (16, 22, 3)
    assert Adm(16, size=17)(IMAGE, generator()).shape == (17, 24, 3)
    with pytest.raises(UserError, match="short side of 10 is below"):
        Adm(16, size=10)


# As configs have them: the preprocessing of each paper.
@pytest.mark.parametrize(
    "resize, crop",
    [
        ({"name": "adm"}, {"name": "center"}),
        ({"name": "none"}, {"name": "random_short_side", "min_crop_frac": 0.7}),
        ({"name": "adm", "size": 17}, {"name": "one_of_ten"}),
        (
            {"name": "short_side", "rounding": "down"},
            {"name": "center", "rounding": "nearest"},
        ),
        ({"name": "short_side", "resample": "linear_no_antialias"}, {"name": "random"}),
        ({"name": "squash", "resample": "bilinear"}, {"name": "none"}),
        ({"name": "none"}, {"name": "center_square", "reducing_gap": 1.0}),
        ({"name": "none"}, {"name": "random_resized", "min_scale": 0.5}),
    ],
)
def test_preprocessing_by_config(resize, crop):
    steps = {
        "resize": families.make(RESIZES, resize, "data.train.resize", image_size=16),
        "crop": families.make(CROPS, crop, "data.train.crop", image_size=16),
    }
    result = Transform(16, **steps, flip=True)(IMAGE, generator())
    assert result.shape == (16, 16, 3) and result.dtype == np.uint8


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"name": "adn"}, "data.train.resize.name is 'adn'; did you mean 'adm'"),
        ({"name": "adm", "resample": "box"}, r"resize \(adm\) has no field 'resample'"),
        ({"name": "short_side", "size": 1.5}, "data.train.resize.size is 1.5; give a"),
    ],
)
def test_errors_in_a_config(fields, message):
    with pytest.raises(UserError, match=message):
        families.make(RESIZES, fields, "data.train.resize", image_size=16)


@pytest.mark.parametrize("resample", [*RESAMPLERS, "linear_no_antialias"])
def test_only_smooth_filters_let_the_decoder_shrink(resample):
    for resize in (ShortSide(16, 20, resample), Squash(20, resample)):
        transform = Transform(16, resize, RandomCrop(16), flip=True)
        assert transform.least_side == (20 if resample in SMOOTH else None)


@pytest.mark.parametrize(
    "resize, crop, least_side",
    [
        (NoResize(16), RandomCrop(16), None),
        (NoResize(16), CenterCrop(16), None),
        (NoResize(16), RandomScaledCrop(16, 0.5, 2.0), None),
        (NoResize(16), RandomShortSide(16), 20),
        (Adm(16), CenterCrop(16), 16),
        (Adm(16), RandomShortSide(16), 16),
        (lambda image, rng: image, CenterCrop(16), None),
    ],
)
def test_how_far_the_decoder_may_shrink(resize, crop, least_side):
    assert Transform(16, resize, crop, flip=True).least_side == least_side


def test_unknown_resampler():
    with pytest.raises(UserError, match="'bicubik'; did you mean 'bicubic'"):
        Squash(8, resample="bicubik")


def test_mirror():
    np.testing.assert_array_equal(mirror(IMAGE), IMAGE[:, ::-1])


def test_flip_mirrors_about_half():
    transform = Transform(8, NoResize(8), CenterCrop(8), flip=True)
    plain = CenterCrop(8)(IMAGE, generator())
    mirrored = 0
    for seed in range(200):
        result = transform(IMAGE, generator(seed))
        is_mirrored = not np.array_equal(result, plain)
        if is_mirrored:
            np.testing.assert_array_equal(result, plain[:, ::-1])
        mirrored += is_mirrored
    assert 70 < mirrored < 130


def test_equal_generators_give_equal_pixels():
    crop = RandomScaledCrop(8, min_scale=0.5, max_scale=3.0)
    transform = Transform(8, NoResize(8), crop, flip=True)
    first, again, other = (transform(IMAGE, generator(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_channels_are_permuted_and_nothing_else():
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    transform = Transform(8, NoResize(8), NoCrop(8), flip=False, permute_channels=True)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        order = tuple(int(v) for v in transform(image, rng)[0, 0])
        assert sorted(order) == [0, 1, 2]
        seen.add(order)
    assert len(seen) == 6


def test_a_result_of_another_size_is_refused():
    transform = Transform(32, NoResize(32), NoCrop(32), flip=False)
    assert transform(IMAGE[:32, :32], generator()).shape == (32, 32, 3)
    with pytest.raises(UserError, match="51 x 37 after resize and crop, not 32 x 32"):
        transform(IMAGE, generator())


def test_transforms_leave_their_input_alone():
    image = IMAGE.copy()
    image.flags.writeable = False
    for crop in (CenterCrop(16), RandomCrop(16), RandomScaledCrop(16, 0.5, 2.0)):
        Transform(16, ShortSide(16), crop, flip=True)(image, generator())
