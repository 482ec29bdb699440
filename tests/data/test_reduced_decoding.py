"""JPEGs decoded at a reduced scale: how much that changes what training sees."""

import io

import numpy as np
import pytest
from PIL import Image

from movq_jax.data.images import ImageError, decode_image
from movq_jax.data.resampling import SMOOTH
from movq_jax.data.transforms import Adm, CenterCrop, RandomCrop, ShortSide, Transform

RESIZES = {f"short_side {name}": name for name in sorted(SMOOTH)} | {"adm": None}


def jpeg(image, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **options)
    return file.getvalue()


def picture(height, width):
    """Return uint8 [H, W, 3] with edges and slopes."""
    y, x = np.mgrid[:height, :width] / 16
    waves = [np.sin(x + y / 3), np.sign(np.sin(x / 2) * np.sin(y / 5)), np.cos(y)]
    return (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


@pytest.mark.parametrize(
    "shape, least_side, expected",
    [
        ((480, 640), 60, (120, 160)),  # 1/4: the short side is twice 60
        ((480, 640), 61, (240, 320)),
        ((480, 640), 121, (480, 640)),
        ((480, 640), 30, (60, 80)),  # 1/8
        ((480, 640), 1, (60, 80)),  # there is nothing smaller
        ((427, 641), 100, (213, 320)),  # the last row and column are left out
        ((40, 1000), 32, (40, 1000)),
        ((480, 640), None, (480, 640)),
    ],
)
def test_scale(shape, least_side, expected):
    image = decode_image(jpeg(picture(*shape)), least_side=least_side)
    assert image.shape == (*expected, 3) and not image.flags.writeable


@pytest.mark.parametrize(
    "format", ["PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM"]
)
def test_other_formats_come_whole(format):
    file = io.BytesIO()
    Image.fromarray(picture(64, 96)).save(file, format)
    image = decode_image(file.getvalue(), least_side=4)
    np.testing.assert_array_equal(image, decode_image(file.getvalue()))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_shrunken_image(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(picture(97, 131), exif=exif, quality=100)
    small, whole = decode_image(data, least_side=12), decode_image(data)
    assert small.shape == tuple(side // 4 for side in whole.shape[:2]) + (3,)
    # A quarter of the size, and the same way round: few grey levels away.
    mean = np.asarray(Image.fromarray(whole).reduce(4), float)
    error = abs(small - mean[: small.shape[0], : small.shape[1]]).mean()
    turned = abs(small - mean[: small.shape[0], : small.shape[1]][::-1, ::-1]).mean()
    # Of a turned side that is no multiple of 4, the pixels are at another place.
    assert error < 12 < turned


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_kinds_of_jpeg(mode, progressive):
    picture_of_mode = Image.fromarray(picture(64, 96)).convert(mode)
    file = io.BytesIO()
    picture_of_mode.save(file, "JPEG", quality=95, progressive=progressive)
    small = decode_image(file.getvalue(), least_side=16)
    assert small.shape == (32, 48, 3)
    whole = Image.fromarray(decode_image(file.getvalue())).reduce(2)
    assert abs(small - np.asarray(whole, float)).mean() < 3


def test_photograph_of_several_pictures():
    file = io.BytesIO()
    frames = [Image.fromarray(picture(64, 96)), Image.fromarray(picture(64, 96) // 2)]
    frames[0].save(file, "MPO", save_all=True, append_images=frames[1:], quality=95)
    small = decode_image(file.getvalue(), least_side=16)
    assert small.shape == (32, 48, 3) and small.max() > 200


def test_a_cut_off_jpeg_is_refused_at_any_scale():
    data = jpeg(picture(480, 640))
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode_image(data[: len(data) // 2], least_side=16)


def differences(data, size, resample, crop=CenterCrop):
    """Return |whole - shrunken| of what training sees, or None where it is the same."""
    resize = ShortSide(size, resample=resample) if resample else Adm(size)
    transform = Transform(size, resize, crop(size), flip=False)
    whole, small = decode_image(data), decode_image(data, least_side=size)
    if whole.shape == small.shape:
        return None
    scale = whole.shape[0] // small.shape[0]
    part = whole[: small.shape[0] * scale, : small.shape[1] * scale]
    a, b = (transform(image, np.random.default_rng(3)) for image in (part, small))
    return abs(a.astype(int) - b)


def check_bound(of_images):
    """Compare with what the docstring of `decode_image` says."""
    means = [difference.mean() for difference in of_images]
    assert np.mean(means) < 1 and max(means) < 2
    assert max(np.mean(difference > 20) for difference in of_images) <= 1e-3
    assert max(difference.max() for difference in of_images) <= 32


@pytest.mark.parametrize("name", RESIZES)
def test_bound_on_pictures(name):
    found = []
    for shape in [(480, 640), (427, 641), (1000, 700)]:
        for options in [{"quality": 95, "subsampling": 0}, {"quality": 75}]:
            data = jpeg(picture(*shape), **options)
            found += [differences(data, size, RESIZES[name]) for size in (32, 64, 100)]
    check_bound([difference for difference in found if difference is not None])


@pytest.mark.parametrize("name", RESIZES)
def test_bound_on_photographs(name, real_samples):
    paths = sorted((real_samples / "data" / "coco").rglob("*.jpg"))[::5]
    paths += sorted((real_samples / "data" / "ade20k").rglob("*.jpg"))
    found = [
        differences(path.read_bytes(), size, RESIZES[name])
        for path in paths
        for size in (24, 48, 100)
    ]
    found = [difference for difference in found if difference is not None]
    assert len(found) > 40
    check_bound(found)


def test_random_places_are_the_same():
    data = jpeg(picture(427, 641))
    assert differences(data, 64, "bicubic", RandomCrop).mean() < 2
