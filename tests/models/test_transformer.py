"""The blocks of the priors against plain NumPy, and their cached steps."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.models.transformer import (
    Attention,
    LlamaBlock,
    PostNormBlock,
    Stack,
    init_cache,
    normal,
    rope_angles,
    rotate,
    swiglu_width,
)

B, L, D, HEADS = 2, 7, 16, 2


def draw(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def in_float64(params):
    return jax.tree.map(lambda a: np.asarray(a, np.float64), params)


def attend(x, params, causal=False, rope=None):
    """[B, L, D], in float64; `rope` turns [B, L, H, d]."""
    q, k, v = (
        np.einsum("bld,dhc->blhc", x, params[name]["kernel"])
        + params[name].get("bias", 0.0)
        for name in ("query", "key", "value")
    )
    if rope is not None:
        q, k = turn(q, *rope), turn(k, *rope)
    scores = np.einsum("blhc,bmhc->bhlm", q, k) / np.sqrt(q.shape[-1])
    if causal:
        length = x.shape[1]
        scores = np.where(np.tri(length, dtype=bool)[None, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("bhlm,bmhc->blhc", weights, v)
    out = np.einsum("blhc,hcd->bld", mixed, params["out"]["kernel"])
    return out + params["out"].get("bias", 0.0)


def turn(x, rows, columns, base=10_000):
    """Rotary positions with complex numbers: pairs as (real, imaginary)."""
    quarter = x.shape[-1] // 4
    frequencies = [base ** (-2 * j / (2 * quarter)) for j in range(quarter)]
    angles = np.concatenate(
        [np.outer(place, frequencies) for place in (rows, columns)], axis=-1
    )
    turned = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[None, :, None]
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def layer_norm(x, params):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
    return x * params["scale"] + params["bias"]


def rms_norm(x, params):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * params["scale"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def llama(x, params, rope=None):
    normed = rms_norm(x, params["attention_norm"])
    x = x + attend(normed, params["attention"], causal=True, rope=rope)
    h = rms_norm(x, params["mlp_norm"])
    gate = h @ params["gate"]["kernel"]
    hidden = gate / (1 + np.exp(-gate)) * (h @ params["up"]["kernel"])
    return x + hidden @ params["down"]["kernel"]


def post_norm(x, params):
    x = layer_norm(x + attend(x, params["attention"]), params["attention_norm"])
    first, second = params["intermediate"], params["output"]
    hidden = gelu(x @ first["kernel"] + first["bias"])
    x = x + hidden @ second["kernel"] + second["bias"]
    return layer_norm(x, params["output_norm"])


def post_norm_block(**fields):
    return PostNormBlock(**dict(width=D, heads=HEADS, mlp=24, dropout=0.0) | fields)


def llama_block(**fields):
    return LlamaBlock(**dict(width=D, heads=HEADS, dropout=0.0) | fields)


def test_post_norm_block(fill):
    x, block = draw(B, L, D), post_norm_block()
    params = fill(block, x)
    y = jax.jit(block.apply)({"params": params}, x)
    np.testing.assert_allclose(y, post_norm(*in_float64((x, params))), atol=2e-5)


@pytest.mark.parametrize("rotated", [False, True])
def test_llama_block(fill, rotated):
    x, block = draw(B, L, D), llama_block()
    places = np.array([0, 0, 0, 1, 1, 2, 2]), np.array([0, 1, 2, 0, 1, 0, 1])
    rope = rope_angles(*map(jnp.asarray, places), D // HEADS) if rotated else None
    params = fill(block, x)
    y = jax.jit(block.apply)({"params": params}, x, rope)
    expected = llama(*in_float64((x, params)), places if rotated else None)
    np.testing.assert_allclose(y, expected, atol=2e-5)


@pytest.mark.parametrize(("width", "hidden"), [(768, 2048), (1024, 2816), (16, 256)])
def test_width_of_swiglu(width, hidden):
    assert swiglu_width(width) == hidden


def test_scores_of_turned_tokens_depend_on_their_distance():
    """On the rows' distance and on that of the columns, and on each of them."""
    q, k = draw(1, 1, 1, 8), draw(1, 1, 1, 8, seed=1)

    def score(query, key):
        a, b = (
            rotate(x, rope_angles(jnp.array([row]), jnp.array([column]), 8))
            for x, (row, column) in ((q, query), (k, key))
        )
        return float(jnp.sum(a * b))

    assert np.isclose(score((3, 5), (1, 2)), score((12, 3), (10, 0)), atol=1e-5)
    assert np.isclose(score((4, 4), (4, 4)), float(jnp.sum(q * k)), atol=1e-5)
    assert not np.isclose(score((3, 5), (1, 2)), score((3, 5), (1, 3)), atol=1e-3)
    assert not np.isclose(score((3, 5), (1, 2)), score((3, 5), (0, 2)), atol=1e-3)
    assert not np.isclose(score((3, 5), (1, 2)), score((1, 2), (3, 5)), atol=1e-3)


def layers(params):
    """The parameters of each block of a stack."""
    leaves, tree = jax.tree.flatten(params["block"])
    return [tree.unflatten(own) for own in zip(*leaves, strict=True)]


@pytest.mark.parametrize("make", [post_norm_block, llama_block])
@pytest.mark.parametrize("remat", [False, True])
def test_a_stack_is_its_blocks_one_after_the_other(fill, make, remat):
    x, module = draw(B, L, D), Stack(make, depth=3, remat=remat)
    params = fill(module, x)
    expected = x
    apply = jax.jit(make().apply)
    for own in layers(params):
        expected = apply({"params": own}, expected)
    y = jax.jit(module.apply)({"params": params}, x)
    np.testing.assert_allclose(y, expected, atol=2e-5)


