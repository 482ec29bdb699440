"""The seam against the textbook: each loss differentiated through the generator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.models.discriminators import PatchDiscriminator
from movq_jax.models.pixels import from_uint8
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.training import tokenizer_task as task
from movq_jax.training.discriminator_step import adversarial_term
from movq_jax.training.generator_step import (
    make_generator_gradients,
    make_image_loss,
)
from movq_jax.training.losses import hinge_generator_loss, l1_loss
from movq_jax.training.seam import AdversarialTerm, generator_gradients


@pytest.fixture
def parts(tiny_config, batch):
    """Generator, its parameters, images, adversarial loss."""
    x = from_uint8(jnp.asarray(batch["image"]))
    tokenizer = build_tokenizer(tiny_config().model)
    params = tokenizer.init(jax.random.key(0), x)["params"]
    discriminator = PatchDiscriminator(width=8, layers=1)
    variables = discriminator.init(jax.random.key(1), x)

    def adv_loss(x_hat):
        logits, _ = discriminator.apply(
            variables, x_hat, train=True, mutable=["batch_stats"]
        )
        return hinge_generator_loss(logits)

    return tokenizer, params, x, adv_loss


def textbook(tokenizer, params, x, adv_loss, *, weight, maximum):
    """VQGAN's formula, with a whole backward pass for each gradient."""

    def losses(params):
        out = tokenizer.apply({"params": params}, x)
        return l1_loss(x, out.x_hat), adv_loss(out.x_hat), out.quantized.loss

    def kernel_norm(index):
        grads = jax.grad(lambda p: losses(p)[index])(params)
        return jnp.linalg.norm(grads["decoder"]["conv_out"]["kernel"].reshape(-1))

    ratio = jnp.minimum(kernel_norm(0) / (kernel_norm(1) + 1e-4), maximum)

    def total(params):
        rec, adv, vq = losses(params)
        return rec + weight * ratio * adv + 0.7 * vq

    return jax.grad(total)(params), weight * ratio


@pytest.mark.parametrize("maximum", [1e4, 1.0])
def test_the_seam_equals_two_passes(parts, maximum):
    tokenizer, params, x, adv_loss = parts

    def generate(params):
        out = tokenizer.apply({"params": params}, x)
        return (out.x_hat, out.quantized.loss), out

    @jax.jit
    def seam(params):
        return generator_gradients(
            generate,
            params,
            image_loss=lambda x_hat: (l1_loss(x, x_hat), {}),
            quantizer_weight=0.7,
            adversarial=AdversarialTerm(adv_loss, 0.8, True, maximum),
        )

    got = seam(params)
    grads, weight = jax.jit(
        lambda p: textbook(tokenizer, p, x, adv_loss, weight=0.8, maximum=maximum)
    )(params)
    np.testing.assert_allclose(got.scalars["adv_weight"], weight, rtol=1e-5)
    scale = max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(grads))
    for ours, theirs in zip(
        jax.tree.leaves(got.grads), jax.tree.leaves(grads), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6 * scale)


def test_a_fixed_weight_is_taken_as_it_is(parts):
    tokenizer, params, x, adv_loss = parts

    def generate(params):
        out = tokenizer.apply({"params": params}, x)
        return (out.x_hat, out.quantized.loss), None

    got = generator_gradients(
        generate,
        params,
        image_loss=lambda x_hat: (l1_loss(x, x_hat), {}),
        quantizer_weight=1.0,
        adversarial=AdversarialTerm(adv_loss, 0.25, False, 1e4),
    )
    assert got.scalars["adv_weight"] == 0.25


def test_the_seam_equals_two_passes_with_every_loss_on(adversarial_config, batch):
    """L1, LPIPS, codebook, and a hinge on augmented images, steered adaptively."""
    config = adversarial_config(
        "loss.perceptual.name=lpips_vgg",
        "loss.perceptual.dtype=float32",
        "loss.adversarial.augment.policies=('translation','color','cutout')",
        "loss.quantizer_weight=0.7",
    )
    state = jax.jit(lambda: task.init_state(config))()
    frozen = jax.tree.map(he_normal, task.abstract_frozen(config))
    x, key = from_uint8(jnp.asarray(batch["image"])), jax.random.key(3)
    tokenizer = build_tokenizer(config.model)
    image_loss = make_image_loss(config)
    term = adversarial_term(config, state, state.variables, key)

    def losses(params):
        out = tokenizer.apply({"params": params}, x)
        image, parts = image_loss(frozen, x, out.x_hat)
        return (image, term.loss(out.x_hat), out.quantized.loss), parts

    @jax.jit
    def textbook(params):
        _, pullback, parts = jax.vjp(losses, params, has_aux=True)
        image, adv, vq = (pullback(tuple(one))[0] for one in jnp.eye(3))
        norms = [
            jnp.linalg.norm(grads["decoder"]["conv_out"]["kernel"].reshape(-1))
            for grads in (image, adv)
        ]
        weight = 0.8 * norms[0] / (norms[1] + 1e-4)
        total = jax.tree.map(lambda i, a, v: i + weight * a + 0.7 * v, image, adv, vq)
        return total, weight, parts

    gradients = make_generator_gradients(config, "adversarial")
    got = jax.jit(lambda s: gradients(s, s.variables, x, frozen, key))(state)
    grads, weight, parts = textbook(state.gen_params)
    assert float(parts["loss_perceptual"]) > 0.01
    np.testing.assert_allclose(got.scalars["adv_weight"], weight, rtol=1e-5)
    scale = max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(grads))
    for ours, theirs in zip(
        jax.tree.leaves(got.grads), jax.tree.leaves(grads), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6 * scale)


def he_normal(shape):
    """Random weights that keep the size of the activations."""
    rng = np.random.default_rng(shape.size)
    fan_in = max(1, int(np.prod(shape.shape[:-1])))
    return np.float32(
        np.abs(rng.normal(size=shape.shape))
        if shape.shape[-1] == 1
        else rng.normal(size=shape.shape) * np.sqrt(2 / fan_in)
    )
