import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.flops import count_flops
from movq_jax.sampling.autoregressive import decode_autoregressive
from movq_jax.sampling.keys import fold, gumbel, image_keys, purpose_keys
from movq_jax.sampling.options import SampleOptions
from movq_jax.sampling.plan import autoregressive_plan

MODES = ["depth", "flat"]
KEYS = image_keys(7, jnp.arange(4))
LABELS = jnp.asarray([0, 2, 1, 0], jnp.int32)


def inputs(module, share=0.3):
    """Random ids [4, N, M], and which of them are known."""
    rng = np.random.default_rng(0)
    shape = (4, module.tokens.num_positions, module.tokens.num_channels)
    ids = rng.integers(0, 11, shape, dtype=np.int32)
    return jnp.asarray(ids), jnp.asarray(rng.random(shape) < share)


@functools.cache
def make_apply(module):
    return jax.jit(module.apply)


@functools.cache
def make_decode(module):
    """A compiled decoder of (variables, keys, ids, known, labels, options)."""

    @jax.jit
    def compiled(*args):
        return decode_autoregressive(module, *args)

    return lambda *args: compiled(*args[:-1], autoregressive_plan(module, args[-1]))


def one_by_one(module, variables, ids, known, *, w=0.0):
    """The same in NumPy: a whole pass of the network for each index."""
    apply = make_apply(module)
    drawn = np.zeros(ids.shape, np.int32)
    flat = module.num_steps != ids.shape[1]
    for n, m in np.ndindex(*ids.shape[1:]):
        logits = np.asarray(apply(variables, drawn, LABELS))[:, n, m]
        if w:
            nothing = jnp.full_like(LABELS, module.num_classes)
            other = np.asarray(apply(variables, drawn, nothing))[:, n, m]
            logits = (1 + w) * logits - w * other
        keys = purpose_keys(KEYS, "token", n * ids.shape[2] + m if flat else n)
        noise = gumbel(fold(keys, m), (1, logits.shape[-1]))[:, 0]
        token = np.argmax(logits + noise, axis=-1)
        drawn[:, n, m] = np.where(known[:, n, m], ids[:, n, m], token)
    return drawn


@pytest.mark.parametrize("w", [0.0, 1.5])
@pytest.mark.parametrize("mode", MODES)
def test_the_cache_changes_nothing_and_known_tokens_are_forced(
    mode, w, tiny, drawn_params
):
    module = tiny("autoregressive", mode, grid=(3, 3))
    ids, known = inputs(module)
    variables = drawn_params(module, ids, LABELS)
    options = SampleOptions(guidance=w)
    wild = jnp.where(known, ids, -7)
    result = make_decode(module)(variables, KEYS, wild, known, LABELS, options)
    np.testing.assert_array_equal(result[known], ids[known])
    expected = one_by_one(module, variables, ids, known, w=w)
    np.testing.assert_array_equal(result, expected)
    assert len(np.unique(expected[~np.asarray(known)])) > 3


@pytest.mark.parametrize("mode", MODES)
def test_neighbours_seeds_and_all_known(mode, tiny, drawn_params):
    module = tiny("autoregressive", mode, grid=(3, 3))
    ids, known = inputs(module)
    variables = drawn_params(module, ids, LABELS)
    decode, options = make_decode(module), SampleOptions(top_k=9)
    result = decode(variables, KEYS, ids, known, LABELS, options)
    at = jnp.asarray([2, 0, 0, 3])
    other = decode(variables, KEYS[at], ids[at], known[at], LABELS[at], options)
    np.testing.assert_array_equal(other, result[at])
    all_known = jnp.ones_like(known)
    other = decode(variables, KEYS, ids, all_known, LABELS, options)
    np.testing.assert_array_equal(other, ids)
    others = image_keys(8, jnp.arange(4))
    other = decode(variables, others, ids, known, LABELS, options)
    assert (other != result)[~known].mean() > 0.1


@pytest.mark.parametrize("mode", MODES)
def test_temperature_zero_takes_the_likeliest(mode, tiny, drawn_params):
    module = tiny("autoregressive", mode, grid=(3, 3))
    ids, known = inputs(module, 0.0)
    variables = drawn_params(module, ids, LABELS)
    options = SampleOptions(temperature=0.0)
    result = make_decode(module)(variables, KEYS, ids, known, LABELS, options)
    logits = make_apply(module)(variables, result, LABELS)
    np.testing.assert_array_equal(result, jnp.argmax(logits, axis=-1))


def test_it_is_compiled_once_for_all_numbers(tiny, drawn_params):
    module = tiny("autoregressive", "depth", grid=(2, 2))
    ids, known = inputs(module)
    variables = drawn_params(module, ids, LABELS)
    traced = []

    @jax.jit
    def decode(*args):
        traced.append(1)
        return decode_autoregressive(module, *args)

    for temperature in (1.0, 0.0, 0.5):
        options = SampleOptions(temperature=temperature, guidance=1 + temperature)
        plan = autoregressive_plan(module, options)
        decode(variables, KEYS, ids, known, LABELS, plan)
    assert len(traced) == 1


@pytest.mark.parametrize("mode", MODES)
def test_all_steps_cost_as_much_as_one_pass(mode, tiny):
    module = tiny("autoregressive", mode, grid=(6, 6), sizes=(64,) * 4)
    ids = jax.ShapeDtypeStruct((4, 36, 4), jnp.int32)
    known = jax.ShapeDtypeStruct(ids.shape, bool)
    labels = jax.ShapeDtypeStruct((4,), jnp.int32)
    variables = jax.eval_shape(module.init, KEYS[0], ids, labels)

    def decode(*args):
        return decode_autoregressive(module, args[0], KEYS, *args[1:], SampleOptions())

    forward = count_flops(module.apply, variables, ids, labels)
    cost = count_flops(decode, variables, ids, known, labels)
    assert 0.9 * forward < cost <= 1.15 * forward


def test_wrong_inputs(tiny):
    module = tiny("autoregressive", "depth", num_classes=0)
    ids, known = inputs(module)
    with pytest.raises(UserError, match="known has the shape"):
        decode_autoregressive(
            module, {}, KEYS, ids, known[:, :3], LABELS, SampleOptions()
        )
    with pytest.raises(UserError, match="the prior has no classes to be guided by"):
        options = SampleOptions(guidance=1.0)
        decode_autoregressive(module, {}, KEYS, ids, known, LABELS, options)
