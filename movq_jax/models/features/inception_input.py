"""How images of any size become Inception's 299 x 299: three ways, three numbers.

The network is one, but its users feed it differently, and distances differ by the
resizing alone (Parmar et al., "On Aliased Resizing and Surprising Subtleties in GAN
Evaluation", arXiv 2104.11222):

- `tf1_resize`: the original graph's bilinear filter (torch-fidelity, ADM);
- `half_pixel_resize`: bilinear between pixels' centres (pytorch-fid);
- `clean_resize`: Pillow's bicubic filter, antialiased (clean-fid).

The first two do not antialias: of a much larger image they see few pixels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt8
from PIL import Image

from movq_jax.models.features.inception import SIDE

# Place [299] of the first and of the second neighbour, and the weight of the second.
Taps = tuple[np.ndarray, np.ndarray, np.ndarray]


def tf1_resize(images: Float32[Array, "B H W 3"]) -> Float32[Array, "B 299 299 3"]:
    """Bilinear as TensorFlow 1 has it: no antialias, and no half pixel.

    Result i lies at i * (side / 299), in float32, and between two pixels by its share
    of the way from one to the other: along the rows first, then down the columns. An
    image of 299 x 299 stays as it is.

    Args:
      images: float32 [B, H, W, 3] of any range; H, W >= 1.

    Returns:
      float32 [B, 299, 299, 3] of the same range; Inception's input by `scale_255`.
    """
    rows, columns = _tf1_taps(images.shape[1]), _tf1_taps(images.shape[2])
    return _lerp(_lerp(images, columns, axis=2), rows, axis=1)


def half_pixel_resize(
    images: Float32[Array, "B H W 3"],
) -> Float32[Array, "B 299 299 3"]:
    """Bilinear between the centres of pixels, without antialias, as torch has it.

    Result i lies at (i + 1/2) * (side / 299) - 1/2, and at 0 where that is negative.

    Args:
      images: float32 [B, H, W, 3] of any range; H, W >= 1. pytorch-fid resizes 0..1,
        and its input to the network is 2 x - 1.

    Returns:
      float32 [B, 299, 299, 3] of the same range.
    """
    rows, columns = _centre_taps(images.shape[1]), _centre_taps(images.shape[2])
    return _lerp(_lerp(images, columns, axis=2), rows, axis=1)


def clean_resize(
    image: UInt8[np.ndarray, "h w 3"],
) -> Float32[np.ndarray, "299 299 3"]:
    """Pillow's antialiased bicubic filter (a = -0.5) in floats, on the host.

    Not rounded to whole numbers, which Pillow does with 8-bit images, but clipped.

    Args:
      image: uint8 [H, W, 3].

    Returns:
      float32 [299, 299, 3] in 0..255; Inception's input by `scale_255`.
    """
    resized = np.empty((SIDE, SIDE, 3), np.float32)
    for channel in range(3):
        picture = Image.fromarray(image[..., channel].astype(np.float32))
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        resized[..., channel] = picture
    return resized.clip(0, 255)


def scale_255(images: jax.Array) -> jax.Array:
    """0..255 to the input of the network: (x - 128) / 128, in [-1, 0.9922]."""
    return (images - 128.0) * np.float32(1 / 128)  # exact: a power of two


def _tf1_taps(size: int) -> Taps:
    place = np.arange(SIDE, dtype=np.float32) * np.float32(size / SIDE)
    return _taps(place, size)


def _centre_taps(size: int) -> Taps:
    scale = float(np.float32(size / SIDE))  # which is all that torch knows of it
    place = np.maximum((np.arange(SIDE) + 0.5) * scale - 0.5, 0)
    return _taps(place.astype(np.float32), size)


def _taps(place: np.ndarray, size: int) -> Taps:
    """The neighbours of float32 places >= 0; beyond the last pixel is the last."""
    low = np.minimum(place.astype(np.int32), size - 1)
    high = np.minimum(low + 1, size - 1)
    return low, high, place - low.astype(np.float32)


def _lerp(x: jax.Array, taps: Taps, axis: int) -> jax.Array:
    """low + (high - low) * weight along one axis of [B, H, W, 3]."""
    low, high, weight = taps
    shape = [1, 1, 1, 1]
    shape[axis] = SIDE
    low, high = jnp.take(x, low, axis=axis), jnp.take(x, high, axis=axis)
    return low + (high - low) * weight.reshape(shape)
