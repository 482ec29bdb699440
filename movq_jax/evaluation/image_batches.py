"""What all networks of the evaluation do with the images that they are given."""

import jax
import numpy as np
from jaxtyping import Shaped, UInt8

from movq_jax.errors import UserError


def micro_batch_or_default(micro_batch: int | None) -> int:
    """Images a compiled call: as asked for; None: what is fastest on this device.

    Raises:
      UserError: it is below 1.
    """
    if micro_batch is None:
        return 1 if jax.default_backend() == "cpu" else 32
    if micro_batch < 1:
        raise UserError(f"micro_batch is {micro_batch}; it must be at least 1")
    return micro_batch


def check_image(
    image: np.ndarray | jax.Array, index: int
) -> UInt8[np.ndarray, "h w 3"]:
    """The image as a NumPy array, uint8 [H, W, 3]; `index` is for the error.

    Raises:
      UserError: another dtype or shape, or no pixel.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise UserError(f"images must be uint8, 0..255; image {index} is {image.dtype}")
    if image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise UserError(
            f"images must be [B, H, W, 3], or a list of [H, W, 3]; image {index} is "
            f"{list(image.shape)}"
        )
    return image


def padded(
    images: Shaped[np.ndarray, "b ..."], count: int
) -> Shaped[np.ndarray, "{count} ..."]:
    """[B, ...] -> [count, ...]: the last image stands in for those that are missing.

    Args:
      images: of any dtype, B from 1 to `count`.
      count: of a whole micro-batch.
    """
    missing = count - len(images)
    return np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
