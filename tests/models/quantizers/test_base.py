import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import jaxtyped

from movq_jax.models.quantizers import base

straight_through = jaxtyped(base.straight_through, typechecker=beartype)
vq_loss = jaxtyped(base.vq_loss, typechecker=beartype)


def draw(shape=(2, 3, 3, 4)):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape, np.float32)) for _ in range(2)]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("compiled", [False, True])
def test_straight_through_has_the_codes_value(dtype, compiled):
    z, z_q = (100 * x.astype(dtype) for x in draw())
    function = jax.jit(straight_through) if compiled else straight_through
    np.testing.assert_array_equal(function(z, 1e-3 * z_q), 1e-3 * z_q)


def test_straight_through_has_gradient_one_to_the_latents_alone():
    z, z_q = draw()
    cotangent = jnp.arange(z.size, dtype=z.dtype).reshape(z.shape)
    _, pullback = jax.vjp(straight_through, z, z_q)
    to_z, to_codes = pullback(cotangent)
    np.testing.assert_array_equal(to_z, cotangent)
    assert not np.any(to_codes)


@pytest.mark.parametrize("legacy", [False, True])
def test_the_loss_and_where_beta_stands(legacy):
    z, z_q = draw()
    error = np.mean(np.square(np.asarray(z, np.float64) - np.asarray(z_q)))

    def loss(z, z_q, beta):
        return vq_loss(z, z_q, beta=beta, legacy=legacy)

    value = loss(z, z_q, 0.25)
    assert value.shape == () and value.dtype == jnp.float32
    np.testing.assert_allclose(value, 1.25 * error, rtol=1e-5)

    to_z, to_codes = jax.grad(loss, argnums=(0, 1))(z, z_q, 0.25)
    of_the_mean = 2 * (z - z_q) / z.size
    of_commitment, of_codebook = (1.0, 0.25) if legacy else (0.25, 1.0)
    np.testing.assert_allclose(to_z, of_commitment * of_the_mean, rtol=1e-5)
    np.testing.assert_allclose(to_codes, -of_codebook * of_the_mean, rtol=1e-5)


def test_without_beta_one_side_learns_nothing():
    z, z_q = draw()
    for legacy, still in ((False, 0), (True, 1)):
        gradients = jax.grad(base.vq_loss, argnums=(0, 1))
        both = gradients(z, z_q, beta=0.0, legacy=legacy)
        assert not np.any(both[still]) and np.all(both[1 - still])


def test_the_rotation_trick_is_the_papers_rotation():
    """Value exact; the Jacobian is |q|/|z| R, with R a rotation that takes z to q."""
    rng = np.random.default_rng(0)
    z, z_q = (jnp.asarray(rng.standard_normal((5, 4)), jnp.float32) for _ in range(2))
    np.testing.assert_array_equal(base.rotate(z, z_q), z_q)
    jacobian = jax.vmap(jax.jacobian(base.rotate))(z, z_q)
    lengths = np.linalg.norm(z_q, axis=-1) / np.linalg.norm(z, axis=-1)
    turned = np.einsum("nij,nj->ni", jacobian, z)
    np.testing.assert_allclose(turned, z_q, rtol=1e-4, atol=1e-5)
    for matrix, scale in zip(np.asarray(jacobian), lengths, strict=True):
        rotation = matrix / scale
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(4), atol=1e-5)
        np.testing.assert_allclose(np.linalg.det(rotation), 1, rtol=1e-4)
    to_codes = jax.jacobian(base.rotate, argnums=1)(z[0], z_q[0])
    assert not np.any(to_codes)


@pytest.mark.parametrize(
    ("z", "z_q"), [([0.0, 0], [1.0, 0]), ([1.0, 0], [0.0, 0]), ([1.0, 2], [-2.0, -4])]
)
def test_where_there_is_no_rotation_gradients_go_straight_through(z, z_q):
    z, z_q = jnp.asarray(z), jnp.asarray(z_q)
    np.testing.assert_array_equal(base.rotate(z, z_q), z_q)
    np.testing.assert_array_equal(jax.jacobian(base.rotate)(z, z_q), np.eye(2))


def test_normalised_has_length_one_and_finite_gradients():
    x = jnp.asarray([[3.0, 4.0], [0.0, 0.0], [1e-20, 0.0]])
    y = base.normalised(x)
    np.testing.assert_allclose(y[0], [0.6, 0.8], rtol=1e-6)
    assert np.all(np.isfinite(jax.jacobian(base.normalised)(x)))


def test_the_error_is_that_of_each_image():
    z, z_q = draw()
    expected = np.mean(np.square(np.asarray(z - z_q)), axis=(1, 2, 3))
    np.testing.assert_allclose(base.error_per_image(z, z_q), expected, rtol=1e-5)
