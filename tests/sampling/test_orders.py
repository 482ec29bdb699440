import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.sampling.keys import image_keys
from movq_jax.sampling.orders import (
    fixed_priorities,
    halton_ranks,
    keep_masked,
    make_order,
)

KEYS = image_keys(0, jnp.arange(200))


def test_haltons_first_cells():
    order = np.argsort(halton_ranks(16, 16))
    cells = [divmod(int(place), 16) for place in order[:6]]
    assert cells == [(8, 5), (4, 10), (12, 1), (2, 7), (10, 12), (6, 3)]


@pytest.mark.parametrize("grid", [(16, 16), (24, 24), (32, 32), (3, 5), (1, 1)])
def test_halton_meets_all_cells_once(grid):
    ranks = halton_ranks(*grid)
    np.testing.assert_array_equal(np.sort(ranks), np.arange(grid[0] * grid[1]))


def test_haltons_roll_shifts_the_sequence_of_each_image():
    fixed = fixed_priorities(
        make_order({"name": "halton", "roll": False}), KEYS, (3, 5), 1
    )
    rolled = fixed_priorities(
        make_order({"name": "halton", "roll": True}), KEYS, (3, 5), 1
    )
    sequence = np.argsort(-np.asarray(fixed), axis=-1)
    assert (sequence == np.argsort(halton_ranks(3, 5))).all()
    starts = set()
    for first, other in zip(sequence, np.argsort(-np.asarray(rolled)), strict=True):
        start = list(first).index(other[0])
        np.testing.assert_array_equal(np.roll(first, -start), other)
        starts.add(start)
    assert starts == set(range(15))


def test_haltons_channels_follow_one_another():
    order = make_order({"name": "halton", "roll": False})
    units = np.argsort(-np.asarray(fixed_priorities(order, KEYS[:1], (2, 3), 4)[0]))
    np.testing.assert_array_equal(units[:4] % 4, np.arange(4))
    np.testing.assert_array_equal(units[::4] // 4, np.argsort(halton_ranks(2, 3)))


def test_random_orders_are_uniform_permutations():
    order = fixed_priorities(make_order({"name": "random"}), KEYS, (2, 2), 3)
    order = np.asarray(order)
    np.testing.assert_array_equal(np.sort(order), np.tile(np.arange(12), (200, 1)))
    assert len(np.unique(order, axis=0)) == 200
    np.testing.assert_allclose(order.mean(axis=0), 5.5, atol=1.0)


def test_the_lowest_unknown_stay_masked_and_ties_do_not_matter():
    scores = jnp.asarray([[3.0, 1.0, 2.0, 0.0], [5.0, 5.0, 5.0, 5.0]])
    known = jnp.asarray([[False, False, False, True], [False] * 4])
    masked = keep_masked(scores, known, jnp.asarray([2, 3]))
    np.testing.assert_array_equal(
        masked, [[False, True, True, False], [True, True, True, False]]
    )
    assert not keep_masked(scores, known, jnp.asarray([0, 0])).any()


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"name": "haltom"}, "did you mean 'halton'"),
        ({"name": "halton", "roll": 1}, "sample.order.roll is 1; use true or false"),
        ({"name": "random", "roll": True}, "has no field 'roll'"),
    ],
)
def test_bad_orders(order, words):
    with pytest.raises(UserError, match=words):
        make_order(order)
