"""The seam: the generator's gradients through cotangents at the image.

The reconstruction is the only road from the image losses to the generator. So the
generator runs forward once; each image loss gives a cotangent at the image; and what
the adaptive weight needs, the gradients with respect to one kernel, is asked of the
pullback, where jit removes everything else as dead code. One pullback of the weighted
sum trains the generator. It is exactly VQGAN's formula (arXiv 2012.09841, eq. 7).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from movq_jax.training.losses import adaptive_weight


class AdversarialTerm(NamedTuple):
    """What the discriminator adds to the generator's loss."""

    loss: Callable[[jax.Array], jax.Array]  # reconstruction -> scalar
    weight: float
    adaptive: bool  # `weight` is a factor on `adaptive_weight`
    adaptive_max: float


class GeneratorGradients(NamedTuple):
    """One forward and one backward pass of the generator."""

    grads: Any  # like the parameters
    x_hat: jax.Array  # [B, H, W, 3]
    scalars: dict[str, jax.Array]  # losses and weights
    aux: Any  # what `generate` gave besides


def generator_gradients(
    generate: Callable[[Any], tuple[tuple[jax.Array, jax.Array], Any]],
    params: Any,
    *,
    image_loss: Callable[[jax.Array], tuple[jax.Array, dict[str, jax.Array]]],
    quantizer_weight: float,
    adversarial: AdversarialTerm | None = None,
) -> GeneratorGradients:
    """Gradients of `image_loss + w * adversarial.loss + quantizer_weight * loss_vq`.

    Args:
      generate: params -> ((x_hat, loss_vq), aux).
      params: with the decoder's last kernel at decoder/conv_out/kernel.
      image_loss: x_hat -> (scalar, its parts for the log).
    """
    (x_hat, loss_vq), pullback, aux = jax.vjp(generate, params, has_aux=True)
    ct, parts = jax.grad(image_loss, has_aux=True)(x_hat)
    scalars = {**parts, "loss_vq": loss_vq}
    if adversarial is not None:
        loss_adv, ct_adv = jax.value_and_grad(adversarial.loss)(x_hat)
        weight = _weight(adversarial, pullback, ct, ct_adv)
        ct = ct + weight * ct_adv
        scalars |= {"loss_adv": loss_adv, "adv_weight": weight}
    (grads,) = pullback((ct, jnp.full_like(loss_vq, quantizer_weight)))
    return GeneratorGradients(grads=grads, x_hat=x_hat, scalars=scalars, aux=aux)


def _weight(term: AdversarialTerm, pullback, ct_rec, ct_adv) -> jax.Array:
    """The weight of the adversarial loss, in effect."""
    if not term.adaptive:
        return jnp.asarray(term.weight, jnp.float32)

    def last(ct):
        (grads,) = pullback((ct, jnp.zeros(())))
        return grads["decoder"]["conv_out"]["kernel"]

    ratio = adaptive_weight(last(ct_rec), last(ct_adv), term.adaptive_max)
    return term.weight * ratio
