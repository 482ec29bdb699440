"""Images of any size for a model that wants sides that are multiples of its factor.

The last row and column are repeated up to the next multiple, and what the model
makes of them is cut off again; the picture keeps its place in the upper left corner.
"""

import numpy as np
from jaxtyping import UInt8


def padded_size(height: int, width: int, factor: int) -> tuple[int, int]:
    """Return height and width, each raised to a multiple of `factor`."""
    return -(-height // factor) * factor, -(-width // factor) * factor


def pad_to_multiple(
    image: UInt8[np.ndarray, "h w c"], factor: int
) -> UInt8[np.ndarray, "H W c"]:
    """Return uint8 [H, W, C] with its edges repeated to multiples of `factor`."""
    height, width = image.shape[:2]
    padded_height, padded_width = padded_size(height, width, factor)
    below, right = padded_height - height, padded_width - width
    return np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")


def crop_back(
    image: UInt8[np.ndarray, "H W c"], height: int, width: int
) -> UInt8[np.ndarray, "h w c"]:
    """Return the part of a padded image that the original filled."""
    return image[:height, :width]
