"""Image losses and GAN losses, as pure functions, each a mean over its elements."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from movq_jax import families

Image = Float[Array, "*B H W C"]
Logits = Float[Array, "..."]
Scalar = Float[Array, ""]


def l1_loss(x: Image, x_hat: Image) -> Scalar:
    """mean |x - x_hat|."""
    return jnp.mean(jnp.abs(x - x_hat))


def l2_loss(x: Image, x_hat: Image) -> Scalar:
    """mean (x - x_hat)²."""
    return jnp.mean(jnp.square(x - x_hat))


RECONSTRUCTION_LOSSES = {"l1": l1_loss, "l2": l2_loss}


def hinge_discriminator_loss(real: Logits, fake: Logits) -> Scalar:
    """½ (mean relu(1 - real) + mean relu(1 + fake)), as in VQGAN (2012.09841)."""
    return 0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake)))


def hinge_generator_loss(fake: Logits) -> Scalar:
    """-mean fake."""
    return -jnp.mean(fake)


def vanilla_discriminator_loss(real: Logits, fake: Logits) -> Scalar:
    """½ (mean softplus(-real) + mean softplus(fake)), 'vanilla' in VQGAN's code.

    Half the cross-entropy of GAN (1406.2661), equation 1, with logits.
    """
    return 0.5 * non_saturating_discriminator_loss(real, fake)


def vanilla_generator_loss(fake: Logits) -> Scalar:
    """-mean fake, as with the hinge: VQGAN's code has no other."""
    return hinge_generator_loss(fake)


def non_saturating_discriminator_loss(real: Logits, fake: Logits) -> Scalar:
    """mean softplus(-real) + mean softplus(fake): GAN (1406.2661), equation 1."""
    return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))


def non_saturating_generator_loss(fake: Logits) -> Scalar:
    """mean softplus(-fake): GAN (1406.2661), section 3, and MaskGIT (2202.04200)."""
    return jnp.mean(jax.nn.softplus(-fake))


class AdversarialLoss(NamedTuple):
    """The two halves of a GAN loss, on maps of logits: means over all of them."""

    discriminator: Callable[[Logits, Logits], Scalar]  # (real, fake)
    generator: Callable[[Logits], Scalar]  # (fake)


ADVERSARIAL_LOSSES = {
    "hinge": AdversarialLoss(hinge_discriminator_loss, hinge_generator_loss),
    "vanilla": AdversarialLoss(vanilla_discriminator_loss, vanilla_generator_loss),
    "non_saturating": AdversarialLoss(
        non_saturating_discriminator_loss, non_saturating_generator_loss
    ),
}


def adversarial_loss(name: str) -> AdversarialLoss | None:
    """The member of `ADVERSARIAL_LOSSES`, or None for 'none': no discriminator.

    Raises:
      UserError: there is none of that name.
    """
    known = {"none": None, **ADVERSARIAL_LOSSES}
    return families.member(known, name, "config.loss.adversarial")


def adaptive_weight(rec_gradient: Array, adv_gradient: Array, maximum: float) -> Scalar:
    """|rec| / (|adv| + 1e-4), at most `maximum`, without gradient.

    VQGAN (2012.09841), equation 7, with the constants of its code. The arguments are
    the gradients of the reconstruction loss and of the generator's adversarial loss
    with respect to the kernel of the decoder's last convolution, without its bias.
    VQGAN takes them from each device's batch, here they are of the global batch.
    """
    ratio = optax.tree.norm(rec_gradient) / (optax.tree.norm(adv_gradient) + 1e-4)
    return jax.lax.stop_gradient(jnp.minimum(ratio, maximum))
