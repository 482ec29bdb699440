import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.metrics.frechet import (
    FeatureStatistics,
    frechet,
    frechet_distance,
)


def correlated(count, width, seed=0):
    """Features [N, D] whose covariance is far from diagonal, and not around 0."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(count, width)) @ rng.normal(size=(width, width))
    return mixed + rng.normal(size=width)


def statistics(*batches):
    made = FeatureStatistics(batches[0].shape[1])
    for batch in batches:
        made.update(batch)
    return made


def rotation(width, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


def gaussian(variances, mean=None, turned_by=None):
    """Mean and covariance, the latter with these variances along turned axes."""
    turned_by = np.eye(len(variances)) if turned_by is None else turned_by
    mean = np.zeros(len(variances)) if mean is None else mean
    return mean, (turned_by * np.asarray(variances, np.float64)) @ turned_by.T


@pytest.mark.parametrize("width", [1, 2, 24])
def test_equals_the_formula_with_a_matrix_square_root(width):
    linalg = pytest.importorskip("scipy.linalg")
    a, b = correlated(200, width), correlated(150, width, seed=1)
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    root = linalg.sqrtm(cov_a @ cov_b)
    expected = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
    expected += np.trace(cov_a + cov_b - 2 * np.real(root))
    result = frechet(statistics(a), statistics(b))
    assert isinstance(result, float)
    assert result == pytest.approx(expected, rel=1e-9)


def test_gaussians_by_hand():
    distance = frechet_distance(*gaussian([4]), *gaussian([9], np.array([3.0])))
    assert distance == pytest.approx(3**2 + (3 - 2) ** 2, abs=1e-12)
    # Along common axes deviations are compared one by one.
    axes = rotation(4)
    a = gaussian([1, 4, 9, 16], np.arange(4.0), axes)
    b = gaussian([4, 4, 1, 25], np.ones(4), axes)
    expected = (1 + 0 + 1 + 4) + (1 + 0 + 4 + 1)
    assert frechet_distance(*a, *b) == pytest.approx(expected, abs=1e-12)
    assert frechet_distance(*b, *a) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("count", [2, 40, 300])
def test_a_set_is_at_distance_0_to_itself(count, scale):
    """Of fewer images than features, too, whose covariance has no full rank."""
    features = statistics(scale * correlated(count, 128))
    distance = frechet(features, features)
    assert 0 <= distance <= 1e-6 * scale**2
    assert distance <= 1e-12 * np.trace(features.covariance)


def test_covariances_of_low_rank():
    """Planes in a space of 200: sqrt of rounding errors would add up to about 1e-5."""
    axes = rotation(200)
    one, two = np.zeros((2, 200))
    one[:50], two[25:75] = 1, 4
    in_common = gaussian(one, turned_by=axes), gaussian(two, turned_by=axes)
    expected = 25 * 1 + 25 * (2 - 1) ** 2 + 25 * 4
    assert frechet_distance(*in_common[0], *in_common[1]) == pytest.approx(
        expected, abs=1e-10
    )
    # Planes at right angles have nothing in common: all of both remains.
    apart = gaussian(np.roll(one, 100), turned_by=axes)
    assert frechet_distance(*in_common[0], *apart) == pytest.approx(100, abs=1e-10)


def test_one_of_full_rank_and_one_of_fewer_images_than_features():
    """Against a unit covariance the root is that of the other's eigenvalues."""
    few = statistics(correlated(30, 128))
    deviations = np.linalg.svd(correlated(30, 128) - few.mean, compute_uv=False)
    deviations = deviations[:29] / np.sqrt(29)
    expected = np.sum((deviations - 1) ** 2) + 128 - 29
    distance = frechet_distance(few.mean, few.covariance, few.mean, np.eye(128))
    assert distance == pytest.approx(expected, rel=1e-11)


def test_equal_images_have_no_covariance():
    same = np.ones((5, 8))
    assert frechet(statistics(same), statistics(same)) == 0
    assert frechet(statistics(same), statistics(same + 2)) == 4 * 8
    spread = correlated(100, 8)
    expected = np.sum((spread.mean(axis=0) - 1) ** 2) + spread.var(axis=0, ddof=1).sum()
    assert frechet(statistics(same), statistics(spread)) == pytest.approx(expected)


