import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.sampling.filters import NEG_INF, cut

P = np.array([0.1, 0.4, 0.05, 0.25, 0.2], np.float32)
LOGITS = jnp.log(jnp.asarray(P))


def kept(top_k=None, top_p=None, logits=LOGITS):
    top_k = None if top_k is None else jnp.int32(top_k)
    top_p = None if top_p is None else jnp.float32(top_p)
    result = np.asarray(cut(logits, top_k=top_k, top_p=top_p))
    left = result > NEG_INF / 2
    np.testing.assert_array_equal(result[left], np.asarray(logits)[left])
    return list(np.flatnonzero(left))


@pytest.mark.parametrize(
    ("top_k", "expected"),
    [(1, [1]), (3, [1, 3, 4]), (0, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4])],
)
def test_top_k(top_k, expected):
    assert kept(top_k=top_k) == expected


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (1e-6, [1]),
        (1e-46, [1]),  # 0 as a float32
        (0.39, [1]),
        (0.41, [1, 3]),  # the token that crosses p is kept
        (0.64, [1, 3]),
        (0.86, [0, 1, 3, 4]),
        (1.0, [0, 1, 2, 3, 4]),
    ],
)
def test_top_p(top_p, expected):
    assert kept(top_p=top_p) == expected


def test_top_p_renormalises_what_top_k_left():
    # Of 0.4, 0.25 and 0.2 the first has 0.47, the first two 0.76.
    assert kept(top_k=3, top_p=0.45) == [1]
    assert kept(top_k=3, top_p=0.7) == [1, 3]
    assert kept(top_p=0.7) == [1, 3, 4]


def test_all_of_many_rare_tokens_stay_at_one():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(8 * rng.standard_normal(4096), jnp.float32)
    assert len(kept(top_k=0, top_p=1.0, logits=logits)) == 4096


def test_rows_are_for_themselves_and_nothing_is_compiled_for_nothing():
    rows = jnp.stack([LOGITS, LOGITS[::-1]])[:, None]
    result = cut(rows, top_k=jnp.int32(2), top_p=None)
    expected = [cut(row, top_k=jnp.int32(2), top_p=None) for row in rows]
    np.testing.assert_array_equal(result, jnp.stack(expected))
    assert cut(rows, top_k=None, top_p=None) is rows
