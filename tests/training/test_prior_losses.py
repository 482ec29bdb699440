"""Masks and cross-entropies of priors, against formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.models.priors import NEG_INF
from movq_jax.training import prior_losses as losses

SIZES = (5, 3)


def logits_and_ids():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 4, 2, 5)).astype(np.float32)
    logits[..., 1, 3:] = NEG_INF
    ids = np.stack([rng.integers(0, size, (2, 4)) for size in SIZES], axis=-1)
    return jnp.asarray(logits), jnp.asarray(ids, jnp.int32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_smoothed_cross_entropy(smoothing):
    logits, ids = logits_and_ids()
    found = losses.predicted(logits, ids, SIZES, smoothing)
    for b, n, m in np.ndindex(ids.shape):
        row = np.asarray(logits[b, n, m, : SIZES[m]], np.float64)
        logp = row - np.log(np.exp(row).sum())
        target = np.full(SIZES[m], smoothing / SIZES[m])
        target[ids[b, n, m]] += 1 - smoothing
        assert float(found.loss[b, n, m]) == pytest.approx(-(target * logp).sum(), 1e-5)
        assert bool(found.hit[b, n, m]) == (row.argmax() == ids[b, n, m])


def test_the_gradient_at_columns_of_no_code_is_zero():
    logits, ids = logits_and_ids()
    grad = jax.grad(lambda x: losses.predicted(x, ids, SIZES, 0.1).loss.sum())(logits)
    assert np.isfinite(grad).all()
    assert not np.any(grad[..., 1, 3:]) and np.any(grad[..., 1, :3])


@pytest.mark.parametrize("unmasked", [0.0, 0.1, 1.0])
def test_images_count_alike_however_many_of_their_indices_are_masked(unmasked):
    masked = np.zeros((2, 4, 2), bool)
    masked[0, 0], masked[1, :3] = True, True
    loss = np.arange(16.0).reshape(2, 4, 2)
    weights = np.where(masked, 1, unmasked)
    found = losses.mean_by_image(
        jnp.asarray(loss, jnp.float32), losses.weights_of(jnp.asarray(masked), unmasked)
    )
    expected = [(w * x).sum() / w.sum() for w, x in zip(weights, loss, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def draw(units=64, batch=4096, name="cosine", min_rate=0.0, seed=0):
    masked = losses.draw_masked(
        jax.random.key(seed), batch, units, schedule={"name": name}, min_rate=min_rate
    )
    return np.asarray(masked)


def test_the_number_of_masked_units_follows_the_schedule():
    counts = draw().sum(axis=1)
    assert counts.min() >= 1 and counts.max() == 64
    # ceil(64 cos(pi r / 2)) <= c  <=>  r >= 2/pi acos(c / 64)
    for c in (8, 32, 60):
        expected = 1 - 2 / np.pi * np.arccos(c / 64)
        assert (counts <= c).mean() == pytest.approx(expected, abs=0.03)


def test_each_unit_is_masked_as_often():
    share = draw().mean(axis=0)
    assert np.abs(share - share.mean()).max() < 0.04


@pytest.mark.parametrize(("rate", "least"), [(0.0, 1), (0.1, 3), (0.5, 15), (1.0, 30)])
def test_the_least_number_of_masked_units(rate, least):
    counts = draw(units=30, name="linear", min_rate=rate).sum(axis=1)
    assert counts.min() == least and counts.max() == 30


def test_masks_differ_by_image_and_by_key():
    a, b = draw(batch=8), draw(batch=8, seed=1)
    assert len({row.tobytes() for row in np.concatenate([a, b])}) == 16


def test_a_unit_is_a_position_or_an_index():
    masked = jnp.array([[True, False, False, True]])
    whole = losses.spread(masked, 3, whole_positions=True)
    assert whole.shape == (1, 4, 3)
    np.testing.assert_array_equal(whole[0, :, 0], masked[0])
    assert (whole == whole[..., :1]).all()
    alone = losses.spread(masked, 2, whole_positions=False)
    np.testing.assert_array_equal(alone, [[[True, False], [False, True]]])


def test_classes_are_dropped_at_random():
    labels = jnp.arange(4000) % 7
    found = np.asarray(losses.drop_classes(jax.random.key(0), labels, 7, 0.1))
    dropped = found == 7
    assert dropped.mean() == pytest.approx(0.1, abs=0.02)
    np.testing.assert_array_equal(found[~dropped], np.asarray(labels)[~dropped])
    assert (losses.drop_classes(jax.random.key(0), labels, 7, 0.0) == labels).all()
