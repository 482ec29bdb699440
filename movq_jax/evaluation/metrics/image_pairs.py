"""What a metric of two images checks before it begins."""

import numpy as np

from movq_jax.errors import UserError


def check_pair(a: np.ndarray, b: np.ndarray, window: int = 1, metric: str = "") -> None:
    """Looks over two images, or two batches of them.

    Args:
      a: to be uint8 [..., H, W, C], with something in each axis but the batch's.
      b: to be uint8 of the same shape.
      window: how many pixels the metric needs along a side.
      metric: its name, for the message about that.

    Raises:
      UserError: another dtype or shape, or a side shorter than the window.
    """
    if a.dtype != np.uint8 or b.dtype != np.uint8:
        raise UserError(
            f"images must be uint8, 0..255, to be compared, not {a.dtype} and {b.dtype}"
        )
    if a.shape != b.shape or a.ndim < 3 or 0 in a.shape[-3:]:
        raise UserError(
            "two images can be compared if both are [H, W, C], or [B, H, W, C], of "
            f"one size; these are {list(a.shape)} and {list(b.shape)}"
        )
    height, width = a.shape[-3:-1]
    if min(height, width) < window:
        raise UserError(
            f"{metric} needs sides of at least {window} pixels, got {width} x {height}"
        )
