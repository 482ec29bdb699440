"""Resizing of uint8 images, by the filters that the papers' code used.

Pillow's filters average over all pixels when they make an image smaller, and so does
everything that works on Pillow's images (torchvision, ADM). OpenCV's linear filter, by
which taming-transformers and its descendants made their training images, looks at four
pixels only, whatever the scale: `linear_no_antialias`.
"""

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
LINEAR_NO_ANTIALIAS = "linear_no_antialias"
# Those that average over all pixels by a smooth weight: how an image was decoded makes
# little difference to them. (Box weighs a pixel at its edge by all or nothing.)
SMOOTH = frozenset({"bilinear", "hamming", "bicubic", "lanczos"})

_COEF_BITS = 11  # of OpenCV's weights


def resize(
    image: UInt8[np.ndarray, "h w 3"],
    height: int,
    width: int,
    resample: str,
    reducing_gap: float = 0.0,
) -> UInt8[np.ndarray, "height width 3"]:
    """Resize uint8 [H, W, 3]; an image of that size is returned as it is.

    Args:
        image: what to resize.
        height: of the result.
        width: of the result.
        resample: a name of `RESAMPLERS`, or `linear_no_antialias`.
        reducing_gap: of Pillow: first shrink by a whole factor, averaging, to no less
            than this many times the result; 0: not.
    """
    if image.shape[:2] == (height, width):
        return image
    if resample == LINEAR_NO_ANTIALIAS:
        return resize_linear(image, height, width)
    resized = Image.fromarray(image).resize(
        (width, height), RESAMPLERS[resample], reducing_gap=reducing_gap or None
    )
    return np.asarray(resized)


def resize_linear(
    image: UInt8[np.ndarray, "h w 3"], height: int, width: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Resize uint8 [H, W, 3] as OpenCV's INTER_LINEAR does, bit for bit.

    Weights are whole numbers of 11 bits, and the two passes drop bits where OpenCV's
    do. Compared with OpenCV 4.10 and 5.0: 1,500 random sizes and images, no difference.
    """
    left, right, x_weight = _taps(image.shape[1], width)
    top, bottom, y_weight = _taps(image.shape[0], height)
    # Outside of the image OpenCV weighs the last pixel with 1 in a row, but splits the
    # weight between equal rows.
    x_weight[left == right] = 0
    x_weight = np.repeat(x_weight, 3)
    left, right = (3 * i[:, None] + np.arange(3) for i in (left, right))

    def weighted_rows(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
        chosen = image[rows].reshape(height, -1)
        near = np.take(chosen, left.ravel(), axis=1).astype(np.int32)
        far = np.take(chosen, right.ravel(), axis=1).astype(np.int32)
        # In place: fresh memory would cost more than the arithmetic.
        far -= near
        far *= x_weight
        near <<= _COEF_BITS
        near += far
        near >>= 4
        near *= weight[:, None]
        near >>= 16
        return near

    pixels = weighted_rows(top, 2**_COEF_BITS - y_weight)
    pixels += weighted_rows(bottom, y_weight)
    pixels += 2
    pixels >>= 2
    return pixels.astype(np.uint8).reshape(height, width, 3)


def _taps(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both neighbours of each new pixel, and the weight of the second."""
    scale = 1 / (new_size / size)
    place = ((np.arange(new_size) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int32)
    fraction = place - first.astype(np.float32)
    weight = np.rint(fraction * np.float32(2**_COEF_BITS)).astype(np.int32)
    return first.clip(0, size - 1), (first + 1).clip(0, size - 1), weight


def resize_short_side(
    image: UInt8[np.ndarray, "h w 3"], size: int, resample: str
) -> UInt8[np.ndarray, "H W 3"]:
    """Resize so that the short side is `size`; the other is rounded to the nearest."""
    height, width = image.shape[:2]
    scale = size / min(height, width)
    return resize(image, round(height * scale), round(width * scale), resample)


def resize_short_side_down(
    image: UInt8[np.ndarray, "h w 3"], size: int, resample: str
) -> UInt8[np.ndarray, "H W 3"]:
    """Resize so that the short side is `size`; the other is rounded down.

    As torchvision's `Resize(size)` of a Pillow image.
    """
    height, width = image.shape[:2]
    long_side = int(size * max(height, width) / min(height, width))
    new = (long_side, size) if width <= height else (size, long_side)
    return resize(image, *new, resample)


def resize_short_side_adm(
    image: UInt8[np.ndarray, "h w 3"], size: int
) -> UInt8[np.ndarray, "H W 3"]:
    """Resize so that the short side is `size`, as ADM does.

    While the short side is twice `size` or more, both sides are halved (rounded down)
    by averaging; then Pillow's bicubic filter, sides rounded to the nearest.
    """
    picture = Image.fromarray(image)
    while min(picture.size) >= 2 * size:
        halves = (picture.width // 2, picture.height // 2)
        picture = picture.resize(halves, Image.Resampling.BOX)
    scale = size / min(picture.size)
    new = (round(picture.width * scale), round(picture.height * scale))
    return np.asarray(picture.resize(new, Image.Resampling.BICUBIC))


def mirror(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Exchange left and right."""
    mirrored = np.empty(image.shape, np.uint8)
    # By channels: NumPy copies pixels of three bytes five times slower.
    for channel in range(3):
        mirrored[..., channel] = image[:, ::-1, channel]
    return mirrored


def check_resample(name: str) -> None:
    """Refuse a filter that does not exist.

    Raises:
        UserError: there is no such filter; the message suggests the nearest.
    """
    known = [*RESAMPLERS, LINEAR_NO_ANTIALIAS]
    if name not in known:
        raise UserError(f"resample is {name!r}{families.nearest(name, known)}")
