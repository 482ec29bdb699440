"""The masked prior: what it sees, and what its heads draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

CHANNELS = {
    "depth": {"name": "depth", "depth": 2},
    "independent": {"name": "independent"},
    "parallel": {"name": "parallel"},
}
every_mode = pytest.mark.parametrize("mode", CHANNELS)
every_tokens = pytest.mark.parametrize("tokens", ["one", "shared", "dual"])


@every_mode
@every_tokens
def test_shapes(setup, mode, tokens):
    s = setup("masked", tokens, channels=CHANNELS[mode])
    logits = s.shape(*s.inputs)
    assert logits.shape == (2, 6, s.tokens.num_channels, 9)
    assert logits.dtype == jnp.float32
    features = s.shape(*s.inputs[:3], method="features")
    assert features.shape == (2, 6, 16)


@every_mode
def test_a_pass_is_features_and_logits(setup, mode):
    s = setup("masked", channels=CHANNELS[mode])
    again = s.run(s.features(), s.ids, method="logits")
    np.testing.assert_allclose(again, s.run(*s.inputs), atol=1e-5)


def test_the_unit_of_masking(setup):
    units = {
        mode: setup("masked", channels=CHANNELS[mode]).prior.whole_positions
        for mode in CHANNELS
    }
    assert units == {"depth": True, "independent": False, "parallel": True}


@every_mode
def test_unknown_indices_are_not_seen(setup, mode):
    """Whatever stands there, an index of no code as well."""
    s = setup("masked", channels=CHANNELS[mode])
    before = s.features()
    for other in (s.ids + 1, jnp.full_like(s.ids, -1), jnp.full_like(s.ids, 10**6)):
        hidden = jnp.where(s.known, s.ids, other)
        np.testing.assert_array_equal(s.features(hidden), before)


def test_known_indices_matter_and_so_does_that_they_are_known(setup):
    """Each of them at every position: attention looks both ways."""
    s = setup("masked")
    before = s.features()
    n, m = np.argwhere(np.asarray(s.known[0]))[-1]
    changed = s.ids.at[0, n, m].set((s.ids[0, n, m] + 1) % 5)
    forgotten = s.known.at[0, n, m].set(False)
    for after in (s.features(changed), s.features(known=forgotten)):
        assert np.all(np.abs(after[0] - before[0]).max(axis=-1) > 1e-4)
        np.testing.assert_array_equal(after[1], before[1])  # another image


def test_a_channel_is_masked_for_itself(setup):
    """With one channel known, the other's index does not show, and its own does."""
    s = setup("masked", channels=CHANNELS["independent"])
    known = jnp.zeros_like(s.known).at[:, 2, 0].set(True)
    before = s.features(known=known)
    other = s.features(s.ids.at[:, 2, 1].set((s.ids[:, 2, 1] + 1) % 6), known)
    np.testing.assert_array_equal(other, before)
    own = s.features(s.ids.at[:, 2, 0].set((s.ids[:, 2, 0] + 1) % 6), known)
    assert np.abs(own - before).max() > 1e-3
    swapped = s.features(known=jnp.zeros_like(s.known).at[:, 2, 1].set(True))
    assert np.abs(swapped - before).max() > 1e-3


def test_who_holds_which_index_shows_though_channels_share_a_book(setup):
    s = setup("masked", "shared")
    known = jnp.ones_like(s.known)
    ids = s.ids.at[:, 1].set(jnp.array([1, 2, 3]))
    turned = s.ids.at[:, 1].set(jnp.array([3, 1, 2]))
    assert np.abs(s.features(ids, known) - s.features(turned, known)).max() > 1e-2


def test_classes(setup):
    """A label matters, "no class" too; without classes none does."""
    s = setup("masked")
    by_label = [s.features(labels=jnp.array([n, n])) for n in range(4)]
    for n, features in enumerate(by_label):
        for other in by_label[:n]:
            assert np.abs(features - other).max() > 1e-3
    none = setup("masked", num_classes=0)
    assert "classes" not in none.variables["params"]
    assert none.variables["params"]["places"].shape == (6, 16)
    first, second = (none.features(labels=jnp.array([n, n])) for n in (0, 7))
    np.testing.assert_array_equal(first, second)


def test_in_depth_a_channel_is_given_those_before_it(setup):
    s = setup("masked", "shared")
    features = s.features()
    before = s.run(features, s.ids, method="logits")
    for m in range(3):
        ids = s.ids.at[0, 4, m].set((s.ids[0, 4, m] + 1) % 9)
        change = np.abs(s.run(features, ids, method="logits") - before).max(axis=-1)
        moved = np.zeros_like(change, bool)
        moved[0, 4, m + 1 :] = True
        np.testing.assert_array_equal(change > 1e-5, moved)