def test_blocks_of_a_stack_start_differently():
    x, module = draw(B, L, D), Stack(llama_block, depth=3)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    kernel = np.asarray(variables["params"]["block"]["gate"]["kernel"])
    assert kernel.shape[0] == 3 and np.any(kernel[0] != kernel[1])
    np.testing.assert_allclose(np.std(kernel), 0.02, rtol=0.05)


def test_gradients_with_remat_are_those_without(fill):
    """With the same dropout, too."""
    x, make = draw(B, L, D), partial(llama_block, dropout=0.3)
    variables = {"params": fill(Stack(make, depth=2), x)}

    def gradients(remat):
        def loss(variables):
            rngs = {"dropout": jax.random.key(1)}
            module = Stack(make, depth=2, remat=remat)
            return jnp.sum(x * module.apply(variables, x, train=True, rngs=rngs))

        return jax.tree.leaves(jax.jit(jax.grad(loss))(variables))

    for plain, again in zip(gradients(False), gradients(True), strict=True):
        np.testing.assert_allclose(again, plain, atol=1e-4)


def test_remat_keeps_less():
    x, make = jnp.zeros((4, 64, D)), partial(llama_block, dropout=0.1)
    variables = jax.eval_shape(Stack(make, depth=8).init, jax.random.key(0), x)

    def temporaries(remat):
        def loss(variables, x):
            rngs = {"dropout": jax.random.key(1)}
            module = Stack(make, depth=8, remat=remat)
            return jnp.sum(
                jnp.square(module.apply(variables, x, train=True, rngs=rngs))
            )

        program = jax.jit(jax.grad(loss)).lower(variables, x).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporaries(True) < temporaries(False) / 2


@pytest.mark.parametrize("make", [post_norm_block, llama_block])
def test_dropout_is_for_training(fill, make):
    x, module = draw(B, L, D), Stack(partial(make, dropout=0.5), depth=2)
    variables = {"params": fill(module, x)}
    without = jax.jit(Stack(make, depth=2).apply)(variables, x)
    np.testing.assert_array_equal(jax.jit(module.apply)(variables, x), without)

    @jax.jit
    def in_training(key):
        return module.apply(variables, x, train=True, rngs={"dropout": key})

    first, again, other = (in_training(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other) and np.any(first != without)


class Coins(nn.Module):
    """Shifts x by a digit, which dropout makes 0 or 2."""

    @nn.compact
    def __call__(self, x, *, train):
        return 10 * x + nn.Dropout(0.5, deterministic=not train)(jnp.ones_like(x))


def test_each_layer_has_its_own_dropout():
    rngs = {"dropout": jax.random.key(0)}
    y = Stack(Coins, depth=2).apply({}, jnp.zeros((1, 8, 8)), train=True, rngs=rngs)
    digits = np.asarray(y).astype(int)
    assert set(np.unique(digits)) == {0, 2, 20, 22}


@pytest.mark.parametrize("rotated", [False, True])
def test_cached_steps_equal_the_whole(fill, rotated):
    x, module = draw(B, L, D), Stack(llama_block, depth=3)
    places = jnp.arange(L) // 3, jnp.arange(L) % 3
    params = fill(module, x)

    def angles(index):
        return rope_angles(*(p[index] for p in places), D // HEADS) if rotated else None

    whole = jax.jit(module.apply)({"params": params}, x, angles(slice(None)))

    def step(cache, position):
        token = jax.lax.dynamic_slice_in_dim(x, position, 1, axis=1)
        args = (token, cache, position, angles(position[None]))
        y, cache = module.apply({"params": params}, *args, method="step")
        return cache, y[:, 0]

    cache = init_cache(3, B, L, HEADS, D, jnp.float32)
    _, steps = jax.jit(lambda: jax.lax.scan(step, cache, jnp.arange(L)))()
    atol = 2e-6 * np.abs(whole).max()
    np.testing.assert_allclose(steps.swapaxes(0, 1), whole, atol=atol)


def test_the_cache_is_changed_in_place():
    """Beside the cache, decoding holds what takes a fraction of it."""
    length, module = 256, Stack(llama_block, depth=4)
    x = jnp.zeros((8, 1, D))
    variables = jax.eval_shape(module.init, jax.random.key(0), x)

    def decode(variables, x):
        def step(carry, position):
            return module.apply(variables, *carry, position, method="step"), None

        cache = init_cache(4, 8, length, HEADS, D, jnp.float32)
        return jax.lax.scan(step, (x, cache), jnp.arange(length))[0][0]

    program = jax.jit(decode).lower(variables, x).compile()
    size = 2 * 4 * 8 * length * D * 4
    assert size <= program.memory_analysis().temp_size_in_bytes < 1.6 * size


@pytest.mark.parametrize("make", [post_norm_block, llama_block])
def test_in_bfloat16_activations_are_and_parameters_are_not(fill, make):
    x = draw(B, L, D, dtype=jnp.bfloat16)
    module = Stack(partial(make, dtype=jnp.bfloat16), depth=2)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    assert {a.dtype for a in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    variables = {"params": fill(module, x)}
    y = jax.jit(module.apply)(variables, x)
    assert y.dtype == jnp.bfloat16
    exact = jax.jit(Stack(make, depth=2).apply)(variables, x.astype(jnp.float32))
    np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=0.15)


def test_without_a_gpu_cudnn_is_xla(fill):
    """So that what was trained with it is of use on a CPU."""
    x = draw(B, L, D)
    make = partial(Attention, D, HEADS, bias=True, causal=True, kernel_init=normal)
    variables = {"params": fill(make(), x)}
    expected = jax.jit(make().apply)(variables, x)
    y = jax.jit(make(implementation="cudnn").apply)(variables, x)
    if jax.default_backend() == "cpu":
        np.testing.assert_array_equal(y, expected)
