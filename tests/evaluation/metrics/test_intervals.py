import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.metrics.intervals import bootstrap_mean


def draw(count, seed=0):
    return np.random.default_rng(seed).exponential(size=count)


def test_is_as_wide_as_the_mean_is_uncertain():
    values = draw(400)
    low, high = bootstrap_mean(values)
    assert isinstance(low, float) and isinstance(high, float)
    assert low < values.mean() < high
    expected = 2 * 1.96 * values.std() / np.sqrt(400)
    assert high - low == pytest.approx(expected, rel=0.1)
    wider = bootstrap_mean(values, level=0.99)
    assert wider[0] < low < high < wider[1]
    narrower = bootstrap_mean(draw(10_000), resamples=100)
    assert narrower[1] - narrower[0] < (high - low) / 3


def test_holds_the_true_mean_about_as_often_as_it_says():
    held = 0
    for seed in range(200):
        low, high = bootstrap_mean(draw(60, seed), resamples=200, level=0.9)
        held += low < 1 < high
    assert 0.82 < held / 200 < 0.94


def test_the_same_seed_gives_the_same_interval():
    values = draw(30)
    assert bootstrap_mean(values) == bootstrap_mean(list(values))
    assert bootstrap_mean(values) != bootstrap_mean(values, seed=1)
    low, high = bootstrap_mean(1e6 + 10 * values)
    expected = np.multiply(10, bootstrap_mean(values)) + 1e6
    assert (low, high) == pytest.approx(tuple(expected), abs=1e-6)


def test_equal_values_leave_no_doubt():
    assert bootstrap_mean(np.full(7, 2.5)) == (2.5, 2.5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "at least 2 images, not 0"),
        ([1.0], "at least 2 images, not 1"),
        ([30.0, np.inf, np.nan], "2 of 3 values are not finite"),
    ],
)
def test_values_without_an_interval(values, message):
    with pytest.raises(UserError, match=message):
        bootstrap_mean(values)


@pytest.mark.parametrize("setting", [{"level": 1.0}, {"level": 0.0}, {"resamples": 0}])
def test_settings_out_of_range(setting):
    with pytest.raises(UserError, match="level is .* between 0 and 1; resamples is"):
        bootstrap_mean([1.0, 2.0], **setting)
