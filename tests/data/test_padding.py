import numpy as np
import pytest

from movq_jax.data.padding import crop_back, pad_to_multiple, padded_size


@pytest.mark.parametrize(
    "size, padded", [((8, 16), (8, 16)), ((1, 9), (8, 16)), ((17, 7), (24, 8))]
)
def test_padding_goes_to_the_next_multiple_and_back(size, padded):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    result = pad_to_multiple(image, 8)
    assert padded_size(*size, 8) == padded == result.shape[:2]
    np.testing.assert_array_equal(crop_back(result, *size), image)


def test_the_edges_are_repeated():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    expected = [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]
    np.testing.assert_array_equal(pad_to_multiple(image, 4)[..., 0], expected)
