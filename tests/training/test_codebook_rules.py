import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.training import codebook_rules as rules
from movq_jax.training.codebook_rules import make_rule, random_features

K, N, D = 6, 40, 3


def draw(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def ids_without(*unused):
    used = [k for k in range(K) if k not in unused]
    return jnp.asarray(np.random.default_rng(1).choice(used, N), jnp.int32)


def run(rule, rows, state, features, ids, seed=0):
    return jax.jit(rule.update)(rows, state, features, ids, jax.random.key(seed))


def counts(ids):
    return np.bincount(ids, minlength=K).astype(np.float64)


def test_by_gradient_alone_there_is_nothing_to_do():
    rule = make_rule({"name": "gradient"})
    assert rule.by_gradient and rule.update is None and rule.init(draw(K, D)) == {}


def test_running_means_by_hand():
    rule = make_rule({"name": "ema", "decay": 0.9})
    assert not rule.by_gradient
    rows, features, ids = draw(K, D), draw(N, D, seed=2), ids_without(4)
    state = rule.init(rows)
    n, m = np.ones(K), np.asarray(rows, np.float64)
    for _ in range(3):
        new = run(rule, rows, state, features, ids)
        sums = np.zeros((K, D))
        np.add.at(sums, ids, features)
        n, m = 0.9 * n + 0.1 * counts(ids), 0.9 * m + 0.1 * sums
        smooth = (n + 1e-5) / (n.sum() + K * 1e-5) * n.sum()
        np.testing.assert_allclose(new.rows, m / smooth[:, None], atol=1e-5)
        assert not np.any(new.anew)
        rows, state = new.rows, new.state
    # A code that nobody chooses stays where it is: n and m fall alike.
    np.testing.assert_allclose(rows[4], draw(K, D)[4], rtol=1e-4)


@pytest.mark.parametrize("name", ["ema", "gradient"])
def test_dead_codes_become_features(name):
    rule = make_rule({"name": name, "decay": 0.4, "revive_below": 0.9})
    rows, features, ids = 100 + draw(K, D), draw(N, D, seed=2), ids_without(1, 4)
    new = run(rule, rows, rule.init(rows), features, ids)
    np.testing.assert_array_equal(np.flatnonzero(new.anew), [1, 4])
    for dead in (1, 4):
        distance = np.abs(np.asarray(features) - np.asarray(new.rows[dead]))
        distance = distance.sum(axis=-1)
        assert distance.min() < 1e-3 and new.state["count"][dead] == pytest.approx(1.8)
    assert np.any(new.rows[1] != new.rows[4])
    if name == "gradient":
        alive = [0, 2, 3, 5]
        np.testing.assert_array_equal(
            new.rows[jnp.array(alive)], rows[jnp.array(alive)]
        )


@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_anchors_draw_unused_codes_to_the_closest_feature(distance):
    rule = make_rule({"name": "cvq", "anchor": "closest", "distance": distance})
    rows, features, ids = draw(K, D), draw(N, D, seed=2), ids_without(1, 4)
    new = run(rule, rows, rule.init(rows), features, ids)
    share = 0.01 * counts(ids) / N
    np.testing.assert_allclose(new.state["share"], share, rtol=1e-5)
    a, b = np.asarray(rows, np.float64), np.asarray(features, np.float64)
    if distance == "cosine":
        unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b)]
        nearest = (unit[0] @ unit[1].T).argmax(axis=-1)
    else:
        nearest = np.sum((a[:, None] - b) ** 2, axis=-1).argmin(axis=-1)
    pull = np.exp(-share * K * 10 / 0.01 - 1e-3)[:, None]
    np.testing.assert_allclose(new.rows, (1 - pull) * a + pull * b[nearest], rtol=1e-4)
    assert pull[1] > 0.99 and rule.by_gradient


