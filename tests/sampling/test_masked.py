import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.flops import count_flops
from movq_jax.sampling.keys import fold, gumbel, image_keys, purpose_keys
from movq_jax.sampling.masked import decode_masked
from movq_jax.sampling.options import SampleOptions
from movq_jax.sampling.plan import masked_plan
from movq_jax.sampling.schedules import remaining

MODES = ["depth", "independent", "parallel"]
KEYS = image_keys(7, jnp.arange(4))
LABELS = jnp.asarray([0, 2, 1, 0], jnp.int32)


def inputs(module, share=0.3, seed=0):
    """Random ids [4, N, M], and which of them are known."""
    tokens = module.tokens
    rng = np.random.default_rng(seed)
    shape = (4, tokens.num_positions, tokens.num_channels)
    ids = rng.integers(0, min(tokens.codebook_sizes), shape, dtype=np.int32)
    return jnp.asarray(ids), jnp.asarray(rng.random(shape) < share)


@pytest.fixture
def params(drawn_params):
    """Makes variables of a module."""

    def make(module):
        ids, known = inputs(module)
        return drawn_params(module, ids, known, LABELS, ids)

    return make


@functools.cache
def make_apply(module):
    return jax.jit(module.apply)


@functools.cache
def make_decode(module, trace=False):
    """A compiled decoder of (variables, keys, ids, known, labels, options)."""

    @jax.jit
    def compiled(*args):
        return decode_masked(module, *args, trace=trace)

    return lambda *args: compiled(*args[:-1], masked_plan(module, args[-1]))


def published(module, variables, keys, ids, known, labels, *, steps, choice):
    """MaskGIT's loop in NumPy, on the same random numbers; one channel, or several.

    Returns the ids, and what each step drew.
    """
    apply = make_apply(module)
    whole = module.whole_positions
    ids, known = np.where(known, ids, 0), np.array(known)
    if whole:
        known[:] = known.all(axis=-1, keepdims=True)
    units = known[..., 0] if whole else known.reshape(len(known), -1)
    start = (~units).sum(axis=-1)
    drawn_by_step = []
    for k in range(steps):
        t = (k + 1) / steps
        token_keys = purpose_keys(keys, "token", k)
        drawn, log_p = ids.copy(), np.zeros(ids.shape)
        for m in range(ids.shape[-1]):
            logits = np.asarray(apply(variables, ids, known, labels, drawn))[:, :, m]
            noise = np.asarray(gumbel(fold(token_keys, m), logits.shape[1:]))
            token = np.argmax(logits + noise, axis=-1)
            drawn[..., m] = np.where(known[..., m], ids[..., m], token)
            p = np.exp(logits - logits.max(-1, keepdims=True))
            p = p / p.sum(-1, keepdims=True)
            log_p[..., m] = np.log(np.take_along_axis(p, token[..., None], -1)[..., 0])
        drawn_by_step.append(drawn)
        if k == steps - 1:
            return drawn, drawn_by_step
        confidence = log_p.mean(-1) if whole else log_p.reshape(len(ids), -1)
        noise = gumbel(purpose_keys(keys, "choice", k), units.shape[1:])
        score = np.where(units, np.inf, confidence + choice * (1 - t) * noise)
        ratio = np.clip(np.cos(np.pi / 2 * t), 1e-6, 1)
        for b, n0 in enumerate(start):
            unknown = (~units[b]).sum()
            count = max(1, min(unknown - 1, int(np.floor(ratio * n0))))
            units[b] = True
            units[b, np.argsort(score[b])[:count]] = False
        known = np.broadcast_to(units.reshape(*ids.shape[:2], -1), ids.shape)
        ids = np.where(known, drawn, 0)


@pytest.mark.parametrize(
    ("mode", "sizes"),
    [("parallel", (11,)), ("parallel", (11, 11)), ("independent", (7,) * 3)]
    + [("depth", (11, 11))],
)
def test_it_is_maskgits_loop(mode, sizes, tiny, params):
    module = tiny("masked", mode, sizes=sizes)
    variables = params(module)
    ids, known = inputs(module)
    if module.whole_positions:
        known = jnp.broadcast_to(known[..., :1], known.shape)
    arguments = (variables, KEYS, ids, known, LABELS)
    options = SampleOptions(steps=5, choice_temperature=2.0)
    result, trace = make_decode(module, trace=True)(*arguments, options)
    expected, steps = published(module, *arguments, steps=5, choice=2.0)
    np.testing.assert_array_equal(trace.ids, steps)
    np.testing.assert_array_equal(result, expected)
    assert len(np.unique(expected[~np.asarray(known)])) > 3


