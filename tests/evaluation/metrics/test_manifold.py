"""Most features here are whole numbers: their distances are exact in float32."""

import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.metrics import manifold
from movq_jax.evaluation.metrics.manifold import density_coverage, precision_recall

N, M, WIDTH = 40, 33, 8


def draw(count, seed=0, low=0, high=1000):
    rng = np.random.default_rng(seed)
    return rng.integers(low, high, (count, WIDTH)).astype(np.float32)


def squared(u, v):
    return np.sum((np.float64(u)[:, None] - np.float64(v)[None]) ** 2, axis=-1)


def radii(distances, k):
    return np.sort(distances, axis=1)[:, k]  # the first is the image itself


def precision_recall_by_definition(real, fake, k, distances=squared):
    across = distances(real, fake)
    real_radii, fake_radii = (radii(distances(x, x), k) for x in (real, fake))
    inside_real = (across <= real_radii[:, None]).any(axis=0)
    inside_fake = (across <= fake_radii[None, :]).any(axis=1)
    return inside_real.mean(), inside_fake.mean()


def density_coverage_by_definition(real, fake, k):
    inside = squared(real, fake) < radii(squared(real, real), k)[:, None]
    return inside.sum() / (k * len(fake)), inside.any(axis=1).mean()


# In 0..1 nearly all distances have ties, and some images are equal.
@pytest.mark.parametrize("high", [2, 1000])
@pytest.mark.parametrize("k", [1, 3])
def test_by_definition(high, k):
    real, fake = draw(N, high=high), draw(M, seed=1, low=high // 8, high=high)
    made = precision_recall(real, fake, k=k)
    assert made == pytest.approx(precision_recall_by_definition(real, fake, k))
    assert all(isinstance(number, float) and 0 < number < 1.001 for number in made)
    made = density_coverage(real, fake, k=k)
    assert made == pytest.approx(density_coverage_by_definition(real, fake, k))
    assert all(isinstance(number, float) and number > 0 for number in made)


def test_a_set_and_itself_in_another_order():
    real = draw(N)
    fake = real[::-1]
    assert precision_recall(real, fake) == (1, 1)
    # An open ball has its image and those nearer than the k-th: k of them.
    assert density_coverage(real, fake) == (1, 1)


def test_sets_far_apart():
    real, fake = draw(N), draw(M, seed=1) + 5000
    assert precision_recall(real, fake) == (0, 0)
    assert density_coverage(real, fake) == (0, 0)


def test_each_is_the_other_one_with_the_sets_exchanged():
    real, fake = draw(N), draw(M, seed=1)
    made = precision_recall(real, fake)
    assert made[0] != made[1]
    assert precision_recall(fake, real) == made[::-1]


def test_what_is_missing_costs_recall_and_coverage():
    real = draw(N)
    real[N // 2 :] += 5000
    made = precision_recall(real, real[: N // 2])
    assert made == (1, 0.5)
    density, coverage = density_coverage(real, real[: N // 2])
    assert (density, coverage) == (1, 0.5)


def test_shifted_features_have_the_same_distances():
    real, fake = draw(N), draw(M, seed=1)
    assert precision_recall(real + 1e6, fake + 1e6) == precision_recall(real, fake)
    assert density_coverage(real + 1e6, fake + 1e6) == density_coverage(real, fake)


def test_tiles_do_not_matter(monkeypatch):
    real, fake = draw(48, high=9), draw(48, seed=1, high=9)
    whole = precision_recall(real, fake), density_coverage(real, fake)
    monkeypatch.setattr(manifold, "ROWS", 32)
    monkeypatch.setattr(manifold, "COLUMNS", 32)
    assert (precision_recall(real, fake), density_coverage(real, fake)) == whole


def float16(u, v):
    """Squared distances as ADM has them, each result rounded to float16."""
    u, v = np.float16(u), np.float16(v)
    norms_u, norms_v = (np.sum(x * x, axis=1, dtype=np.float32) for x in (u, v))
    products = np.float16(np.float32(u) @ np.float32(v).T)
    across = np.float16(norms_u)[:, None] - np.float16(2) * products
    return np.float32(np.maximum(across + np.float16(norms_v)[None], np.float16(0)))


def test_float16_rounds_each_result():
    """Norms about 8,000, where float16 has whole multiples of 4 and of 8 only."""
    real, fake = (np.float32(30 + draw(n, n, -5, 5) / 2) for n in (N, M))
    expected = precision_recall_by_definition(real, fake, 3, float16)
    made = precision_recall(real, fake, distance="adm_float16")
    assert made == pytest.approx(expected)
    assert made != precision_recall(real, fake)


def test_float32_where_float16_overflows():
    real, fake = draw(N, low=100), draw(M, seed=1, low=100)
    assert np.min(np.sum(real**2, axis=1)) > np.finfo(np.float16).max
    made = precision_recall(real, fake, distance="adm_float16")
    assert made == precision_recall(real, fake)


@pytest.mark.parametrize("function", [precision_recall, density_coverage])
def test_bad_input(function):
    real, fake = draw(10), draw(6)
    with pytest.raises(
        UserError, match="number 6 needs more than 6 .* are 6 fake ones"
    ):
        function(real, fake, k=6)
    with pytest.raises(
        UserError, match="number 7 needs more than 7 .* are 6 real ones"
    ):
        function(fake, real, k=7)
    with pytest.raises(UserError, match="k is 0"):
        function(real, fake, k=0)
    with pytest.raises(
        UserError, match="have 8 .* and the fake ones 5: they were made"
    ):
        function(real, fake[:, :5])
    fake[2, 1] = np.nan
    with pytest.raises(
        UserError, match="fake features of 1 of 6 images are not finite"
    ):
        function(real, fake)


def test_an_unknown_distance():
    with pytest.raises(UserError, match="distance is 'float16'.*adm_float16, float32"):
        precision_recall(draw(9), draw(9), distance="float16")


@pytest.mark.parity
@pytest.mark.parametrize("mean", [0.0, 0.3])
def test_equals_torch_fidelity(torch, mean):
    theirs = pytest.importorskip("torch_fidelity.metric_prc")
    rng = np.random.default_rng(0)
    real = rng.standard_normal((N, WIDTH)).astype(np.float32)
    fake = rng.normal(mean, 0.8, (M, WIDTH)).astype(np.float32)
    expected = theirs.prc_features_to_metric(
        torch.from_numpy(fake),
        torch.from_numpy(real),
        prc_neighborhood=3,
        prc_batch_size=16,
        save_cpu_ram=False,
        verbose=False,
    )
    precision, recall = precision_recall(real, fake)
    assert precision == pytest.approx(expected[theirs.KEY_METRIC_PRECISION], abs=1e-6)
    assert recall == pytest.approx(expected[theirs.KEY_METRIC_RECALL], abs=1e-6)
    assert 0 < precision < 1 and 0 < recall < 1
