"""Geometry and pixels against torchvision, on Pillow's images."""

import numpy as np
import pytest
from PIL import Image

from movq_jax.data.crops import RandomResizedCrop
from movq_jax.data.transforms import CenterCrop, OneOfTen, ShortSide, Squash

pytestmark = pytest.mark.parity

SHAPES = [(427, 640), (640, 427), (333, 500), (256, 256), (301, 299), (70, 99)]
FILTERS = ["bilinear", "bicubic", "box", "hamming", "lanczos", "nearest"]


@pytest.fixture(scope="module")
def transforms(torch):
    """The module torchvision.transforms."""
    return pytest.importorskip("torchvision.transforms")


def picture(shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def generator(seed=0):
    return np.random.default_rng(seed)


def run(transform, image):
    return np.asarray(transform(Image.fromarray(image)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("resample", FILTERS)
def test_resize_of_the_short_side(transforms, shape, resample):
    theirs = transforms.Resize(64, transforms.InterpolationMode(resample))
    ours = ShortSide(64, resample=resample, rounding="down")
    image = picture(shape)
    np.testing.assert_array_equal(ours(image, generator()), run(theirs, image))


@pytest.mark.parametrize("shape", SHAPES)
def test_resize_to_a_square(transforms, shape):
    theirs = transforms.Resize((64, 64))
    ours = Squash(64, resample="bilinear")
    image = picture(shape)
    np.testing.assert_array_equal(ours(image, generator()), run(theirs, image))


@pytest.mark.parametrize("remainder", range(9))
def test_center_crop(transforms, remainder):
    image = picture((64 + remainder, 70))
    theirs = run(transforms.CenterCrop(64), image)
    ours = CenterCrop(64, rounding="nearest")(image, generator())
    np.testing.assert_array_equal(ours, theirs)


def test_ten_crops(transforms):
    image = picture((281, 281))
    theirs = transforms.TenCrop(256)(Image.fromarray(image))
    expected = {np.asarray(crop).tobytes() for crop in theirs}
    found = {OneOfTen(256)(image, generator(seed)).tobytes() for seed in range(100)}
    assert found == expected


class Draws:
    """Stands for the module torch, and draws from a generator of NumPy."""

    def __init__(self, torch, rng):
        self._torch, self._rng = torch, rng
        self.log, self.tensor, self.exp = torch.log, torch.tensor, torch.exp

    def empty(self, _):
        return self

    def uniform_(self, low, high):
        value = self._rng.uniform(float(low), float(high))
        return self._torch.tensor([value], dtype=self._torch.float64)

    def randint(self, low, high, size):
        return self._torch.tensor([int(self._rng.integers(low, high))])


@pytest.mark.parametrize("shape", [*SHAPES, (40, 400), (400, 30), (1, 1), (3, 2)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.6, 1.0)])
def test_rectangles_of_random_resized_crop(
    transforms, torch, monkeypatch, shape, scale
):
    module = transforms.transforms
    crop = RandomResizedCrop(64, *scale)
    for seed in range(100):
        monkeypatch.setattr(module, "torch", Draws(torch, generator(seed)))
        image = Image.new("L", shape[::-1])
        expected = transforms.RandomResizedCrop.get_params(image, scale, (3 / 4, 4 / 3))
        assert crop.rectangle(*shape, generator(seed)) == tuple(expected)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_pixels_of_random_resized_crop(transforms, resample):
    image = picture((427, 640))
    for seed in range(5):
        crop = RandomResizedCrop(64, resample=resample)
        theirs = transforms.functional.resized_crop(
            Image.fromarray(image),
            *crop.rectangle(427, 640, generator(seed)),
            [64, 64],
            transforms.InterpolationMode(resample),
        )
        np.testing.assert_array_equal(crop(image, generator(seed)), np.asarray(theirs))
