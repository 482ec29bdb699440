"""What keeps a discriminator in bounds: the R1 gradient penalty, and LeCAM."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Image = Float[Array, "B H W C"]
Scalar = Float[Array, ""]
Anchors = dict[str, Scalar]  # real, fake: averages over training of the mean logits


def r1_penalty(logits_of: Callable[[Image], Array], x: Image) -> Scalar:
    """mean over images of sum over pixels of (d sum(logits) / d x)².

    "Which training methods for GANs do actually converge?" (1801.04406), equation 9,
    without its gamma / 2, as in MaskGIT's and MAGVIT's code: their weight 10 is
    gamma 20. A map of logits is summed, not averaged.

    Where it is lazy (each k-th step, k times as strong), StyleGAN2 (1912.04958,
    appendix B) also corrects Adam for it, with c = k / (k + 1): learning rate times c,
    betas to the power c. That is left out here: at k = 16 it is c = 0.94.

    Args:
      logits_of: the discriminator, each of whose logits must depend on its own image
        alone: no batch statistics. Then one gradient of the sum over the batch has
        all images' gradients, on however many devices the batch lies.
      x: real images.
    """
    gradients = jax.grad(lambda x: jnp.sum(logits_of(x)))(x)
    return jnp.mean(jnp.sum(jnp.square(gradients), axis=(1, 2, 3)))


def lecam_start() -> Anchors:
    """The averages before the first step: 0."""
    return {"real": jnp.zeros(()), "fake": jnp.zeros(())}


def lecam_penalty(real_mean: Scalar, fake_mean: Scalar, ema: Anchors) -> Scalar:
    """relu(real - ema of fake)² + relu(ema of real - fake)².

    LeCAM (2104.03310), equations 3 and 4, in the one-sided form and on batch means, as
    in MaskBit's, TiTok's and MAGVIT's code (Open-MAGVIT2 and IBQ take each logit).

    Args:
      real_mean, fake_mean: mean logits of the batch.
      ema: from before this step's `lecam_update`, as in MaskBit; IBQ updates first.
        No gradient goes through it.
    """
    anchors = jax.lax.stop_gradient(ema)
    real_above = jax.nn.relu(real_mean - anchors["fake"])
    fake_below = jax.nn.relu(anchors["real"] - fake_mean)
    return jnp.square(real_above) + jnp.square(fake_below)


def lecam_update(
    ema: Anchors, real_mean: Scalar, fake_mean: Scalar, decay: float
) -> Anchors:
    """decay * ema + (1 - decay) * mean, for both, without gradient."""
    means = jax.lax.stop_gradient({"real": real_mean, "fake": fake_mean})
    return jax.tree.map(lambda e, m: decay * e + (1 - decay) * m, ema, means)
