import itertools

import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.metrics.kid import kid


def draw(count, width=16, seed=0, mean=0.0):
    rng = np.random.default_rng(seed)
    return (mean + rng.standard_normal((count, width))).astype(np.float32)


def test_by_definition():
    """Pair by pair, with a subset that is the whole set in some order."""
    a, b = draw(5, width=3), draw(5, width=3, seed=1, mean=0.5)

    def kernel(x, y):
        return (float(np.float64(x) @ np.float64(y)) / 3 + 1) ** 3

    expected = sum(kernel(x, y) for x, y in itertools.permutations(a, 2)) / 20
    expected += sum(kernel(x, y) for x, y in itertools.permutations(b, 2)) / 20
    expected -= 2 * sum(kernel(x, y) for x, y in itertools.product(a, b)) / 25
    mean, deviation = kid(a, b, subsets=3, subset_size=5)
    assert mean == pytest.approx(expected, rel=1e-12)
    assert deviation == pytest.approx(0, abs=1e-12)
    assert isinstance(mean, float) and isinstance(deviation, float)


def test_subsets_are_drawn_one_of_each_set_in_turn():
    a, b = draw(30), draw(40, seed=1, mean=0.3)
    draws = np.random.RandomState(5)
    expected = []
    for _ in range(4):
        x = a[draws.choice(30, 12, replace=False)]
        y = b[draws.choice(40, 12, replace=False)]
        expected.append(kid(x, y, subsets=1, subset_size=12)[0])
    made = kid(a, b, subsets=4, subset_size=12, seed=5)
    assert made == pytest.approx((np.mean(expected), np.std(expected)), rel=1e-9)
    assert made == kid(a, b, subsets=4, subset_size=12, seed=5)
    assert made != kid(a, b, subsets=4, subset_size=12, seed=6)


def test_is_unbiased_and_grows_with_the_difference():
    """Of one distribution: about 0, on both sides of it, however few the images."""
    alike = [
        kid(draw(20, 4, seed), draw(20, 4, 500 + seed), subsets=1, subset_size=20)[0]
        for seed in range(200)
    ]
    assert min(alike) < 0 < max(alike)
    assert abs(np.mean(alike)) < 4 * np.std(alike) / np.sqrt(200)
    apart = [
        kid(draw(60), draw(60, seed=1, mean=mean), subsets=5, subset_size=50)[0]
        for mean in (0.0, 0.5, 1.0, 2.0)
    ]
    assert np.all(np.diff(apart) > 0.1)


def test_bad_input():
    few, many = draw(10), draw(30)
    with pytest.raises(UserError, match="subsets of 20 images, and the second set has"):
        kid(many, few, subset_size=20)
    with pytest.raises(UserError, match="the first set has 10: give more images"):
        kid(few, many, subset_size=20)
    with pytest.raises(UserError, match="have 16 .* and the second ones 8: they were"):
        kid(many, draw(30, 8))
    with pytest.raises(UserError, match="at least 1 subset of 2 images, not 100 of 1"):
        kid(many, many, subset_size=1)
    with pytest.raises(
        UserError, match=r"must be real numbers \[N, D\], not .* \[30\]"
    ):
        kid(many, many[:, 0])
    many[3] = np.inf
    with pytest.raises(UserError, match="first features of 1 of 30 images are not fin"):
        kid(many, few, subset_size=2)


@pytest.mark.parity
@pytest.mark.parametrize("mean", [0.0, 0.02, 0.5])
def test_equals_torch_fidelity(torch, mean):
    theirs = pytest.importorskip("torch_fidelity.metric_kid")
    a, b = np.abs(draw(70, 64)), np.abs(draw(90, 64, seed=1, mean=mean))
    expected = theirs.kid_features_to_metric(
        torch.from_numpy(a),
        torch.from_numpy(b),
        kid_subsets=6,
        kid_subset_size=50,
        verbose=False,
    )
    made = kid(a, b, subsets=6, subset_size=50)
    names = theirs.KEY_METRIC_KID_MEAN, theirs.KEY_METRIC_KID_STD
    for ours, name in zip(made, names, strict=True):
        assert ours == pytest.approx(expected[name], rel=1e-4, abs=1e-7)