def test_probable_anchors_are_drawn_from_the_softmax():
    rule = make_rule({"name": "cvq", "distance": "l2"})
    rows = jnp.zeros((K, 1))
    features = jnp.asarray([[0.0], [1.0], [2.0]])
    ids = jnp.zeros(3, jnp.int32)
    drawn = []
    for seed in range(300):
        new = run(rule, rows, rule.init(rows), features, ids, seed)
        drawn += np.round(np.asarray(new.rows[1:, 0]) / np.exp(-1e-3)).tolist()
    weights = np.exp([-0.0, -1.0, -4.0])
    found = np.bincount(np.asarray(drawn, int), minlength=3) / len(drawn)
    np.testing.assert_allclose(found, weights / weights.sum(), atol=0.04)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "ema", "revive_below": 1.0},
        {"name": "gradient", "revive_below": 1.0},
        {"name": "cvq"},
        {"name": "cvq", "anchor": "random"},
    ],
)
def test_equal_features_and_few_of_them_give_numbers(options):
    rule = make_rule(options)
    rows, features = jnp.ones((K, D)), jnp.zeros((2, D))
    state = rule.init(rows)
    for seed in range(3):
        new = run(rule, rows, state, features, jnp.zeros(2, jnp.int32), seed)
        rows, state = new.rows, new.state
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((rows, state)))


def test_random_features_are_different_ones():
    features = draw(N, D)
    some = np.asarray(random_features(jax.random.key(0), features, 30))
    assert len(np.unique(some, axis=0)) == 30
    assert {tuple(row) for row in some} <= {tuple(row) for row in np.asarray(features)}
    more = np.asarray(random_features(jax.random.key(0), features, 100))
    assert len(np.unique(more, axis=0)) == 100
    nearest = np.abs(more[:, None] - np.asarray(features)).max(axis=-1).min(axis=-1)
    assert nearest.max() < 0.1


def test_scores_of_many_features_go_by_in_chunks(monkeypatch):
    rule = make_rule({"name": "cvq"})
    rows, features, ids = draw(K, D), draw(N, D, seed=2), ids_without(1)
    state, key = rule.init(rows), jax.random.key(0)

    def scores(rule):
        text = jax.jit(rule.update).lower(rows, state, features, ids, key).as_text()
        return f"tensor<{K}x{N}xf32>" in text, f"tensor<2x{N}xf32>" in text

    whole = run(rule, rows, state, features, ids)
    assert scores(rule) == (True, False)
    monkeypatch.setattr(rules, "SCORE_BYTES", 4 * N * 2)
    rule = make_rule({"name": "cvq"})
    assert scores(rule) == (False, True)
    chunked = run(rule, rows, state, features, ids)
    np.testing.assert_allclose(whole.rows, chunked.rows, rtol=1e-6)


@pytest.mark.parametrize("name", ["ema", "gradient"])
@pytest.mark.parametrize("threshold", [0.5, 1.0, 2.0])
def test_codes_that_are_chosen_often_enough_live_on(name, threshold):
    rule = make_rule({"name": name, "revive_below": threshold})
    rows, features = draw(K, D), draw(4 * N, D, seed=2)
    ids = jnp.arange(4 * N, dtype=jnp.int32) % (K - 1)  # all but the last one
    state, revived = rule.init(rows), np.zeros(K)
    for _ in range(150):
        new = run(rule, rows, state, features, ids)
        rows, state, revived = new.rows, new.state, revived + new.anew
    assert not np.any(revived[:-1])
    assert 1 <= revived[-1] <= 4  # ln 2 / (1 - 0.99): each has 69 steps at least


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "ema", "decay": 1}, "decay is 1, so nothing would ever move"),
        ({"name": "ema", "decay": 1.5}, "decay is 1.5; give a number from 0 to 1"),
        ({"name": "ema", "revive_below": -1}, "revive_below is -1; give a number"),
        ({"name": "cvq", "anchor": "near"}, "anchor is 'near'; use closest or random"),
        ({"name": "cvq", "distance": "l1"}, "distance is 'l1'; use cosine or l2"),
        ({"name": "cvq", "revive_below": 1.0}, "has no field 'revive_below'"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(UserError, match="config.train.codebook_update.*" + words):
        make_rule(options)
