"""What is drawn from exact conditionals is the joint, where it can be."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from movq_jax.sampling.autoregressive import decode_autoregressive
from movq_jax.sampling.keys import image_keys
from movq_jax.sampling.masked import decode_masked
from movq_jax.sampling.options import SampleOptions

SAMPLES, BATCH = 20_000, 4000


def frequencies(exact, decode, module, options, samples=SAMPLES):
    """How often each state is drawn."""
    variables = exact.variables(exact.joint())
    ids = jnp.zeros((BATCH, 4, 2), jnp.int32)
    labels = jnp.zeros(BATCH, jnp.int32)

    @jax.jit
    def draw(first):
        keys = image_keys(0, first + jnp.arange(BATCH))
        known = jnp.zeros(ids.shape, bool)
        return decode(module, variables, keys, ids, known, labels, options)

    firsts = range(0, samples, BATCH)
    drawn = np.concatenate([draw(first) for first in firsts])
    return np.bincount(exact.codes_of(drawn), minlength=256)


def one_by_one(units):
    """Options that reveal a unit a step, in random order."""
    return SampleOptions(
        steps=units, schedule={"name": "linear"}, order={"name": "random"}
    )


def p_value(counts, p):
    expected = counts.sum() * p / p.sum()
    assert expected.min() >= 3  # all but a few are above 5, as the test asks for
    return scipy.stats.chisquare(counts, expected).pvalue


def distance(p, q):
    """Total variation."""
    return np.abs(p - q).sum() / 2


@pytest.mark.parametrize(("mode", "units"), [("depth", 4), ("independent", 8)])
def test_masked_decoding_draws_the_joint(mode, units, exact):
    module = exact.masked(mode)
    counts = frequencies(exact, decode_masked, module, one_by_one(units))
    assert p_value(counts, exact.joint()) > 0.01


@pytest.mark.parametrize("mode", ["depth", "flat"])
def test_autoregressive_decoding_draws_the_joint(mode, exact):
    module = exact.autoregressive(mode)
    counts = frequencies(exact, decode_autoregressive, module, SampleOptions())
    assert p_value(counts, exact.joint()) > 0.01


def test_parallel_channels_miss_the_joint_and_are_their_own_product(exact):
    module = exact.masked("parallel")
    counts = frequencies(exact, decode_masked, module, one_by_one(4))
    assert p_value(counts, exact.joint()) < 1e-6
    product = products_of_channels(exact.states, exact.joint())
    np.testing.assert_allclose(product.sum(), 1)
    assert p_value(counts, product) > 0.01
    assert distance(product, exact.joint()) > 0.1


def products_of_channels(states, p):
    """The mean over orders of prod over positions of prod over channels."""
    total = np.zeros(len(states))
    for order in itertools.permutations(range(4)):
        for s, state in enumerate(states):
            product, fits = 1.0, np.ones(len(states), bool)
            for n in order:
                weights = p * fits
                for m in range(2):
                    same = states[:, n, m] == state[n, m]
                    product *= weights[same].sum() / weights.sum()
                fits = fits & (states[:, n] == state[n]).all(axis=-1)
            total[s] += product / 24
    return total


def test_the_order_of_confidence_is_biased(exact):
    options = SampleOptions(
        steps=4, schedule={"name": "linear"}, choice_temperature=0.0
    )
    module = exact.masked("depth")
    counts = frequencies(exact, decode_masked, module, options, BATCH)
    p = exact.joint()
    # A fair draw of as many has about sqrt(256 / BATCH / 2 / pi) = 0.1.
    fair = np.random.default_rng(0).multinomial(BATCH, p) / BATCH
    assert distance(counts / BATCH, p) > 1.5 * distance(fair, p)
