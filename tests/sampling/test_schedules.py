import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.sampling.schedules import mask_ratio, remaining

ALL = [
    {"name": "cosine"},
    {"name": "arccos"},
    {"name": "linear"},
    {"name": "power", "exponent": 2.0},
]


def revealed(schedule, steps, units, unknown=None):
    """How many units each step reveals."""
    unknown = units if unknown is None else unknown
    left = remaining(schedule, steps, units)[:, unknown]
    return list(-np.diff(np.r_[unknown, left]))


def test_cosine_as_maskgit_counts():
    assert revealed({"name": "cosine"}, 8, 256) == [5, 15, 24, 31, 39, 45, 48, 49]


def test_arccos_as_halton_maskgit_counts():
    counts = revealed({"name": "arccos"}, 32, 256)
    assert counts[:7] == [5] * 7 and counts[-1] == 41 and sum(counts) == 256
    share = 1 - np.arccos(np.arange(1, 33) / 32) / (np.pi / 2)
    total = np.maximum(np.arange(1, 33), np.floor(share * 256))
    np.testing.assert_array_equal(np.cumsum(counts), total)


def test_linear_with_a_step_a_unit_reveals_one_each():
    for units in (8, 49, 256, 576):
        assert revealed({"name": "linear"}, units, units) == [1] * units


def test_power_by_hand():
    power = {"name": "power", "exponent": 2}
    assert revealed(power, 4, 16) == [1, 3, 5, 7]


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_a_partly_known_grid(schedule, steps):
    for unknown in range(31):
        counts = revealed(schedule, steps, 30, unknown)
        assert sum(counts) == unknown and min(counts) >= 0
        moving = max(1, min(steps, unknown))  # these steps reveal one, but the last
        assert all(count >= 1 for count in counts[: moving - 1])
        assert unknown == 0 or counts[-1] >= 1


@pytest.mark.parametrize("schedule", ALL)
def test_the_ratio_falls_from_one_to_zero_and_is_what_remains(schedule):
    r = jnp.linspace(0, 1, 101)
    ratio = np.asarray(mask_ratio(schedule, r))
    assert ratio.dtype == np.float32 and ratio.shape == (101,)
    np.testing.assert_allclose(ratio[[0, -1]], [1, 0], atol=2e-6)
    assert (np.diff(ratio) <= 0).all()
    left = remaining(schedule, 100, 10_000)[:-1, 10_000]
    np.testing.assert_allclose(left / 10_000, ratio[1:-1], atol=2e-4)


@pytest.mark.parametrize(
    ("schedule", "steps", "words"),
    [
        ({"name": "cosin"}, 8, "did you mean 'cosine'"),
        ({"name": "cosine", "power": 2}, 8, "has no field 'power'"),
        ({"name": "power", "exponent": 0.0}, 8, "sample.schedule.exponent is 0.0"),
        ({"name": "power"}, 8, "lacks 'exponent'"),
        ({"name": "cosine"}, 0, "sample.steps is 0; 1 is the least"),
        ("cosine", 8, "sample.schedule is 'cosine'; choose by"),
    ],
)
def test_bad_schedules(schedule, steps, words):
    with pytest.raises(UserError, match=words):
        remaining(schedule, steps, 16)


def test_the_path_in_the_message_is_the_callers():
    with pytest.raises(UserError, match="config.loss.mask.name is 'sin'"):
        mask_ratio({"name": "sin"}, jnp.zeros(()), "config.loss.mask")
