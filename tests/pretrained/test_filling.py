import jax
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.pretrained.filling import convolutions, fill


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, np.float32)


EXPECTED = {
    "conv": {"kernel": struct(3, 5, 2, 4), "bias": struct(4)},
    "fc": {"kernel": struct(4, 6)},
    "head_0": struct(2),
}
NAMES = convolutions({"conv": "features.0"})
NAMES |= {"fc.kernel": "fc.weight", "head_0": "lin0"}


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "features.0.weight": rng.standard_normal((4, 2, 3, 5)),
        "features.0.bias": rng.standard_normal(4).astype(np.float16),
        "fc.weight": rng.standard_normal((6, 4)).astype(np.float32),
        "lin0": rng.standard_normal((1, 2, 1, 1)),
    }


def test_each_array_in_our_layout(arrays):
    filled = fill(EXPECTED, NAMES, arrays, "file")
    kernel = filled["conv"]["kernel"]
    assert kernel[1, 4, 0, 3] == np.float32(arrays["features.0.weight"][3, 0, 1, 4])
    np.testing.assert_array_equal(filled["conv"]["bias"], arrays["features.0.bias"])
    np.testing.assert_array_equal(filled["fc"]["kernel"], arrays["fc.weight"].T)
    np.testing.assert_array_equal(
        filled["head_0"], arrays["lin0"].astype(np.float32).ravel()
    )
    for leaf in jax.tree.leaves(filled):
        assert leaf.dtype == np.float32 and leaf.flags.c_contiguous


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("fc.weight", None, "^here lacks fc.weight$"),
        ("fc.bias", np.zeros(6), "of another network: fc.bias is not of this"),
        ("fc.weight", np.zeros((4, 6)), r"float64 \[4, 6\], but.* float \[6, 4\]"),
        ("lin0", np.zeros(2), r"float64 \[2\], but.* float \[1, 2, 1, 1\]"),
        ("features.0.bias", np.zeros(4, int), r"int64 \[4\], but should be float"),
        ("features.0.bias", np.full(4, np.inf), "has numbers that are not finite"),
    ],
)
def test_what_does_not_fit(arrays, name, array, message):
    arrays[name] = array
    if array is None:
        del arrays[name]
    with pytest.raises(UserError, match=message):
        fill(EXPECTED, NAMES, arrays, "here")
