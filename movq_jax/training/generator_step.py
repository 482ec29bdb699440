"""The generator's half of a step: its gradients from a batch of images."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from movq_jax import families
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.randomness import named_key
from movq_jax.training.discriminator_step import adversarial_term
from movq_jax.training.losses import RECONSTRUCTION_LOSSES
from movq_jax.training.perceptual import make_perceptual
from movq_jax.training.seam import generator_gradients
from movq_jax.training.state import TrainState


class GeneratorStep(NamedTuple):
    """What the discriminator, the optimizer and the log need of it."""

    grads: Any  # like the parameters
    x_hat: jax.Array  # [B, H, W, 3]
    ids: jax.Array  # [B, h, w, M]
    z: jax.Array  # [B, h, w, D], what was quantised
    variables: Any  # collections of the generator that are not parameters
    scalars: dict[str, jax.Array]  # losses, which must be finite
    stats: dict[str, jax.Array]  # of the quantizer, scalars


def make_generator_gradients(config: ConfigDict, phase: str) -> Callable:
    """(state, variables, x [B, H, W, 3], frozen, key) -> GeneratorStep.

    `variables` go from micro-batch to micro-batch and stand for those of `state`.
    """
    tokenizer = build_tokenizer(config.model, remat_levels=config.train.remat_levels)
    image_loss = make_image_loss(config)

    def gradients(
        state: TrainState, variables: Any, x: jax.Array, frozen: Any, key: jax.Array
    ) -> GeneratorStep:
        def generate(params):
            out, updated = tokenizer.apply(
                {"params": params, **variables["gen"]},
                x,
                train=True,
                rngs={
                    "dropout": jax.random.fold_in(key, 0),
                    # Of the codes: one draw for all micro-batches of a step.
                    "codebook": named_key(config.seed, "codebook", state.step),
                },
                mutable=list(variables["gen"]),
            )
            return (out.x_hat, out.quantized.loss), (out, updated)

        pushed = None
        if phase == "adversarial":
            pushed = adversarial_term(config, state, variables, key)
        grads, x_hat, scalars, (out, updated) = generator_gradients(
            generate,
            state.gen_params,
            image_loss=lambda x_hat: image_loss(frozen, x, x_hat),
            quantizer_weight=config.loss.quantizer_weight,
            adversarial=pushed,
        )
        return GeneratorStep(
            grads=grads,
            x_hat=x_hat,
            ids=out.quantized.ids,
            z=out.z,
            variables=updated,
            scalars=scalars,
            stats=jax.tree.map(jnp.mean, out.quantized.stats),
        )

    return gradients


def make_image_loss(config: ConfigDict) -> Callable:
    """(frozen, x, x_hat) -> (scalar, its parts by name).

    `weight * reconstruction + weight * perceptual`, each a mean over the batch: the
    "nll" of VQGAN's code. The parts for the log: `loss_rec` with its weight,
    `loss_perceptual`, where there is one, without.
    """
    pixels = make_reconstruction_loss(config)
    perceive = make_perceptual(config.loss.perceptual)

    def image_loss(frozen, x, x_hat):
        loss = pixels(x, x_hat)
        parts = {"loss_rec": loss}
        if perceive is not None:
            distance = jnp.mean(perceive(frozen["perceptual"], x, x_hat))
            parts["loss_perceptual"] = distance
            loss = loss + perceive.weight * distance
        return loss, parts

    return image_loss


def make_reconstruction_loss(config: ConfigDict) -> Callable:
    """(x, x_hat) -> the weighted loss of the pixels alone."""
    options = config.loss.reconstruction
    where = "config.loss.reconstruction"
    loss = families.member(RECONSTRUCTION_LOSSES, options.name, where)
    return lambda x, x_hat: options.weight * loss(x, x_hat)
