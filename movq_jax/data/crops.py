"""Crops: members of the family that ends in a square of `image_size` pixels.

Each is called with uint8 [H, W, 3] and a generator, and returns uint8 [size, size, 3].
An image that is too small for its cut is enlarged first.
"""

import dataclasses
import math

import numpy as np

from movq_jax import fields
from movq_jax.data.resampling import (
    LINEAR_NO_ANTIALIAS,
    check_resample,
    mirror,
    resize,
    resize_short_side,
    resize_short_side_adm,
)
from movq_jax.errors import UserError

_TRIES = 10  # of torchvision's RandomResizedCrop


@dataclasses.dataclass(frozen=True)
class NoCrop:
    """Leave the image as it is."""

    image_size: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> the same."""
        return image


@dataclasses.dataclass(frozen=True)
class CenterCrop:
    """Cut out the middle.

    Of an odd remainder, `rounding` 'down' leaves the extra pixel below and right: ADM's
    `center_crop_arr` and albumentations' `CenterCrop` (taming-transformers). 'nearest'
    rounds the half pixel to an even offset: torchvision's `CenterCrop` (TiTok, MaskBit,
    Dual Codebook VQ).
    """

    image_size: int
    rounding: str = "down"

    def __post_init__(self):
        fields.check_choice("the rounding of 'center'", self.rounding, _OFFSETS)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [image_size, image_size, 3]."""
        image = _at_least(image, self.image_size)
        offset = _OFFSETS[self.rounding]
        top, left = (offset(side - self.image_size) for side in image.shape[:2])
        return _cut(image, top, left, self.image_size)


@dataclasses.dataclass(frozen=True)
class CenterSquare:
    """Cut out the largest square of the middle, then resize it.

    With `reducing_gap` 1, as SBER-MoVQGAN's `ImageDataset` has it (movqgan/data/
    dataset.py). Its box has halves of pixels, which Pillow rounds to even numbers: the
    "square" can be a pixel wider or narrower than it is high.
    """

    image_size: int
    resample: str = "bicubic"
    reducing_gap: float = 0.0

    def __post_init__(self):
        check_resample(self.resample)
        if self.reducing_gap and self.resample == LINEAR_NO_ANTIALIAS:
            raise UserError(f"a reducing_gap is Pillow's: {self.resample} has none")
        if self.reducing_gap and not 1 <= self.reducing_gap < math.inf:
            raise UserError(
                f"'center_square' has reducing_gap {self.reducing_gap}: it must be 0, "
                f"for none, or from 1"
            )

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [image_size, image_size, 3]."""
        short = min(image.shape[:2])
        (top, bottom), (left, right) = (
            (round((side - short) / 2), round((side + short) / 2))
            for side in image.shape[:2]
        )
        # Of a side of one pixel nothing can be left.
        square = image[top : max(bottom, top + 1), left : max(right, left + 1)]
        size = self.image_size
        return resize(square, size, size, self.resample, self.reducing_gap)


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Cut out a square at a uniformly random place.

    As torchvision's `RandomCrop` (TiTok, MaskBit). That of albumentations 0.4 (taming-
    transformers) never takes the last row and column of places, of a side with more
    than one.
    """

    image_size: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [image_size, image_size, 3]."""
        image = _at_least(image, self.image_size)
        return _cut(
            image, *_random_corner(image, self.image_size, rng), self.image_size
        )


@dataclasses.dataclass(frozen=True)
class RandomScaledCrop:
    """Cut out a square of a random side at a random place, then resize it.

    The side is image_size * s with log s uniform between the logarithms of
    `min_scale` and `max_scale`; a square larger than the image is as large as its
    short side. Cutting comes first, so the cost is that of the square and not that
    of the photograph. No paper's: made for a handful of large photographs.
    """

    image_size: int
    min_scale: float
    max_scale: float
    resample: str = "bicubic"

    def __post_init__(self):
        check_resample(self.resample)
        if not 0 < self.min_scale <= self.max_scale < math.inf:
            raise UserError(
                f"'random_scaled' needs 0 < min_scale <= max_scale, "
                f"got {self.min_scale} and {self.max_scale}"
            )

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [image_size, image_size, 3]."""
        log_scale = rng.uniform(math.log(self.min_scale), math.log(self.max_scale))
        side = max(1, round(self.image_size * math.exp(log_scale)))
        side = min(side, *image.shape[:2])
        square = _cut(image, *_random_corner(image, side, rng), side)
        return resize(square, self.image_size, self.image_size, self.resample)


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Cut out a rectangle of a random area and aspect, then resize it to the square.

    torchvision's `RandomResizedCrop`: up to ten times draw a share of the area, from
    `min_scale` to `max_scale`, and an aspect (width over height), log-uniform from
    `min_ratio` to `max_ratio`; the first rectangle that fits is put at a random place.
    If none does: the largest one in the middle, of the nearest aspect allowed.
    """

    image_size: int
    min_scale: float = 0.08
    max_scale: float = 1.0
    min_ratio: float = 3 / 4
    max_ratio: float = 4 / 3
    resample: str = "bilinear"

    def __post_init__(self):
        check_resample(self.resample)
        if not 0 < self.min_scale <= self.max_scale <= 1:
            raise UserError(
                f"'random_resized' needs 0 < min_scale <= max_scale <= 1, "
                f"got {self.min_scale} and {self.max_scale}"
            )
        if not 0 < self.min_ratio <= self.max_ratio < math.inf:
            raise UserError(
                f"'random_resized' needs 0 < min_ratio <= max_ratio, "
                f"got {self.min_ratio} and {self.max_ratio}"
            )

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [image_size, image_size, 3]."""
        top, left, height, width = self.rectangle(*image.shape[:2], rng)
        part = image[top : top + height, left : left + width]
        return resize(part, self.image_size, self.image_size, self.resample)

    def rectangle(
        self, height: int, width: int, rng: np.random.Generator
    ) -> tuple[int, int, int, int]:
        """Draw (top, left, height, width) for an image of that size."""
        low, high = math.log(self.min_ratio), math.log(self.max_ratio)
        for _ in range(_TRIES):
            area = height * width * rng.uniform(self.min_scale, self.max_scale)
            ratio = math.exp(rng.uniform(low, high))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top = int(rng.integers(height - h, endpoint=True))
                left = int(rng.integers(width - w, endpoint=True))
                return top, left, h, w
        h, w = height, width
        if width / height < self.min_ratio:
            h = max(1, round(width / self.min_ratio))
        elif width / height > self.max_ratio:
            w = max(1, round(height * self.max_ratio))
        return (height - h) // 2, (width - w) // 2, h, w


