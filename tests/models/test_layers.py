"""The layers against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.models.layers import (
    AttnBlock,
    Downsample,
    GroupNorm,
    ResBlock,
    SpatialNorm,
    Upsample,
    attend,
    group_norm,
    num_groups,
    spatial_norm,
    upsample_nearest,
)


@pytest.fixture
def fill(fill):
    """Parameters in NumPy."""
    return lambda *args: jax.tree.map(np.asarray, fill(*args))


def draw(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def conv(x, kernel, bias, stride=1):
    """[B, H, W, C] -> [B, H', W', D], without padding, in float64."""
    x, size = np.asarray(x, np.float64), kernel.shape[0]
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    return np.einsum("bijchw,hwcd->bijd", windows, kernel) + bias


def normalised(x, params, groups):
    """Group norm of [B, H, W, C], in float64."""
    grouped = np.asarray(x, np.float64).reshape(*x.shape[:3], groups, -1)
    mean = grouped.mean(axis=(1, 2, 4), keepdims=True)
    variance = grouped.var(axis=(1, 2, 4), keepdims=True)
    grouped = (grouped - mean) / np.sqrt(variance + 1e-6)
    return grouped.reshape(x.shape) * params["scale"] + params["bias"]


def repeated(x, factor):
    return np.asarray(x).repeat(factor, axis=1).repeat(factor, axis=2)


def swish(x):
    return x / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(32, 32), (128, 32), (512, 32), (8, 8), (48, 24), (40, 20), (1, 1), (37, 1)],
)
def test_number_of_groups(channels, groups):
    assert num_groups(channels) == groups
    assert num_groups(channels, most=4) == (4 if channels % 4 == 0 else 1)


def test_group_norm(fill):
    x = 10 + draw(2, 5, 7, 64)
    module = GroupNorm()
    params = fill(module, x)
    y = jax.jit(module.apply)({"params": params}, x)
    np.testing.assert_allclose(y, normalised(x, params["norm"], 32), atol=1e-4)


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("depth", [3, 16])
def test_spatial_norm_is_that_of_the_upsampled_map(fill, factor, depth):
    """The convolutions run before the upsampling; in the paper's order, after it."""
    z_q = draw(2, 3, 2, depth, seed=1)
    x = draw(2, 3 * factor, 2 * factor, 64)
    module = SpatialNorm()
    params = fill(module, x, z_q)
    y = jax.jit(module.apply)({"params": params}, x, z_q)
    z_q = repeated(z_q, factor)
    scale = conv(z_q, **params["conv_y"])
    shift = conv(z_q, **params["conv_b"])
    expected = normalised(x, params["norm"], 32) * scale + shift
    np.testing.assert_allclose(y, expected, atol=2e-5)


def test_spatial_norm_starts_as_group_norm():
    x, z_q = draw(2, 8, 8, 64), 1e-3 * draw(2, 4, 4, 16, seed=1)
    module = SpatialNorm(start="identity")
    variables = module.init(jax.random.key(0), x, z_q)
    plain = GroupNorm()
    expected = plain.apply(plain.init(jax.random.key(0), x), x)
    np.testing.assert_allclose(module.apply(variables, x, z_q), expected, atol=2e-3)
    assert not np.any(variables["params"]["conv_b"]["bias"])
    assert np.all(np.asarray(variables["params"]["conv_y"]["bias"]) == 1)


def test_spatial_norm_may_start_as_torch_would():
    x, z_q = draw(1, 2, 2, 256), draw(1, 2, 2, 16)
    params = SpatialNorm(start="torch").init(jax.random.key(0), x, z_q)["params"]
    for name in ("conv_y", "conv_b"):
        for values in map(np.asarray, params[name].values()):
            assert 0.2 < np.abs(values).max() <= 0.25  # 1 / sqrt(16)
            np.testing.assert_allclose(values.std(), 0.25 / np.sqrt(3), rtol=0.1)
    assert np.any(params["conv_y"]["kernel"] != params["conv_b"]["kernel"])


def test_an_unknown_start_is_refused():
    with pytest.raises(UserError, match="init is 'zeros'; use identity or torch"):
        spatial_norm(init="zeros")


def test_norms_return_the_models_dtype_and_compute_in_float32():
    x, z_q = draw(2, 4, 4, 32), draw(2, 2, 2, 8, seed=1)
    for make in (group_norm, spatial_norm):
        in_bfloat16 = make(dtype=jnp.bfloat16)(name=None)
        variables = in_bfloat16.init(jax.random.key(0), x, z_q)
        assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
        far = 100 + x.astype(jnp.bfloat16)
        y = in_bfloat16.apply(variables, far, z_q.astype(jnp.bfloat16))
        assert y.dtype == jnp.bfloat16
        expected = make()(name=None).apply(variables, far.astype(jnp.float32), z_q)
        np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=0.05)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_upsample_nearest(factor):
    x = draw(2, 3, 2, 4)
    y = upsample_nearest(x, factor)
    np.testing.assert_array_equal(y, repeated(x, factor))


