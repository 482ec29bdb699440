import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.models.discriminators import PatchDiscriminator, StyleGANDiscriminator
from movq_jax.training import regularizers, sharding


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, shape), jnp.float32)


@pytest.fixture
def patch(fill):
    """A discriminator without norm, and its parameters."""
    module = PatchDiscriminator(width=4, layers=1, norm="none")
    return module, fill(module, draw(1, 8, 8, 3))


def test_r1_of_a_linear_discriminator_is_known():
    # logits [B, 2]: their sum has gradient w + v for each image.
    w, v = draw(8, 8, 3, seed=1), draw(8, 8, 3, seed=2)

    def logits_of(x):
        return jnp.einsum("bhwc,hwcn->bn", x, jnp.stack([w, v], axis=-1))

    penalty = regularizers.r1_penalty(logits_of, draw(4, 8, 8, 3))
    np.testing.assert_allclose(penalty, jnp.sum(jnp.square(w + v)), rtol=1e-5)


@pytest.mark.parametrize("norm", ["none", "group"])
def test_r1_and_its_gradient_are_those_of_each_image_alone(fill, norm):
    module = PatchDiscriminator(width=4, layers=1, norm=norm)
    x = draw(4, 8, 8, 3)
    params = fill(module, x)

    def by_image(params):
        def summed(image):
            return jnp.sum(module.apply({"params": params}, image[None]))

        gradients = jax.vmap(jax.grad(summed))(x)
        return jnp.mean(jnp.sum(jnp.square(gradients).reshape(4, -1), axis=1))

    def by_batch(params):
        return regularizers.r1_penalty(lambda x: module.apply({"params": params}, x), x)

    (expected, expected_grads), (value, grads) = (
        jax.jit(jax.value_and_grad(f))(params) for f in (by_image, by_batch)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        grads,
        expected_grads,
    )


def test_r1_is_the_same_on_one_device_and_on_eight(patch):
    module, params = patch
    x = jnp.arange(1.0, 9.0).reshape(8, 1, 1, 1) * draw(8, 8, 8, 3)

    def penalty(params, x):
        return regularizers.r1_penalty(lambda x: module.apply({"params": params}, x), x)

    penalty = jax.jit(jax.value_and_grad(penalty))
    mesh = sharding.make_mesh()
    one = penalty(params, x)
    eight = penalty(
        jax.device_put(params, sharding.replicated(mesh)),
        jax.device_put(x, sharding.batch_sharding(mesh)),
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), one, eight
    )


def test_r1_goes_twice_through_the_blur(fill):
    module = StyleGANDiscriminator(width=2, max_width=4)
    x = draw(2, 8, 8, 3)
    params = fill(module, x)

    def penalty(params):
        return regularizers.r1_penalty(lambda x: module.apply({"params": params}, x), x)

    value, grads = jax.jit(jax.value_and_grad(penalty))(params)
    assert value > 0
    assert np.any(grads["conv_in"]["kernel"])
    # LeakyReLU is linear near any point: so the penalty is of second order in a scale.
    twice = params | {"dense_out": jax.tree.map(lambda a: 2 * a, params["dense_out"])}
    np.testing.assert_allclose(jax.jit(penalty)(twice), 4 * value, rtol=1e-4)
    inner = jnp.vdot(grads["dense_out"]["kernel"], params["dense_out"]["kernel"])
    np.testing.assert_allclose(inner, 2 * value, rtol=1e-4)  # Euler's theorem


def test_lecam_pulls_towards_the_other_kinds_average():
    ema = {"real": jnp.float32(0.5), "fake": jnp.float32(-1.0)}
    real, fake = jnp.float32(2.0), jnp.float32(-0.5)
    # real - ema of fake = 3, ema of real - fake = 1
    assert regularizers.lecam_penalty(real, fake, ema) == 9.0 + 1.0
    # On the right side of both: nothing.
    assert regularizers.lecam_penalty(jnp.float32(-2.0), jnp.float32(1.0), ema) == 0.0
    by_ema = jax.grad(regularizers.lecam_penalty, argnums=2)(real, fake, ema)
    assert by_ema == {"real": 0.0, "fake": 0.0}


def test_lecams_averages_start_at_zero_and_follow_the_means():
    ema = regularizers.lecam_start()
    assert ema == {"real": 0.0, "fake": 0.0}
    for _ in range(2):
        ema = regularizers.lecam_update(ema, jnp.float32(1.0), jnp.float32(-2.0), 0.9)
    np.testing.assert_allclose(ema["real"], 0.19, rtol=1e-6)
    np.testing.assert_allclose(ema["fake"], -0.38, rtol=1e-6)
    gradient = jax.grad(
        lambda mean: regularizers.lecam_update(ema, mean, mean, 0.9)["real"]
    )
    assert gradient(jnp.float32(1.0)) == 0.0
