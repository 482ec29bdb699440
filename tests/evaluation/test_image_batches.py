import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.image_batches import (
    check_image,
    micro_batch_or_default,
    padded,
)


def test_the_micro_batch_is_the_devices_unless_asked_for(monkeypatch):
    assert micro_batch_or_default(None) == 1 and micro_batch_or_default(7) == 7
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert micro_batch_or_default(None) == 32 and micro_batch_or_default(7) == 7
    with pytest.raises(UserError, match="micro_batch is 0; it must be at least 1"):
        micro_batch_or_default(0)


def test_the_last_image_fills_a_batch():
    images = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    made = padded(images, 4)
    assert made.dtype == np.uint8 and made.shape == (4, 2, 3)
    np.testing.assert_array_equal(made, images[[0, 1, 1, 1]])
    np.testing.assert_array_equal(padded(images, 2), images)


def test_images_of_jax_become_numpys():
    image = check_image(jnp.zeros((2, 5, 3), jnp.uint8), 0)
    assert isinstance(image, np.ndarray) and image.shape == (2, 5, 3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), "must be uint8, 0..255; image 4 is float32"),
        (np.zeros((8, 8), np.uint8), r"or a list of .*; image 4 is \[8, 8\]"),
        (np.zeros((8, 8, 4), np.uint8), r"image 4 is \[8, 8, 4\]"),
        (np.zeros((0, 8, 3), np.uint8), r"image 4 is \[0, 8, 3\]"),
    ],
)
def test_what_is_no_image(image, message):
    with pytest.raises(UserError, match=message):
        check_image(image, 4)
