import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.errors import UserError
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


def test_vanilla_and_non_saturating_losses():
    real, fake = np.array([2.0, -0.5]), np.array([-3.0, 1.0])
    of_real, of_fake = np.log1p(np.exp(-real)).mean(), np.log1p(np.exp(fake)).mean()
    vanilla = losses.ADVERSARIAL_LOSSES["vanilla"]
    non_saturating = losses.ADVERSARIAL_LOSSES["non_saturating"]
    real, fake = jnp.float32(real), jnp.float32(fake)
    np.testing.assert_allclose(
        vanilla.discriminator(real, fake), 0.5 * (of_real + of_fake), rtol=1e-6
    )
    assert vanilla.generator(fake) == 1.0
    np.testing.assert_allclose(
        non_saturating.discriminator(real, fake), of_real + of_fake, rtol=1e-6
    )
    np.testing.assert_allclose(
        non_saturating.generator(fake), np.log1p(np.exp([3.0, -1.0])).mean(), rtol=1e-6
    )


@pytest.mark.parametrize("name", losses.ADVERSARIAL_LOSSES)
def test_adversarial_losses_are_means_and_finite_for_any_logits(name):
    loss = losses.ADVERSARIAL_LOSSES[name]
    real, fake = jnp.array([[0.3, -1.2], [2.0, 0.1]]), jnp.array([[1.3, 0.0]])
    twice = jnp.concatenate([real, real])
    np.testing.assert_allclose(
        loss.discriminator(twice, fake), loss.discriminator(real, fake), rtol=1e-6
    )
    far = jnp.array([-1e4, 1e4])
    for value in (loss.discriminator(far, far), loss.generator(far)):
        assert np.isfinite(value) and value.dtype == jnp.float32
    # Each side pulls its own way: reals up, fakes down, for the generator up.
    for_real, for_fake = jax.grad(loss.discriminator, (0, 1))(jnp.zeros(2), far * 0)
    assert np.all(for_real < 0) and np.all(for_fake > 0)
    assert np.all(jax.grad(loss.generator)(fake) < 0)


def test_an_adversarial_loss_is_chosen_by_name():
    assert losses.adversarial_loss("none") is None
    assert losses.adversarial_loss("hinge") is losses.ADVERSARIAL_LOSSES["hinge"]
    words = (
        "config.loss.adversarial.name is 'hing'; did you mean 'hinge'\\? "
        "Known: hinge, non_saturating, none, vanilla"
    )
    with pytest.raises(UserError, match=words):
        losses.adversarial_loss("hing")