@pytest.mark.parametrize(
    ("mode", "order"),
    [("depth", "confidence"), ("independent", "random"), ("parallel", "halton")],
)
def test_known_tokens_stay(mode, order, tiny, params):
    module = tiny("masked", mode)
    variables = params(module)
    fields = {"roll": True} if order == "halton" else {}
    options = SampleOptions(steps=4, order={"name": order, **fields})
    decode = make_decode(module, trace=True)
    for share in (0.0, 0.4, 1.0):
        ids, known = inputs(module, share)
        # What is not known may be anything.
        wild = jnp.where(known, ids, -7)
        result, trace = decode(variables, KEYS, wild, known, LABELS, options)
        np.testing.assert_array_equal(result[known], ids[known])
        assert result.dtype == jnp.int32
        assert (result >= 0).all() and (result < 11).all()
        np.testing.assert_array_equal(result, trace.ids[-1])
        for k in range(4):
            np.testing.assert_array_equal(trace.ids[k][known], ids[known])
            assert trace.known[k][known].all()
        for before, after, drawn in zip(
            trace.known[:-1], trace.known[1:], trace.ids, strict=False
        ):
            assert after[before].all()
            np.testing.assert_array_equal(result[before], drawn[before])
        assert trace.known[-1].all()
        if share == 1:
            np.testing.assert_array_equal(result, ids)
        if share == 0:
            units = np.asarray(trace.known).reshape(4, 4, -1).sum(-1)
            scale = 2 if module.whole_positions else 1
            left = remaining({"name": "cosine"}, 4, 32 // scale)[:, -1]
            np.testing.assert_array_equal(units, 32 - scale * left[:, None] + 0 * units)


@pytest.mark.parametrize(
    ("mode", "order"),
    [("depth", "confidence"), ("independent", "random"), ("parallel", "halton")],
)
def test_an_image_does_not_depend_on_its_neighbours(mode, order, tiny, params):
    module = tiny("masked", mode)
    variables = params(module)
    fields = {"roll": True} if order == "halton" else {}
    options = SampleOptions(steps=4, order={"name": order, **fields}, guidance=1.0)
    decode = make_decode(module)
    ids, known = inputs(module)
    known = known.at[2].set(True)
    result = decode(variables, KEYS, ids, known, LABELS, options)
    for places in ([3, 1, 0, 2], [1, 1, 1, 1], [0, 2, 2, 3]):
        at = jnp.asarray(places)
        other = decode(variables, KEYS[at], ids[at], known[at], LABELS[at], options)
        np.testing.assert_array_equal(other, result[at])
    other = decode(variables, image_keys(8, jnp.arange(4)), ids, known, LABELS, options)
    assert (other != result)[~known].mean() > 0.1


def test_keys_are_of_the_seed_and_the_number():
    keys = jax.random.key_data(KEYS)
    again = jax.random.key_data(image_keys(7, jnp.asarray([3, 0])))
    np.testing.assert_array_equal(again, keys[jnp.asarray([3, 0])])
    assert len(np.unique(keys, axis=0)) == 4


def test_it_is_compiled_once_for_all_numbers(exact):
    module = exact.masked("depth", num_classes=1)
    variables = exact.variables(exact.joint(0), exact.joint(1))
    labels = jnp.zeros(4, jnp.int32)
    ids, known = inputs(module)
    traced = []

    @jax.jit
    def decode(*args):
        traced.append(1)
        return decode_masked(module, *args)

    def count(**fields):
        plan = masked_plan(module, SampleOptions(steps=3, **fields))
        decode(variables, KEYS, ids, known, labels, plan)
        return len(traced)

    assert count() == 1
    assert count(temperature=0.0, choice_temperature=9.0) == 1
    assert count(schedule={"name": "power", "exponent": 3.0}) == 1
    assert count(guidance=1.0) == 2
    assert count(guidance=2.5, guidance_schedule={"name": "linear"}) == 2
    assert count(top_p=0.9, top_k=(3, 0)) == 3
    assert count(top_p=(0.5, 1.0), top_k=7, temperature=(1.0, 0.3)) == 3
    assert count(order={"name": "random"}) == 4


def test_guidance_zero_is_the_path_without_it_and_else_it_is_the_formula(exact):
    module = exact.masked("depth", num_classes=2)
    joints = [exact.joint(seed) for seed in (1, 2, 3)]
    variables = exact.variables(*joints)
    ids = jnp.zeros((4, 4, 2), jnp.int32)
    known = jnp.zeros(ids.shape, bool)
    labels = jnp.asarray([0, 1, 0, 1], jnp.int32)
    arguments = (variables, KEYS, ids, known, labels)
    plan = masked_plan(module, SampleOptions(guidance=0.0))
    assert plan.streams == 1
    free = decode_masked(module, *arguments, SampleOptions(steps=4))
    # Two streams and w = 0 is the first alone.
    plan = masked_plan(module, SampleOptions(steps=4, guidance=1.0))
    nothing = plan.replace(guidance=jnp.zeros(4))
    np.testing.assert_array_equal(free, decode_masked(module, *arguments, nothing))
    # The class's joint as both: no guidance, whatever w is.
    same = exact.variables(joints[0], joints[0], joints[0])
    result = decode_masked(module, same, *arguments[1:], plan)
    alone = decode_masked(module, same, *arguments[1:], SampleOptions(steps=4))
    np.testing.assert_array_equal(result, alone)


def test_guidance_draws_the_sharpened_distribution(exact):
    """One unknown index: p ** (1 + w) / q ** w, normalised."""
    joints = [exact.joint(seed) for seed in (1, 3)]
    module = exact.masked("independent", num_classes=1)
    batch, w = 4000, 1.5
    ids = jnp.zeros((batch, 4, 2), jnp.int32)
    known = jnp.ones(ids.shape, bool).at[:, 0, 0].set(False)
    plan = SampleOptions(steps=1, guidance=w)
    keys = image_keys(0, jnp.arange(batch))
    labels = jnp.zeros(batch, jnp.int32)
    drawn = decode_masked(
        module, exact.variables(*joints), keys, ids, known, labels, plan
    )
    rest = (exact.states.reshape(256, -1)[:, 1:] == 0).all(axis=-1)
    p, q = (np.asarray(joint)[rest] for joint in joints)
    p, q = p / p.sum(), q / q.sum()
    sharp = p ** (1 + w) / q**w
    sharp /= sharp.sum()
    share = float(np.mean(drawn[:, 0, 0]))
    assert abs(sharp[1] - p[1]) > 0.05
    assert abs(share - sharp[1]) < 0.03


@pytest.mark.parametrize("mode", MODES)
def test_temperature_zero_takes_the_likeliest(mode, tiny, params):
    module = tiny("masked", mode)
    variables = params(module)
    ids, known = inputs(module, 0.0)
    greedy = SampleOptions(steps=1, temperature=0.0)
    decode = make_decode(module)
    result = decode(variables, KEYS, ids, known, LABELS, greedy)
    logits = make_apply(module)(variables, ids, known, LABELS, result)
    np.testing.assert_array_equal(result, jnp.argmax(logits, axis=-1))
    others = image_keys(99, jnp.arange(4))
    again = decode(variables, others, ids, known, LABELS, greedy)
    np.testing.assert_array_equal(result, again)
    # So do top-k 1, a tiny top-p, and a tiny temperature, within rounding.
    for fields in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-30}):
        options = SampleOptions(steps=1, **fields)
        other = decode(variables, KEYS, ids, known, LABELS, options)
        assert (other == result).mean() > 0.98


