"""From a decoded image to the square that a model sees: resize, crop, flip.

Resizes and crops are families, chosen in config by `{name, ...fields}`:

    transform = Transform(
        image_size=256,
        resize=families.make(RESIZES, {"name": "none"}, "resize", image_size=256),
        crop=families.make(CROPS, {"name": "random"}, "crop", image_size=256),
        flip=True,
    )
    square = transform(image, rng)  # uint8 [256, 256, 3]

Each member is a function of (image, rng); all randomness comes from `rng`, so equal
generators give equal pixels. Resizing is Pillow's, which averages over all pixels
when it makes an image smaller.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from movq_jax import families
from movq_jax.errors import UserError

RESAMPLERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


# A member of a family, made: uint8 [H, W, 3] and a generator -> uint8 [h, w, 3].
Step = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Transform:
    """Resize, then crop; then the two augmentations, where they are wanted.

    Attributes:
        flip: mirror half of the images.
        permute_channels: put red, green and blue into a random order. A few
            photographs do not hold all colours; this way no colour is foreign.
    """

    image_size: int
    resize: Step
    crop: Step
    flip: bool
    permute_channels: bool = False

    def __call__(
        self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
    ) -> UInt8[np.ndarray, "size size 3"]:
        """Map uint8 [H, W, 3] to uint8 [image_size, image_size, 3].

        Raises:
            UserError: resize and crop leave an image of another size.
        """
        image = self.crop(self.resize(image, rng), rng)
        if image.shape[:2] != (self.image_size, self.image_size):
            raise UserError(
                f"is {_size(image)} after resize and crop, not {self.image_size} x "
                f"{self.image_size}: choose a crop, or resize by 'squash'"
            )
        if self.flip and rng.random() < 0.5:
            image = mirror(image)
        if self.permute_channels:
            image = image[..., rng.permutation(3)]
        return image


def resize(
    image: UInt8[np.ndarray, "h w 3"], height: int, width: int, resample: str
) -> UInt8[np.ndarray, "height width 3"]:
    """Resize uint8 [H, W, 3] by Pillow; an image of that size is returned as it is."""
    if image.shape[:2] == (height, width):
        return image
    resized = Image.fromarray(image).resize((width, height), RESAMPLERS[resample])
    return np.asarray(resized)


def resize_short_side(
    image: UInt8[np.ndarray, "h w 3"], size: int, resample: str
) -> UInt8[np.ndarray, "H W 3"]:
    """Resize so that the short side is `size`; the other is rounded to the nearest."""
    height, width = image.shape[:2]
    scale = size / min(height, width)
    return resize(image, round(height * scale), round(width * scale), resample)


def mirror(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Exchange left and right."""
    mirrored = np.empty(image.shape, np.uint8)
    # By channels: NumPy copies pixels of three bytes five times slower.
    for channel in range(3):
        mirrored[..., channel] = image[:, ::-1, channel]
    return mirrored


@dataclasses.dataclass(frozen=True)
class NoResize:
    """Leave the image as it is."""

    image_size: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> the same."""
        return image


@dataclasses.dataclass(frozen=True)
class ShortSide:
    """Resize so that the short side is `size` (0: image_size), keeping the aspect."""

    image_size: int
    size: int = 0
    resample: str = "bicubic"

    def __post_init__(self):
        _check_resample(self.resample)
        if self.size and self.size < self.image_size:
            raise UserError(
                f"a short side of {self.size} is below the image size {self.image_size}"
            )

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [h, w, 3] with min(h, w) = size."""
        return resize_short_side(image, self.size or self.image_size, self.resample)


@dataclasses.dataclass(frozen=True)
class Squash:
    """Resize to a square, whatever the aspect was."""

    image_size: int
    resample: str = "bicubic"

    def __post_init__(self):
        _check_resample(self.resample)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [image_size, image_size, 3]."""
        return resize(image, self.image_size, self.image_size, self.resample)


@dataclasses.dataclass(frozen=True)
class NoCrop:
    """Leave the image as it is."""

    image_size: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> the same."""
        return image


@dataclasses.dataclass(frozen=True)
class CenterCrop:
    """Cut out the middle; an odd remainder leaves the extra pixel below and right.

    An image that is too small is enlarged first.
    """

    image_size: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [image_size, image_size, 3]."""
        image = _at_least(image, self.image_size)
        height, width = image.shape[:2]
        top, left = (height - self.image_size) // 2, (width - self.image_size) // 2
        return _cut(image, top, left, self.image_size)


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Cut out a square at a uniformly random place.

    An image that is too small is enlarged first.
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
    of the photograph.
    """

    image_size: int
    min_scale: float
    max_scale: float
    resample: str = "bicubic"

    def __post_init__(self):
        _check_resample(self.resample)
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


RESIZES = {"none": NoResize, "short_side": ShortSide, "squash": Squash}
CROPS = {
    "none": NoCrop,
    "center": CenterCrop,
    "random": RandomCrop,
    "random_scaled": RandomScaledCrop,
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


def _check_resample(name: str) -> None:
    if name not in RESAMPLERS:
        raise UserError(f"resample is {name!r}{families.nearest(name, RESAMPLERS)}")


def _size(image: np.ndarray) -> str:
    height, width = image.shape[:2]
    return f"{width} x {height}"
