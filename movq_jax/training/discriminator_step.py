"""The discriminator's half of a step: how it pushes, and how it learns."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from movq_jax import families
from movq_jax.models.discriminators import DISCRIMINATORS
from movq_jax.randomness import named_key
from movq_jax.training.augmentation import make_augment
from movq_jax.training.losses import adversarial_loss
from movq_jax.training.optimizers import make_optimizer
from movq_jax.training.regularizers import (
    lecam_penalty,
    lecam_start,
    lecam_update,
    r1_penalty,
)
from movq_jax.training.seam import AdversarialTerm
from movq_jax.training.state import TrainState


class DiscriminatorStep(NamedTuple):
    """What the optimizer and the log need of it."""

    grads: Any  # like the parameters
    variables: Any  # of the state, with those of the discriminator updated
    scalars: dict[str, jax.Array]  # losses, which must be finite


def build_discriminator(config: ConfigDict):
    """The Linen module of `config.loss.discriminator`."""
    return families.make(
        DISCRIMINATORS,
        config.loss.discriminator,
        "config.loss.discriminator",
        dtype=jnp.dtype(config.model.dtype),
    )


def init_discriminator(config: ConfigDict, image: jax.Array) -> tuple[Any, dict]:
    """Parameters, and what `TrainState.variables` gains; image [1, H, W, 3]."""
    variables = build_discriminator(config).init(named_key(config.seed, "disc"), image)
    params = variables.pop("params")
    added = {"disc": variables}
    if config.loss.adversarial.lecam.weight:
        added["lecam"] = lecam_start()
    return params, added


def make_discriminator_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Its optimizer; it begins to learn `warmup` steps before it pushes."""
    adversarial = config.loss.adversarial
    begins = max(0, adversarial.start - adversarial.warmup)
    return make_optimizer(config.optim, "disc", begins)


def discriminate(config: ConfigDict, params: Any, variables: Any, x: jax.Array):
    """Logits of x [B, H, W, 3] with batch statistics, and the updated variables."""
    with jax.named_scope("discriminator"):
        return build_discriminator(config).apply(
            {"params": params, **variables}, x, train=True, mutable=list(variables)
        )


def adversarial_term(
    config: ConfigDict, state: TrainState, variables: Any, key: jax.Array
) -> AdversarialTerm:
    """The push of the discriminator as it is before this step.

    Its running averages are not touched by it: they come from its own half alone.
    """
    options = config.loss.adversarial
    loss = adversarial_loss(options.name)
    augment = make_augment(options.augment)

    def push(x_hat):
        seen = augment(jax.random.fold_in(key, 1), x_hat)
        logits, _ = discriminate(config, state.disc_params, variables["disc"], seen)
        return loss.generator(logits)

    return AdversarialTerm(push, options.weight, options.adaptive, options.adaptive_max)


def make_discriminator_gradients(config: ConfigDict) -> Callable:
    """(state, variables, x, x_hat, key) -> DiscriminatorStep.

    Loss, R1 (each `every` steps, `every` times as strong: "lazy", as in StyleGAN2,
    1912.04958) and LeCAM. R1 is the gradient at what the discriminator sees: after the
    augmentation, where there is one.
    """
    options = config.loss.adversarial
    loss_of = adversarial_loss(options.name).discriminator
    augment = make_augment(options.augment)

    def gradients(
        state: TrainState, variables: Any, x: jax.Array, x_hat: jax.Array, key: Any
    ) -> DiscriminatorStep:
        x = augment(jax.random.fold_in(key, 2), x)
        x_hat = augment(jax.random.fold_in(key, 3), x_hat)

        def loss(params):
            # Two calls: batch norm takes its statistics of real and fake apart.
            real, updated = discriminate(config, params, variables["disc"], x)
            fake, updated = discriminate(config, params, updated, x_hat)
            value = loss_of(real, fake)
            real_mean, fake_mean = jnp.mean(real), jnp.mean(fake)
            scalars = {
                "loss_disc": value,
                "logits_real": real_mean,
                "logits_fake": fake_mean,
            }
            updated = {**variables, "disc": updated}
            if options.lecam.weight:
                ema = variables["lecam"]
                scalars["lecam"] = lecam_penalty(real_mean, fake_mean, ema)
                value += options.lecam.weight * scalars["lecam"]
                updated["lecam"] = lecam_update(
                    ema, real_mean, fake_mean, options.lecam.decay
                )
            if options.r1.weight:
                scalars["r1"] = _lazy_r1(config, state, params, variables, x)
                value += options.r1.every * options.r1.weight * scalars["r1"]
            return value, (updated, scalars)

        (_, (updated, scalars)), grads = jax.value_and_grad(loss, has_aux=True)(
            state.disc_params
        )
        return DiscriminatorStep(grads, jax.lax.stop_gradient(updated), scalars)

    return gradients


def r1_is_due(config: ConfigDict, step: jax.Array) -> jax.Array:
    """Whether the gradient penalty is computed at `step`; it is 0 elsewhere."""
    return step % config.loss.adversarial.r1.every == 0


def _lazy_r1(config, state, params, variables, x) -> jax.Array:
    def logits_of(x):
        return discriminate(config, params, variables["disc"], x)[0]

    if config.loss.adversarial.r1.every == 1:
        return r1_penalty(logits_of, x)
    return jax.lax.cond(
        r1_is_due(config, state.step),
        lambda: r1_penalty(logits_of, x),
        lambda: jnp.zeros(()),
    )
