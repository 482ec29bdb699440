import jax
import jax.numpy as jnp
import numpy as np

from movq_jax.training import losses


def test_reconstruction_losses_are_means():
    x, x_hat = jnp.zeros((2, 4, 4, 3)), jnp.full((2, 4, 4, 3), 0.5)
    assert losses.l1_loss(x, x_hat) == 0.5
    assert losses.l2_loss(x, x_hat) == 0.25


def test_hinge_losses():
    real, fake = jnp.array([2.0, 0.5]), jnp.array([-3.0, 1.0])
    # real: relu(1 - r) = 0, .5; fake: relu(1 + f) = 0, 2
    assert losses.hinge_discriminator_loss(real, fake) == 0.5 * (0.25 + 1.0)
    assert losses.hinge_generator_loss(fake) == 1.0


def test_the_adaptive_weight_is_the_clamped_ratio_of_norms():
    rec, adv = jnp.array([3.0, 4.0]), jnp.array([0.0, 0.5])
    weight = losses.adaptive_weight(rec, adv, 1e4)
    np.testing.assert_allclose(weight, 5.0 / (0.5 + 1e-4), rtol=1e-6)
    assert losses.adaptive_weight(rec, adv, 1.0) == 1.0
    np.testing.assert_allclose(
        losses.adaptive_weight(rec, jnp.zeros(2), 1e9), 5.0 / 1e-4, rtol=1e-6
    )


def test_the_adaptive_weight_passes_no_gradient():
    gradient = jax.grad(lambda g: losses.adaptive_weight(g, jnp.ones(2), 1e4))
    assert not np.any(gradient(jnp.ones(2)))
