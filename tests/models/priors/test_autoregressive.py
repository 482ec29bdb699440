"""The autoregressive prior: causal, and the same with a cache."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

CHANNELS = {"depth": {"name": "depth", "depth": 2}, "flat": {"name": "flat"}}
every_mode = pytest.mark.parametrize("mode", CHANNELS)
both_tokens = pytest.mark.parametrize("tokens", ["shared", "dual"])


def decode(s, choose):
    """Steps with a cache: ids and log p, [B, N, M]. `choose` gets (n, m, logits)."""
    batch, _, channels = s.ids.shape
    flat = s.prior.is_flat

    def body(carry, t):
        cache, previous = carry
        n, options = (t // channels, {"t": t}) if flat else (t, {})
        features, cache = s.prior.apply(
            s.variables, cache, t, previous, s.labels, method="step"
        )
        ids, log_p = s.prior.apply(
            s.variables,
            features[None],
            lambda m, logits: choose(n, m, logits),
            **options,
            method="draw",
        )
        return (cache, ids[:, 0]), (ids[:, 0], log_p[:, 0])

    # What step 0 is told of a step before it must not matter.
    nothing = jnp.full((batch, 1 if flat else channels), 3, jnp.int32)
    start = (s.prior.init_cache(batch), nothing)
    steps = jnp.arange(s.prior.num_steps)
    _, results = jax.jit(lambda: jax.lax.scan(body, start, steps))()
    return [x.swapaxes(0, 1).reshape(s.ids.shape) for x in results]


@every_mode
@pytest.mark.parametrize("tokens", ["one", "shared", "dual"])
def test_shapes(setup, mode, tokens):
    s = setup("autoregressive", tokens, channels=CHANNELS[mode])
    logits = s.shape(*s.inputs)
    channels = s.tokens.num_channels
    assert logits.shape == (2, 6, channels, 9) and logits.dtype == jnp.float32
    assert s.prior.num_steps == 6 * (channels if mode == "flat" else 1)
    cache = s.prior.init_cache(5)
    assert cache.k.shape == cache.v.shape == (2, 5, s.prior.num_steps, 2, 8)
    same = s.prior.apply(s.variables, 5, method="init_cache")
    assert jax.tree.map(jnp.shape, same) == jax.tree.map(jnp.shape, cache)


@every_mode
@both_tokens
def test_an_index_sees_those_before_it_and_no_others(setup, mode, tokens):
    s = setup("autoregressive", tokens, channels=CHANNELS[mode])
    channels = s.tokens.num_channels
    before = s.run(*s.inputs)
    for n in range(6):
        for m in range(channels):
            ids = s.ids.at[0, n, m].set((s.ids[0, n, m] + 1) % 6)
            change = np.abs(s.run(ids, s.labels) - before).max(axis=-1)
            moved = np.zeros((2, 6 * channels), bool)
            moved[0, n * channels + m + 1 :] = True
            np.testing.assert_array_equal(
                change.reshape(2, -1) > 1e-6, moved, err_msg=f"{n}, {m}"
            )


@every_mode
def test_a_class_is_seen_by_all(setup, mode):
    s = setup("autoregressive", channels=CHANNELS[mode])
    before = s.run(s.ids, jnp.array([0, 3]))
    change = np.abs(s.run(s.ids, jnp.array([1, 3])) - before).max(axis=-1)
    assert np.all(change[0] > 1e-5) and not np.any(change[1])
    none = setup("autoregressive", channels=CHANNELS[mode], num_classes=0)
    assert none.variables["params"]["classes"].shape == (1, 16)
    np.testing.assert_array_equal(
        none.run(s.ids, jnp.array([0, 0])), none.run(s.ids, jnp.array([5, -1]))
    )


def test_who_holds_which_index_shows_though_channels_share_a_book(setup):
    s = setup("autoregressive", "shared")
    ids = s.ids.at[:, 1].set(jnp.array([1, 2, 3]))
    turned = s.ids.at[:, 1].set(jnp.array([3, 1, 2]))
    difference = s.run(ids, s.labels)[:, 2:] - s.run(turned, s.labels)[:, 2:]
    assert np.abs(difference).max() > 1e-2


@every_mode
@pytest.mark.parametrize(
    ("tokens", "num_classes", "heads"),
    [("one", 3, 1), ("shared", 0, 4), ("dual", 3, 2)],
)
def test_cached_steps_equal_the_whole(setup, mode, tokens, num_classes, heads):
    """Teacher-forced: log p of what the whole pass says of the same indices."""
    s = setup(
        "autoregressive",
        tokens,
        channels=CHANNELS[mode],
        num_classes=num_classes,
        heads=heads,
    )
    whole = jax.nn.log_softmax(s.run(*s.inputs))
    whole = jnp.take_along_axis(whole, s.ids[..., None], axis=-1)[..., 0]

    def choose(n, m, logits):
        assert logits.shape == (1, 2, 1, 9)
        ids = s.ids[:, n, m][:, None]
        log_p = jax.nn.log_softmax(logits[0])
        return ids, jnp.take_along_axis(log_p, ids[..., None], axis=-1)[..., 0]

    ids, log_p = decode(s, choose)
    np.testing.assert_array_equal(ids, s.ids)
    np.testing.assert_allclose(log_p, whole, atol=2e-6 * np.abs(whole).max())


@every_mode
def test_a_greedy_draw_is_what_the_whole_pass_finds(setup, greedy, mode):
    s = setup("autoregressive", channels=CHANNELS[mode])
    ids, log_p = decode(s, lambda n, m, logits: greedy(m, logits))
    logits = jax.nn.log_softmax(s.run(ids, s.labels))
    np.testing.assert_array_equal(ids, jnp.argmax(logits, axis=-1))
    np.testing.assert_allclose(log_p, jnp.max(logits, axis=-1), atol=1e-5)
    assert len(np.unique(ids)) > 2


@every_mode
def test_codes_that_a_book_does_not_have_are_never_drawn(setup, sample, mode):
    s = setup("autoregressive", channels=CHANNELS[mode])
    logits = np.asarray(s.run(*s.inputs))
    assert np.all(logits[:, :, 1, 6:] == -1e30) and np.all(logits[:, :, 1, :6] > -100)
    assert np.all(logits[:, :, 0] > -100)
    features = jnp.ones((1, 500, 1, 16))

    def draw(t):
        options = {"t": t} if mode == "flat" else {}
        return s.run(features, choose=sample, method="draw", **options)[0]

    drawn = [draw(0), draw(1)] if mode == "flat" else [draw(0)]
    ids = np.concatenate(drawn, axis=-1)
    assert [set(np.unique(ids[..., m])) for m in (0, 1)] == [
        set(range(9)),
        set(range(6)),
    ]


def test_positions_in_the_grid_matter(setup):
    """The same sequence in a grid of another shape is another."""
    s = setup("autoregressive")
    grid = dataclasses.replace(s.tokens, grid=(3, 2))
    other = jax.jit(s.prior.clone(tokens=grid).apply)(s.variables, *s.inputs)
    assert np.abs(other - s.run(*s.inputs)).max() > 1e-3


def test_the_token_in_front_is_not_turned(setup):
    """Neither is the first of the grid; a token after it is, by its cell."""
    s = setup("autoregressive", "shared", channels=CHANNELS["flat"])
    cos, sin = s.prior.apply(
        s.variables, jnp.arange(18), method=lambda prior, steps: prior._rope(steps)
    )
    same = [0, *(1 + t for t in range(3))]
    np.testing.assert_array_equal(cos[np.array(same)], 1)
    np.testing.assert_array_equal(sin[np.array(same)], 0)
    # Index 3 is the first of cell (0, 1), index 9 that of cell (1, 0).
    frequencies = np.array([1, 0.01])
    np.testing.assert_allclose(sin[4], [0, 0, *np.sin(frequencies)], atol=1e-6)
    np.testing.assert_allclose(sin[10], [*np.sin(frequencies), 0, 0], atol=1e-6)


@every_mode
def test_bfloat16(setup, greedy, mode):
    s = setup("autoregressive", channels=CHANNELS[mode], dtype="bfloat16")
    logits = s.run(*s.inputs)
    assert logits.dtype == jnp.float32
    exact = setup("autoregressive", channels=CHANNELS[mode])
    np.testing.assert_allclose(logits, exact.run(*exact.inputs), atol=0.6)
    rounded = logits.astype(jnp.bfloat16).astype(jnp.float32)
    assert np.any(logits[:, :, 0] != rounded[:, :, 0])
    assert s.prior.init_cache(1).k.dtype == jnp.bfloat16
    _, log_p = decode(s, lambda n, m, logits: greedy(m, logits))
    assert log_p.dtype == jnp.float32


@every_mode
def test_gradients_reach_all_parameters(setup, mode):
    """Of a model that computes its blocks again."""
    s = setup("autoregressive", "shared", channels=CHANNELS[mode], remat=True)
    weights = jnp.cos(jnp.arange(2 * 6 * 3 * 9).reshape(2, 6, 3, 9))
    gradients = s.gradients(weights)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.any(np.asarray(gradient)), path


@every_mode
def test_dropout_is_for_training(setup, mode):
    s = setup("autoregressive", channels=CHANNELS[mode], dropout=0.5)
    without = setup("autoregressive", channels=CHANNELS[mode])
    np.testing.assert_array_equal(s.run(*s.inputs), without.run(*s.inputs))
    first, again, other = (
        s.run(*s.inputs, train=True, key=jax.random.key(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


@every_mode
def test_it_starts_with_all_codes_alike(setup, mode):
    s = setup("autoregressive", channels=CHANNELS[mode])
    s.variables = jax.jit(s.prior.init)(jax.random.key(0), *s.inputs)
    logits = np.asarray(s.run(*s.inputs))
    assert not np.any(logits[:, :, 0]) and not np.any(logits[:, :, 1, :6])