@pytest.mark.parametrize("size", [(8, 8), (6, 10), (7, 9), (2, 3), (5, 4)])
def test_downsample_pads_below_and_right(fill, size):
    x = draw(2, *size, 5)
    module = Downsample()
    params = fill(module, x)
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    expected = conv(padded, **params["conv"], stride=2)
    assert expected.shape[1:3] == (size[0] // 2, size[1] // 2)
    y = jax.jit(module.apply)({"params": params}, x)
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (1, 2)])
def test_upsample(fill, size):
    x = draw(2, *size, 5)
    module = Upsample()
    params = fill(module, x)
    padded = np.pad(repeated(x, 2), ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = jax.jit(module.apply)({"params": params}, x)
    np.testing.assert_allclose(y, conv(padded, **params["conv"]), atol=1e-5)


def test_attention(fill):
    x = draw(2, 3, 5, 16)
    module = AttnBlock(norm=group_norm())
    params = fill(module, x)
    h = normalised(x, params["norm"]["norm"], 16).reshape(2, 15, 16)
    q, k, v = (h @ params[n]["kernel"] + params[n]["bias"] for n in "qkv")
    scores = np.exp(q @ k.swapaxes(1, 2) / 4)  # the root of 16 channels
    h = scores / scores.sum(-1, keepdims=True) @ v
    out = params["proj_out"]
    expected = x + (h @ out["kernel"] + out["bias"]).reshape(x.shape)
    y = jax.jit(module.apply)({"params": params}, x)
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("max_scores", [1, 100, 900, 1999])
def test_attention_in_blocks_is_that_at_once(max_scores):
    """With one query a block, a last one that is not full, and two blocks."""
    inputs = [draw(2, 45, 8, seed=seed) for seed in range(3)]
    weigh = draw(2, 45, 8, seed=3)

    def run(max_scores):
        def loss(*inputs):
            y = attend(*inputs, max_scores)
            return jnp.sum(y * weigh), y

        step = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
        (_, y), gradients = jax.jit(step)(*inputs)
        return y, *gradients

    for part, whole in zip(run(max_scores), run(45**2), strict=True):
        np.testing.assert_allclose(part, whole, atol=1e-5)


def test_attention_in_blocks_keeps_its_dtype():
    q, k, v = (draw(1, 30, 8, seed=seed, dtype=jnp.bfloat16) for seed in range(3))
    whole, parts = attend(q, k, v), attend(q, k, v, 200)
    assert whole.dtype == parts.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        *(y.astype(jnp.float32) for y in (whole, parts)), atol=2e-2
    )


@pytest.mark.parametrize(("size", "blocks"), [((64, 64), False), ((64, 65), True)])
def test_at_training_sizes_attention_is_not_in_blocks(size, blocks):
    module = AttnBlock(norm=group_norm())
    x = jax.ShapeDtypeStruct((1, *size, 8), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    assert ("scan" in str(jax.make_jaxpr(module.apply)(variables, x))) == blocks


def test_memory_of_attention_is_bounded():
    """1024x768 at f4: 49,152 positions, whose scores would take 9.7 GB at once."""
    module = AttnBlock(norm=group_norm())
    x = jax.ShapeDtypeStruct((1, 192, 256, 8), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)

    def loss(variables, x):
        return jnp.sum(jnp.square(module.apply(variables, x)))

    for function, megabytes in (module.apply, 300), (jax.grad(loss), 500):
        program = jax.jit(function).lower(variables, x).compile()
        assert program.memory_analysis().temp_size_in_bytes < megabytes * 10**6


@pytest.mark.parametrize("channels", [16, 24])
def test_residual_block(fill, channels):
    x, z_q = draw(2, 4, 6, 16), draw(2, 2, 3, 8, seed=1)
    module = ResBlock(channels, norm=spatial_norm())
    params = fill(module, x, z_q)
    norms = SpatialNorm()

    def modulated(h, name):
        return norms.apply({"params": params[name]}, jnp.asarray(h, "float32"), z_q)

    def conv3x3(h, name):
        return conv(np.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0))), **params[name])

    h = conv3x3(swish(modulated(x, "norm1")), "conv1")
    h = conv3x3(swish(modulated(h, "norm2")), "conv2")
    shortcut = x if channels == 16 else conv(x, **params["conv_shortcut"])
    assert ("conv_shortcut" in params) == (channels != 16)
    y = jax.jit(module.apply)({"params": params}, x, z_q)
    np.testing.assert_allclose(y, shortcut + h, atol=3e-5)


def test_dropout_is_for_training(fill):
    x = draw(1, 4, 4, 8)
    module = ResBlock(8, norm=group_norm(), dropout=0.5)
    variables = {"params": fill(module, x)}
    without = ResBlock(8, norm=group_norm()).apply(variables, x)
    np.testing.assert_array_equal(module.apply(variables, x), without)

    def in_training(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return module.apply(variables, x, train=True, rngs=rngs)

    np.testing.assert_array_equal(in_training(0), in_training(0))
    assert np.any(in_training(0) != in_training(1))
    assert np.any(in_training(0) != without)


@pytest.mark.parametrize("norm", [group_norm, spatial_norm])
def test_in_bfloat16_activations_are_and_parameters_are_not(fill, norm):
    dtype = jnp.bfloat16
    x, z_q = draw(1, 4, 4, 8, dtype=dtype), draw(1, 2, 2, 4, dtype=dtype)
    blocks = [
        ResBlock(8, norm=norm(dtype=dtype), dtype=dtype),
        AttnBlock(norm=norm(dtype=dtype), dtype=dtype),
    ]
    for block in blocks:
        variables = block.init(jax.random.key(0), x, z_q)
        assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
        assert block.apply(variables, x, z_q).dtype == dtype