def test_a_channel_has_its_own_temperature_and_codes(tiny, params):
    module = tiny("masked", "parallel")
    variables = params(module)
    ids, known = inputs(module, 0.0)
    decode = make_decode(module)
    options = SampleOptions(steps=1, temperature=(0.0, 1.0))
    greedy = decode(
        variables, KEYS, ids, known, LABELS, SampleOptions(steps=1, temperature=0.0)
    )
    free = decode(variables, KEYS, ids, known, LABELS, SampleOptions(steps=1))
    result = decode(variables, KEYS, ids, known, LABELS, options)
    np.testing.assert_array_equal(result[..., 0], greedy[..., 0])
    np.testing.assert_array_equal(result[..., 1], free[..., 1])
    assert (greedy != free).any()


@pytest.mark.parametrize("mode", MODES)
def test_twelve_steps_cost_as_much_as_twelve_passes(mode, tiny):
    module = tiny("masked", mode, grid=(8, 8), sizes=(64,) * 4)
    ids = jax.ShapeDtypeStruct((2, 64, 4), jnp.int32)
    known = jax.ShapeDtypeStruct(ids.shape, bool)
    labels = jax.ShapeDtypeStruct((2,), jnp.int32)
    variables = jax.eval_shape(module.init, KEYS[0], ids, known, labels, ids)
    options = SampleOptions(steps=12)

    def decode(*args):
        return decode_masked(module, args[0], KEYS[:2], *args[1:], options)

    arguments = variables, ids, known, labels
    forward = count_flops(module.apply, *arguments, ids)
    assert 11.9 * forward < count_flops(decode, *arguments) <= 12 * 1.15 * forward


def test_wrong_inputs(tiny):
    module = tiny("masked", "depth")
    ids, known = inputs(module)
    good = {"keys": KEYS, "ids": ids, "known": known, "labels": LABELS}

    def decode(module=module, options=None, **wrong):
        arguments = (good | wrong).values()
        decode_masked(module, {}, *arguments, options or SampleOptions())

    with pytest.raises(UserError, match=r"ids has the shape \(4, 15, 2\); .* 16, 2\)"):
        decode(ids=ids[:, :15])
    with pytest.raises(UserError, match=r"known has the shape \(4, 16, 1\)"):
        decode(known=known[..., :1])
    with pytest.raises(UserError, match="known is int32; give bool"):
        decode(known=ids)
    with pytest.raises(UserError, match=r"keys has the shape \(3,\)"):
        decode(keys=KEYS[:3])
    with pytest.raises(UserError, match="for 3 labels"):
        decode(labels=LABELS[:3])
    with pytest.raises(UserError, match="temperature has 3 values"):
        decode(options=SampleOptions(temperature=(1.0, 1.0, 1.0)))
    with pytest.raises(UserError, match="the prior has no classes to be guided by"):
        unconditional = tiny("masked", "depth", num_classes=0)
        decode(unconditional, SampleOptions(guidance=1.0))