@dataclasses.dataclass(frozen=True)
class RandomShortSide:
    """Resize to a random short side as ADM does, then cut at a random place.

    ADM's `random_crop_arr` (guided_diffusion/image_datasets.py; LlamaGen's training):
    the short side is a whole number from image_size / max_crop_frac to image_size /
    min_crop_frac, both rounded up and each as likely as the others.
    """

    image_size: int
    min_crop_frac: float = 0.8
    max_crop_frac: float = 1.0

    def __post_init__(self):
        if not 0 < self.min_crop_frac <= self.max_crop_frac <= 1:
            raise UserError(
                f"'random_short_side' needs 0 < min_crop_frac <= max_crop_frac <= 1, "
                f"got {self.min_crop_frac} and {self.max_crop_frac}"
            )

    @property
    def least_side(self) -> int:
        """The largest short side that is drawn."""
        return math.ceil(self.image_size / self.min_crop_frac)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [image_size, image_size, 3]."""
        least = math.ceil(self.image_size / self.max_crop_frac)
        side = int(rng.integers(least, self.least_side, endpoint=True))
        image = resize_short_side_adm(image, side)
        return _cut(
            image, *_random_corner(image, self.image_size, rng), self.image_size
        )


@dataclasses.dataclass(frozen=True)
class OneOfTen:
    """Of the middle square, mirrored or not, cut out a corner or the middle.

    One, at random, of the ten crops that LlamaGen keeps the tokens of (torchvision's
    `TenCrop`): for 256 pixels after the resize `adm` with `size` 281, which is 1.1 of
    it rounded down.
    """

    image_size: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [image_size, image_size, 3]."""
        image = _at_least(image, self.image_size)
        side = min(image.shape[:2])
        square = CenterCrop(side)(image, rng)
        number = int(rng.integers(10))
        if number >= 5:
            # Before the cut: of an odd remainder, the middle is then another.
            square = mirror(square)
        rest = side - self.image_size
        middle = _OFFSETS["nearest"](rest)
        places = [(0, 0), (0, rest), (rest, 0), (rest, rest), (middle, middle)]
        return _cut(square, *places[number % 5], self.image_size)


# How much of a remainder lies above, or left.
_OFFSETS = {
    "down": lambda remainder: remainder // 2,
    "nearest": lambda remainder: round(remainder / 2),
}


def _at_least(image: np.ndarray, size: int) -> np.ndarray:
    if min(image.shape[:2]) >= size:
        return image
    return resize_short_side(image, size, "bicubic")


def _random_corner(
    image: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[int, int]:
    height, width = image.shape[:2]
    top = rng.integers(height - size, endpoint=True)
    left = rng.integers(width - size, endpoint=True)
    return int(top), int(left)


def _cut(image: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    return image[top : top + size, left : left + size]
