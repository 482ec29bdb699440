import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.sampling.keys import image_keys
from movq_jax.sampling.likelihood import nll_autoregressive, nll_masked

LABELS = jnp.asarray([0, 1, 0, 1, 1, 0, 0, 1], jnp.int32)
PICKED = np.arange(0, 256, 32)  # 8 of the states


compiled = jax.jit(nll_masked, static_argnums=0, static_argnames="samples")


def bound(module, variables, ids, labels, samples):
    keys = image_keys(0, jnp.arange(len(ids)))
    return compiled(module, variables, keys, ids, labels, samples=samples)


@pytest.mark.parametrize("mode", ["depth", "flat"])
def test_autoregressive_is_exact(mode, exact):
    joints = [exact.joint(seed) for seed in range(3)]
    module = exact.autoregressive(mode, num_classes=2)
    ids = jnp.asarray(exact.states[PICKED])
    nats, channels = nll_autoregressive(module, exact.variables(*joints), ids, LABELS)
    expected = [-np.log(joints[c][s]) for c, s in zip(LABELS, PICKED, strict=True)]
    np.testing.assert_allclose(nats, expected, rtol=1e-5)
    np.testing.assert_allclose(channels.sum(axis=-1), nats, rtol=1e-6)
    assert channels.shape == (8, 2)


def test_a_real_autoregressive_prior_by_hand(tiny, drawn_params):
    module = tiny("autoregressive", "depth", grid=(2, 3))
    rng = np.random.default_rng(0)
    ids = jnp.asarray(rng.integers(0, 11, (8, 6, 2), dtype=np.int32))
    variables = drawn_params(module, ids, LABELS)
    nll = jax.jit(nll_autoregressive, static_argnums=0)
    nats, channels = nll(module, variables, ids, LABELS)
    p = np.asarray(jax.nn.softmax(jax.jit(module.apply)(variables, ids, LABELS)))
    chosen = np.zeros((8, 2))
    for b, n, m in np.ndindex(8, 6, 2):
        chosen[b, m] -= np.log(p[b, n, m, ids[b, n, m]])
    np.testing.assert_allclose(channels, chosen, rtol=1e-5)
    np.testing.assert_allclose(nats, chosen.sum(-1), rtol=1e-5)


@pytest.mark.parametrize("mode", ["depth", "independent"])
def test_the_bound_is_tight_where_conditionals_are_exact(mode, exact):
    joint = exact.joint()
    module = exact.masked(mode)
    ids = jnp.asarray(np.repeat(exact.states[PICKED], 32, axis=0))
    labels = jnp.zeros(len(ids), jnp.int32)
    nats, channels = bound(module, exact.variables(joint), ids, labels, 64)
    np.testing.assert_allclose(channels.sum(axis=-1), nats, rtol=1e-5)
    nats = np.asarray(nats).reshape(8, 32)
    error = nats.std(axis=-1) / np.sqrt(32)
    assert (error < 0.05).all()
    assert (np.abs(nats.mean(axis=-1) + np.log(joint[PICKED])) < 4 * error + 1e-4).all()


def test_the_bound_is_above_the_truth_where_channels_are_apart(exact):
    joint = exact.joint()
    rng = np.random.default_rng(0)
    states = rng.choice(256, 512, p=joint)
    ids, labels = jnp.asarray(exact.states[states]), jnp.zeros(512, jnp.int32)
    truth = -np.log(joint[states]).mean()
    apart, _ = bound(exact.masked("parallel"), exact.variables(joint), ids, labels, 16)
    together, _ = bound(exact.masked("depth"), exact.variables(joint), ids, labels, 16)
    assert float(apart.mean()) > truth + 0.1
    assert abs(float(together.mean()) - truth) < 0.05


@pytest.mark.parametrize("mode", ["depth", "independent"])
def test_with_a_sample_a_unit_each_count_comes_once(mode, tiny, drawn_params):
    """All logits zero: every index costs log K, and so does every sample."""
    module = tiny("masked", mode, grid=(2, 3), sizes=(11, 11))
    ids = jnp.zeros((8, 6, 2), jnp.int32)
    variables = drawn_params(module, ids, ids == 0, LABELS, ids)
    variables = jax.tree.map(jnp.zeros_like, variables)
    units = 6 if module.whole_positions else 12
    nats, channels = bound(module, variables, ids, LABELS, units)
    np.testing.assert_allclose(nats, 12 * np.log(11), rtol=1e-5)
    if mode == "depth":
        np.testing.assert_allclose(channels, 6 * np.log(11), rtol=1e-5)


def test_an_image_does_not_depend_on_its_neighbours(tiny, drawn_params):
    module = tiny("masked", "depth", grid=(2, 3))
    rng = np.random.default_rng(0)
    ids = jnp.asarray(rng.integers(0, 11, (4, 6, 2), dtype=np.int32))
    variables = drawn_params(module, ids, ids > 0, LABELS[:4], ids)
    keys = image_keys(0, jnp.arange(4))
    at = jnp.asarray([2, 2, 0, 1])
    nats, _ = compiled(module, variables, keys, ids, LABELS[:4], samples=3)
    other, _ = compiled(module, variables, keys[at], ids[at], LABELS[:4][at], samples=3)
    np.testing.assert_array_equal(other, nats[at])
    assert np.unique(nats).size == 4


def test_wrong_inputs(exact):
    module = exact.masked("depth")
    ids = jnp.zeros((2, 4, 2), jnp.int32)
    keys, labels = image_keys(0, jnp.arange(2)), jnp.zeros(2, jnp.int32)
    with pytest.raises(UserError, match="samples is 0; the bound needs 1"):
        nll_masked(module, {}, keys, ids, labels, samples=0)
    with pytest.raises(UserError, match="ids has the shape"):
        nll_masked(module, {}, keys, ids[:, :3], labels, samples=1)
    with pytest.raises(UserError, match="ids has the shape"):
        nll_autoregressive(module, {}, ids[..., :1], labels)
