import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.metrics.feature_arrays import check_features, check_two_sets


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, int])
def test_real_numbers_pass_as_they_are(dtype):
    features = np.arange(6, dtype=dtype).reshape(3, 2)
    made = check_features(features, "real features")
    assert made is features
    a, b = check_two_sets(features, np.ones((1, 2)), ("a", "b"))
    assert a is features and b.shape == (1, 2)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros(3), r"the logits must be real numbers \[N, D\], not float64 \[3\]"),
        (np.zeros((3, 0)), r"not float64 \[3, 0\]"),
        (np.zeros((3, 2), complex), r"not complex128 \[3, 2\]"),
        (np.zeros((3, 2), bool), r"not bool \[3, 2\]"),
        (
            [[1.0, np.nan], [0, 0], [np.inf, 0]],
            "logits of 2 of 3 images are not finite",
        ),
    ],
)
def test_what_is_no_set_of_features(features, message):
    with pytest.raises(UserError, match=message):
        check_features(features, "logits")


def test_which_of_two_sets_is_bad():
    good, bad = np.zeros((4, 2)), np.full((4, 2), np.nan)
    with pytest.raises(UserError, match="the fake features of 4 of 4 images"):
        check_two_sets(good, bad, ("real", "fake"))
    with pytest.raises(UserError, match="the real features of 4 of 4 images"):
        check_two_sets(bad, good, ("real", "fake"))
    with pytest.raises(UserError, match="real features have 2 .* and the fake ones 1"):
        check_two_sets(good, good[:, :1], ("real", "fake"))