@pytest.mark.parametrize("mode", ["independent", "parallel"])
def test_parallel_heads_do_not_look_at_targets(setup, mode):
    s = setup("masked", channels=CHANNELS[mode])
    features = s.features()
    logits = s.run(features, s.ids, method="logits")
    other = s.run(features, jnp.zeros_like(s.ids), method="logits")
    np.testing.assert_array_equal(logits, other)


def forced(s, features):
    """The likeliest indices, found with one whole pass of the head a channel."""
    ids = jnp.zeros_like(s.ids)
    for m in range(s.tokens.num_channels):
        logits = s.run(features, ids, method="logits")
        ids = ids.at[..., m].set(jnp.argmax(logits[..., m, :], axis=-1))
    logits = jax.nn.log_softmax(s.run(features, ids, method="logits"))
    return ids, jnp.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]


@every_mode
@pytest.mark.parametrize("tokens", ["shared", "dual"])
def test_a_greedy_draw_is_what_teacher_forcing_finds(setup, greedy, mode, tokens):
    s = setup("masked", tokens, channels=CHANNELS[mode])
    features = s.features()
    ids, log_p = s.run(features[None], choose=greedy, method="draw")
    expected, expected_log_p = forced(s, features)
    assert ids.dtype == jnp.int32 and log_p.dtype == jnp.float32
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_allclose(log_p, expected_log_p, atol=1e-5)


@every_mode
def test_streams_share_the_draw(setup, mode):
    """Each sees the other's indices: its logits are those given what was drawn."""
    s = setup("masked", "shared", channels=CHANNELS[mode])
    streams = jnp.stack([s.features(), s.features(labels=jnp.array([3, 1]))])
    seen = []

    def choose(m, logits):
        ids = jnp.argmax(2 * logits[0] - logits[1], axis=-1)
        seen.append(logits)
        return ids, jnp.zeros(ids.shape)

    def draw(streams):
        return s.prior.apply(s.variables, streams, choose, method="draw"), seen

    (ids, _), seen = jax.jit(draw)(streams)
    for stream, features in enumerate(streams):
        expected = s.run(features, ids, method="logits")
        for m, logits in enumerate(seen):
            np.testing.assert_allclose(logits[stream], expected[:, :, m], atol=1e-4)


@every_mode
def test_codes_that_a_book_does_not_have_are_never_drawn(setup, sample, mode):
    s = setup("masked", channels=CHANNELS[mode])
    logits = np.asarray(s.run(*s.inputs))
    assert np.all(logits[:, :, 1, 6:] == -1e30) and np.all(logits[:, :, 1, :6] > -100)
    assert np.all(logits[:, :, 0] > -100)
    features = jnp.tile(s.features()[None], (1, 20, 1, 1))
    ids, log_p = s.run(features, choose=sample, method="draw")
    assert [set(np.unique(ids[..., m])) for m in (0, 1)] == [
        set(range(9)),
        set(range(6)),
    ]
    assert np.all(np.isfinite(log_p))


@every_mode
def test_bfloat16(setup, mode):
    s = setup("masked", channels=CHANNELS[mode], dtype="bfloat16")
    logits = s.run(*s.inputs)
    assert logits.dtype == jnp.float32
    assert s.features().dtype == jnp.bfloat16
    exact = setup("masked", channels=CHANNELS[mode])
    np.testing.assert_allclose(logits, exact.run(*exact.inputs), atol=0.6)
    # They are not numbers that were rounded to bfloat16 on their way.
    rounded = logits.astype(jnp.bfloat16).astype(jnp.float32)
    assert np.any(logits[:, :, 0] != rounded[:, :, 0])


@every_mode
def test_gradients_reach_all_parameters(setup, mode):
    """Of a model that computes its blocks again."""
    s = setup("masked", "shared", channels=CHANNELS[mode], remat=True)
    weights = jnp.cos(jnp.arange(2 * 6 * 3 * 9).reshape(2, 6, 3, 9))
    gradients = s.gradients(weights)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.any(np.asarray(gradient)), path


@every_mode
def test_dropout_is_for_training(setup, mode):
    s = setup("masked", channels=CHANNELS[mode], dropout=0.5)
    without = setup("masked", channels=CHANNELS[mode])
    np.testing.assert_array_equal(s.run(*s.inputs), without.run(*s.inputs))
    first, again, other = (
        s.run(*s.inputs, train=True, key=jax.random.key(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
