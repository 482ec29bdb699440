import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.models.features.pooling import (
    average_pool_3x3_same,
    max_pool_2x2,
    max_pool_3x3,
    max_pool_3x3_ceil,
    max_pool_3x3_same,
)


def draw(height, width, dtype=np.float32):
    """Return [2, H, W, 3] of different numbers, half of them negative."""
    count = 2 * height * width * 3
    values = np.random.default_rng(0).permutation(count) - count // 2
    return jnp.asarray(values.reshape(2, height, width, 3), dtype)


def pooled(x, size, height, width):
    """Return the maxima of windows that may reach out of x."""
    windows = [
        [x[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size] for j in range(width)]
        for i in range(height)
    ]
    return np.stack([np.stack([w.max((1, 2)) for w in row], 1) for row in windows], 1)


@pytest.mark.parametrize(("height", "width"), [(2, 2), (4, 6), (5, 7), (3, 2)])
def test_2x2(height, width):
    x = draw(height, width)
    expected = pooled(np.asarray(x), 2, height // 2, width // 2)
    np.testing.assert_array_equal(max_pool_2x2(x), expected)


@pytest.mark.parametrize("side", range(2, 10))
def test_3x3_in_ceil_mode(side):
    x = draw(side, 13)
    expected = pooled(np.asarray(x), 3, int(np.ceil((side - 3) / 2)) + 1, 6)
    np.testing.assert_array_equal(max_pool_3x3_ceil(x), expected)


@pytest.mark.parametrize(("height", "width"), [(3, 3), (4, 9), (7, 6)])
def test_3x3(height, width):
    x = draw(height, width)
    expected = pooled(np.asarray(x), 3, (height - 1) // 2, (width - 1) // 2)
    np.testing.assert_array_equal(max_pool_3x3(x), expected)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (4, 3)])
def test_3x3_around_each_position(height, width):
    """What lies outside neither counts nor wins, though half of x is negative."""
    x = draw(height, width)
    largest, mean = np.empty(x.shape), np.empty(x.shape)
    for i in range(height):
        for j in range(width):
            window = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            largest[:, i, j] = window.max((1, 2))
            mean[:, i, j] = window.mean((1, 2))
    np.testing.assert_array_equal(max_pool_3x3_same(x), largest)
    np.testing.assert_allclose(average_pool_3x3_same(x), mean, rtol=1e-5, atol=1e-5)


POOLS = [max_pool_2x2, max_pool_3x3, max_pool_3x3_ceil]


@pytest.mark.parametrize("pool", [*POOLS, max_pool_3x3_same, average_pool_3x3_same])
def test_the_dtype_stays(pool):
    assert pool(draw(4, 4, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(("pool", "size"), [(max_pool_2x2, 2), (max_pool_3x3_ceil, 3)])
def test_the_gradient_is_that_of_flax_without_its_scatter(pool, size):
    x = draw(7, 9)

    def gradient(pool):
        weights = jnp.arange(2.0 * 3 * 4 * 3).reshape(2, 3, 4, 3)
        return jax.jit(jax.grad(lambda x: jnp.sum(weights * pool(x))))

    theirs = gradient(lambda x: nn.max_pool(x, (size, size), (2, 2)))
    np.testing.assert_array_equal(gradient(pool)(x), theirs(x))
    assert "select_and_scatter" in theirs.lower(x).as_text()
    assert "scatter" not in gradient(pool).lower(x).as_text()


@pytest.mark.parametrize("pool", [max_pool_2x2, max_pool_3x3_ceil])
def test_equal_elements_share_the_gradient(pool):
    gradient = jax.grad(lambda x: jnp.sum(pool(x)))(jnp.ones((1, 6, 6, 1)))
    assert np.all(gradient >= 0) and np.sum(gradient) == 9


@pytest.mark.parity
@pytest.mark.parametrize("side", [2, 3, 6, 7])
def test_torch_pools_alike(torch, side):
    x = draw(side, 9)
    nchw = torch.tensor(np.moveaxis(np.asarray(x), -1, 1))
    pool = torch.nn.functional.max_pool2d
    expected = np.moveaxis(pool(nchw, 2).numpy(), 1, -1)
    np.testing.assert_array_equal(max_pool_2x2(x), expected)
    expected = np.moveaxis(pool(nchw, 3, 2, ceil_mode=True).numpy(), 1, -1)
    np.testing.assert_array_equal(max_pool_3x3_ceil(x), expected)
    if side >= 3:
        expected = np.moveaxis(pool(nchw, 3, 2).numpy(), 1, -1)
        np.testing.assert_array_equal(max_pool_3x3(x), expected)
    expected = np.moveaxis(pool(nchw, 3, 1, padding=1).numpy(), 1, -1)
    np.testing.assert_array_equal(max_pool_3x3_same(x), expected)
    average = torch.nn.functional.avg_pool2d
    expected = average(nchw, 3, 1, padding=1, count_include_pad=False).numpy()
    expected = np.moveaxis(expected, 1, -1)
    np.testing.assert_allclose(average_pool_3x3_same(x), expected, rtol=1e-5, atol=1e-5)
