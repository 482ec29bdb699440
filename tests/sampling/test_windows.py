import numpy as np
import pytest

from movq_jax.sampling.windows import complete_grid, plan_windows

WINDOW = (8, 8)


def box(shape, rows, columns):
    unknown = np.zeros(shape, bool)
    unknown[slice(*rows), slice(*columns)] = True
    return unknown


def share_known(unknown, plan, window=WINDOW):
    """How much of each window is known when its turn comes."""
    left, shares = unknown.copy(), []
    for top, column in plan:
        part = left[top : top + window[0], column : column + window[1]]
        shares.append(1 - part.mean())
        assert part.any(), "a window without anything to do"
        part[:] = False
    assert not left.any()
    return shares


@pytest.mark.parametrize("shape", [(8, 8), (8, 20), (21, 9), (33, 40)])
@pytest.mark.parametrize("window", [(8, 8), (8, 5), (1, 1)])
def test_every_unknown_position_is_drawn(shape, window):
    rng = np.random.default_rng(0)
    for share in (0.02, 0.3, 1.0):
        unknown = rng.random(shape) < share
        plan = plan_windows(unknown, window)
        share_known(unknown, plan, window)
        for corner in plan:
            assert all(
                0 <= c <= n - w for c, n, w in zip(corner, shape, window, strict=True)
            )


def test_nothing_unknown_needs_no_window():
    assert plan_windows(np.zeros((9, 9), bool), WINDOW) == []


def test_one_window_where_the_grid_is_one():
    assert plan_windows(np.ones(WINDOW, bool), WINDOW) == [(0, 0)]


def test_a_small_hole_lies_in_the_middle_of_its_window():
    assert plan_windows(box((40, 40), (17, 21), (25, 27)), WINDOW) == [(15, 22)]
    # At the border as near to the middle as the grid allows.
    assert plan_windows(box((40, 40), (0, 2), (38, 40)), WINDOW) == [(0, 32)]


def test_holes_far_apart_have_windows_of_their_own():
    unknown = box((40, 40), (10, 12), (10, 12)) | box((40, 40), (30, 32), (31, 33))
    assert sorted(plan_windows(unknown, WINDOW)) == [(7, 7), (27, 28)]


def test_holes_near_each_other_share_a_window():
    unknown = box((40, 40), (10, 12), (10, 12)) | box((40, 40), (13, 15), (12, 14))
    assert len(plan_windows(unknown, WINDOW)) == 1


def test_outpainting_goes_from_the_picture_outwards():
    unknown = box((8, 40), (0, 8), (0, 32))  # known: the last 8 columns
    plan = plan_windows(unknown, WINDOW)
    assert [column for _, column in plan] == [28, 24, 20, 16, 12, 8, 4, 0]
    assert all(share >= 0.5 for share in share_known(unknown, plan))


def test_windows_of_a_tall_side_see_each_other():
    unknown = box((32, 24), (0, 32), (0, 8))
    shares = share_known(unknown, plan_windows(unknown, WINDOW))
    assert all(share >= 0.5 for share in shares)


def test_an_empty_canvas_is_begun_in_its_middle_and_overlaps_by_half():
    unknown = np.ones((24, 24), bool)
    plan = plan_windows(unknown, WINDOW)
    assert plan[0] == (8, 8)
    shares = share_known(unknown, plan)
    assert shares[0] == 0 and all(share >= 0.5 for share in shares[1:])


def recorder(calls):
    """A sampler that writes its turn + 1 wherever something is unknown."""

    def sample(turn, ids, known):
        calls.append((ids.copy(), known.copy()))
        return np.where(known[None, :, :, None], -7, turn + 1)

    return sample


def test_known_positions_never_change_and_are_seen():
    rng = np.random.default_rng(0)
    ids = rng.integers(10, 20, (2, 12, 20, 3))
    unknown = box((12, 20), (2, 12), (0, 13))
    calls = []
    done = complete_grid(recorder(calls), ids, unknown, WINDOW)
    np.testing.assert_array_equal(done[:, ~unknown], ids[:, ~unknown])
    turns = done[:, unknown]
    assert set(np.unique(turns)) == set(range(1, len(calls) + 1))
    for given, known in calls:
        assert given.shape == (2, 8, 8, 3)
        assert (given[:, ~known] == 0).all() and (given[:, known] != 0).all()
    assert (calls[-1][0] < 10).any(), "the last window did not see the earlier ones"


def test_the_input_is_left_alone():
    ids, unknown = np.full((1, 9, 9, 1), 5), np.ones((9, 9), bool)
    complete_grid(recorder([]), ids, unknown, WINDOW)
    assert (ids == 5).all() and unknown.all()


def test_a_small_grid_is_continued_with_unknown_positions():
    ids = np.full((1, 3, 8, 2), 9)
    unknown = box((3, 8), (0, 1), (0, 1))
    calls = []
    done = complete_grid(recorder(calls), ids, unknown, WINDOW)
    ((_, known),) = calls
    assert known.sum() == 23 and not known[3:].any()
    assert done.shape == ids.shape
    assert (done[0, 0, 0] == 1).all() and (done[:, ~unknown] == 9).all()


def test_a_small_grid_with_everything_known_is_not_sampled():
    ids = np.full((1, 3, 3, 1), 9)
    calls = []
    done = complete_grid(recorder(calls), ids, np.zeros((3, 3), bool), WINDOW)
    assert not calls and (done == 9).all()
