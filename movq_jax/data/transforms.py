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
generators give equal pixels. What the papers' code does, in these words (flips aside):

    ADM, LlamaGen       adm, center; in training none, random_short_side
    LlamaGen's tokens   adm of size 281 (1.1 x 256), one_of_ten
    TiTok               short_side rounded down, center rounded to the nearest; in
                        training random; MaskBit the same by bilinear
    taming, SEED        short_side by linear_no_antialias, center; ImageNet in training
                        random
    Dual Codebook VQ    by bilinear: squash, none (CelebA-HQ, ADE20K); short_side
                        rounded down, center rounded to the nearest (COCO)
    SBER-MoVQGAN        none, center_square with reducing_gap 1
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from movq_jax import fields
from movq_jax.data.crops import (
    CenterCrop,
    CenterSquare,
    NoCrop,
    OneOfTen,
    RandomCrop,
    RandomResizedCrop,
    RandomScaledCrop,
    RandomShortSide,
)
from movq_jax.data.resampling import (
    SMOOTH,
    check_resample,
    mirror,
    resize,
    resize_short_side,
    resize_short_side_adm,
    resize_short_side_down,
)
from movq_jax.errors import UserError

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

    @property
    def least_side(self) -> int | None:
        """The short side that images are shrunk to, for `images.decode_image`.

        None where what is decoded must be the whole image: pixels are cut out as they
        are, or the filter sees few of them only.
        """
        first = self.crop if isinstance(self.resize, NoResize) else self.resize
        return getattr(first, "least_side", None)


@dataclasses.dataclass(frozen=True)
class NoResize:
    """Leave the image as it is."""

    image_size: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> the same."""
        return image


@dataclasses.dataclass(frozen=True)
class ShortSide:
    """Resize so that the short side is `size` (0: image_size), keeping the aspect.

    The long side is rounded: 'nearest' is albumentations' `SmallestMaxSize` (taming-
    transformers, with `resample` linear_no_antialias), 'down' is torchvision's
    `Resize(size)` of a Pillow image (TiTok, MaskBit, Dual Codebook VQ).
    """

    image_size: int
    size: int = 0
    resample: str = "bicubic"
    rounding: str = "nearest"

    def __post_init__(self):
        check_resample(self.resample)
        _check_short_side(self.size, self.image_size)
        fields.check_choice("the rounding of 'short_side'", self.rounding, _ROUNDED)

    @property
    def least_side(self) -> int | None:
        """The short side of the result."""
        if self.resample not in SMOOTH:
            return None
        return self.size or self.image_size

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [h, w, 3] with min(h, w) = size."""
        rounded = _ROUNDED[self.rounding]
        return rounded(image, self.size or self.image_size, self.resample)


@dataclasses.dataclass(frozen=True)
class Adm:
    """Resize so that the short side is `size` (0: image_size), in ADM's two steps.

    The first half of `center_crop_arr` (guided_diffusion/image_datasets.py; LlamaGen):
    halve by averaging while the short side is at least twice `size`, then bicubic.
    """

    image_size: int
    size: int = 0

    def __post_init__(self):
        _check_short_side(self.size, self.image_size)

    @property
    def least_side(self) -> int:
        """The short side of the result."""
        return self.size or self.image_size

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [h, w, 3] with min(h, w) = size."""
        return resize_short_side_adm(image, self.least_side)


@dataclasses.dataclass(frozen=True)
class Squash:
    """Resize to a square, whatever the aspect was.

    torchvision's `Resize((size, size))` of a Pillow image: by bilinear, Dual Codebook
    VQ's CelebA-HQ and ADE20K.
    """

    image_size: int
    resample: str = "bicubic"

    def __post_init__(self):
        check_resample(self.resample)

    @property
    def least_side(self) -> int | None:
        """The side of the result."""
        return self.image_size if self.resample in SMOOTH else None

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [image_size, image_size, 3]."""
        return resize(image, self.image_size, self.image_size, self.resample)


RESIZES = {"none": NoResize, "short_side": ShortSide, "adm": Adm, "squash": Squash}
CROPS = {
    "none": NoCrop,
    "center": CenterCrop,
    "center_square": CenterSquare,
    "random": RandomCrop,
    "random_scaled": RandomScaledCrop,
    "random_resized": RandomResizedCrop,
    "random_short_side": RandomShortSide,
    "one_of_ten": OneOfTen,
}
_ROUNDED = {"nearest": resize_short_side, "down": resize_short_side_down}


def _check_short_side(size: int, image_size: int) -> None:
    if size and size < image_size:
        raise UserError(f"a short side of {size} is below the image size {image_size}")


def _size(image: np.ndarray) -> str:
    height, width = image.shape[:2]
    return f"{width} x {height}"