def test_batches_and_parts_make_the_same_as_all_at_once():
    features = correlated(500, 12)
    cuts = [0, 1, 2, 2, 65, 499, 500]
    batches = [features[start:end] for start, end in zip(cuts, cuts[1:], strict=False)]
    parts = [statistics(batch) for batch in batches]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    for made in (statistics(features), statistics(*batches), merged):
        assert made.count == 500
        np.testing.assert_allclose(made.mean, features.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(
            made.covariance, np.cov(features, rowvar=False), rtol=1e-11, atol=1e-12
        )
        np.testing.assert_array_equal(made.covariance, made.covariance.T)
    assert [part.count for part in parts] == [1, 1, 0, 63, 434, 1]


def test_merging_leaves_both_as_they_were():
    a, b = statistics(correlated(9, 3)), statistics(correlated(7, 3, seed=1))
    before = a.mean, a.covariance
    merged = a.merge(b)
    merged.update(correlated(4, 3, seed=2))
    assert (a.count, b.count, merged.count) == (9, 7, 20)
    np.testing.assert_array_equal(a.mean, before[0])
    np.testing.assert_array_equal(a.covariance, before[1])
    empty = FeatureStatistics(3)
    for same in (empty.merge(a), a.merge(empty)):
        np.testing.assert_array_equal(same.mean, a.mean)
        np.testing.assert_array_equal(same.covariance, a.covariance)


def test_results_are_copies():
    growing = statistics(correlated(9, 3))
    mean, covariance = growing.mean, growing.covariance
    copies = mean.copy(), covariance.copy()
    growing.update(correlated(9, 3, seed=1))
    np.testing.assert_array_equal(mean, copies[0])
    np.testing.assert_array_equal(covariance, copies[1])
    mean, covariance = growing.mean, growing.covariance
    growing.mean[:] = growing.covariance[:] = 0
    np.testing.assert_array_equal(growing.mean, mean)
    np.testing.assert_array_equal(growing.covariance, covariance)


def test_a_mean_far_from_zero_costs_no_digits():
    """A sum of products around zero would leave nothing right: 1e16 * 2.2e-16 > 1."""
    near = np.round(correlated(400, 6) * 1024) / 1024  # exact, with the offset, too
    far = near + 1e8
    made = statistics(*np.split(far, [3, 64, 65, 300]))
    expected = np.cov(near, rowvar=False)
    np.testing.assert_allclose(made.covariance, expected, atol=1e-6)
    np.testing.assert_allclose(made.mean - 1e8, near.mean(axis=0), atol=1e-6)
    assert frechet(made, statistics(far)) <= 1e-6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32"])
def test_sums_are_in_float64_whatever_comes(dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    features = (100 * correlated(50, 4)).astype(dtype)
    made = statistics(features)
    expected = np.cov(features.astype(np.float64), rowvar=False)
    assert made.covariance.dtype == made.mean.dtype == np.float64
    np.testing.assert_allclose(made.covariance, expected, rtol=1e-12)


def test_two_samples_of_one_distribution_are_apart_by_one_over_n():
    """Why FID of few images is large, and those of different N are not compared."""
    width, mix = 16, correlated(16, 16)

    def distance(count, seed):
        rng = np.random.default_rng(seed)
        a, b = (statistics(rng.normal(size=(count, width)) @ mix) for _ in range(2))
        return frechet(a, b)

    counts = (50, 200, 800)
    means = [np.mean([distance(n, seed) for seed in range(40)]) for n in counts]
    # All that there is to be apart in is the trace; of as many images as features:
    trace = np.trace(mix.T @ mix)
    assert means[0] > 0.05 * trace
    assert np.mean([distance(width, seed) for seed in range(40)]) > 0.2 * trace
    products = np.multiply(means, counts)
    assert products == pytest.approx(products[-1], rel=0.15)


def test_too_few_images():
    nothing, one = FeatureStatistics(3), statistics(np.ones((1, 3)))
    enough = statistics(np.eye(3))
    with pytest.raises(UserError, match="no mean of 0 images"):
        frechet(enough, nothing)
    with pytest.raises(UserError, match="at least 2 images, and there were 0"):
        _ = nothing.covariance
    with pytest.raises(UserError, match="at least 2 images, and there was 1"):
        frechet(one, enough)


@pytest.mark.parametrize("shape", [(4, 5), (6,), (2, 3, 6), (0, 5)])
def test_features_of_another_shape(shape):
    made = FeatureStatistics(6)
    with pytest.raises(UserError, match=r"must be \[N, 6\], not"):
        made.update(np.zeros(shape))


def test_features_of_two_networks():
    a, b = statistics(correlated(9, 3)), statistics(correlated(9, 4))
    with pytest.raises(UserError, match="of 3 and of 4 numbers cannot be merged"):
        a.merge(b)
    with pytest.raises(UserError, match=r"means are \[3\] and \[4\]"):
        frechet(a, b)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_left_out_as_a_batch(value):
    made = statistics(correlated(9, 3))
    before = made.covariance
    bad = np.ones((5, 3))
    bad[1, 2] = bad[4, :] = value
    with pytest.raises(UserError, match="features of 2 of 5 images are not finite"):
        made.update(bad)
    assert made.count == 9
    np.testing.assert_array_equal(made.covariance, before)


@pytest.mark.parametrize(
    "mean, covariance, message",
    [
        (np.zeros(2), np.eye(3), r"second mean and .* not \[2\] and \[3, 3\]"),
        (np.zeros(2), np.ones(2), r"not \[2\] and \[2\]"),
        (np.zeros(2), np.diag([1, np.nan]), "second mean or covariance is not finite"),
        (np.array([0, np.inf]), np.eye(2), "is not finite"),
        (np.zeros(2), np.array([[1, 2], [0, 1]]), "second covariance is none"),
        (np.zeros(2), np.diag([1, -1]), "second covariance is none"),
        (np.zeros(2), -np.eye(2), "second covariance is none"),
    ],
)
def test_moments_that_are_none(mean, covariance, message):
    with pytest.raises(UserError, match=message):
        frechet_distance(np.zeros(2), np.eye(2), mean, covariance)


def test_moments_of_no_features():
    nothing = np.zeros(0), np.zeros((0, 0))
    with pytest.raises(UserError, match=r"first mean and .* not \[0\] and \[0, 0\]"):
        frechet_distance(*nothing, *nothing)
