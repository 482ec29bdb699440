import numpy as np

from movq_jax.pretrained.steps import Steps, masked_steps, row_steps


def test_what_is_known_keeps_its_confidence():
    known = np.array([[0, 1, 0], [0, 1, 1], [1, 1, 1]], bool).reshape(1, 3, 1, 3, 1)
    confidence = -np.arange(1.0, 10.0, dtype=np.float32).reshape(1, 3, 1, 3)
    steps = Steps(np.zeros(known.shape, np.int32), known, confidence)
    nothing = np.zeros((1, 1, 3, 1), bool)
    found = masked_steps(steps, nothing).confidence[0, :, 0]
    np.testing.assert_array_equal(found, [[-1, -2, -3], [-4, -2, -6], [-7, -2, -6]])
    given = nothing.copy()
    given[0, 0, 1] = True
    assert (masked_steps(steps, given).confidence[0, :, 0, 1] == 0).all()
    assert confidence[0, 1, 0, 1] == -5  # not changed in place


def test_rows():
    ids = np.arange(12, dtype=np.int32).reshape(1, 2, 3, 2)
    log_p = -ids.astype(np.float32)
    given = np.zeros(ids.shape, bool)
    given[0, 1, 2] = True
    steps = row_steps(ids, log_p, given)
    np.testing.assert_array_equal(steps.ids, ids[:, None].repeat(2, axis=1))
    assert steps.known[0, 0, 0].all() and not steps.known[0, 0, 1, :2].any()
    assert steps.known[0, 1].all() and steps.known[0, 0, 1, 2].all()
    nan = np.nan
    first = [[-0.5, -2.5, -4.5], [nan, nan, 0]]
    np.testing.assert_array_equal(steps.confidence[0, 0], first)
    np.testing.assert_array_equal(steps.confidence[0, 1, 1], [-6.5, -8.5, 0])
