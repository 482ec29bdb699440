import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.models.features.distances import unit_distance, unit_normalize


def draw(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(scale * rng.uniform(0, 1, (2, 3, 4, 5)), jnp.float32)


def test_norms_are_one():
    norms = np.linalg.norm(unit_normalize(draw()), axis=-1)
    np.testing.assert_allclose(norms, 1, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e4])
def test_the_published_epsilon_makes_no_difference(scale):
    f = np.asarray(draw(scale=scale), np.float64)
    published = f / (np.linalg.norm(f, axis=-1, keepdims=True) + 1e-10)
    ours = unit_normalize(jnp.asarray(f, jnp.float32))
    np.testing.assert_allclose(ours, published, rtol=3e-7)


def test_lengths_where_the_epsilon_counts():
    f = jnp.full((1, 1, 1, 1), 1e-10)
    np.testing.assert_allclose(unit_normalize(f), 0.5**0.5, rtol=1e-6)
    assert unit_normalize(jnp.zeros((1, 1, 1, 3))).max() == 0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("value", [0.0, 1e-30, 1e-20, 1e-10, 1e-5])
def test_the_gradient_is_finite_everywhere(value, dtype):
    f = jnp.full((2, 3, 4, 5), value, dtype)
    for other in (f, draw().astype(dtype)):
        gradient = jax.grad(lambda f, g: unit_distance(f, g).sum())(f, other)
        assert np.all(np.isfinite(gradient)) and gradient.dtype == dtype


def test_sums_over_channels_and_means_over_positions():
    fx, fy = np.zeros((2, 1, 2, 3), np.float32), np.zeros((2, 1, 2, 3), np.float32)
    fx[..., 0], fy[..., 0] = 3.0, 5.0  # the same direction
    fy[1, 0, 1] = [0.0, 2.0, 0.0]  # another, at one position of the second image
    fx, fy = jnp.asarray(fx), jnp.asarray(fy)
    np.testing.assert_allclose(unit_distance(fx, fy), [0, 1], atol=1e-6)
    weights = jnp.asarray([10.0, 1.0, 100.0])
    np.testing.assert_allclose(unit_distance(fx, fy, weights), [0, 5.5], rtol=1e-6)


def test_float32_also_of_bfloat16_maps():
    fx, fy = draw(0).astype(jnp.bfloat16), draw(1).astype(jnp.bfloat16)
    distance = unit_distance(fx, fy)
    assert distance.dtype == jnp.float32 and distance.shape == (2,)
    exact = unit_distance(fx.astype(jnp.float32), fy.astype(jnp.float32))
    np.testing.assert_array_equal(distance, exact)
