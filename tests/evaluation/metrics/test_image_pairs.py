import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.metrics.image_pairs import check_pair

IMAGE = np.zeros((8, 9, 3), np.uint8)


def test_images_and_batches_of_one_size():
    check_pair(IMAGE, IMAGE)
    check_pair(IMAGE[None], IMAGE[None], 8, "SSIM")
    check_pair(IMAGE[None][:0], IMAGE[None][:0])


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (IMAGE, IMAGE / 255, "must be uint8, .* not uint8 and float64"),
        (IMAGE.astype(np.int16), IMAGE, "must be uint8, .* not int16 and uint8"),
        (IMAGE, IMAGE[:, :8], r"of one size; .* \[8, 9, 3\] and \[8, 8, 3\]"),
        (IMAGE, IMAGE[None], r"of one size; .* \[8, 9, 3\] and \[1, 8, 9, 3\]"),
        (IMAGE[0], IMAGE[0], r"\[H, W, C\], or \[B, H, W, C\].* \[9, 3\] and \[9, 3\]"),
        (IMAGE[:0], IMAGE[:0], r"\[0, 9, 3\] and \[0, 9, 3\]"),
        (IMAGE[:5], IMAGE[:5], "SSIM needs sides of at least 6 pixels, got 9 x 5"),
    ],
)
def test_what_cannot_be_compared(a, b, message):
    with pytest.raises(UserError, match=message):
        check_pair(a, b, 6, "SSIM")
