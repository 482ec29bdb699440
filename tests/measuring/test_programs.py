import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.config import load_config
from movq_jax.measuring import programs
from movq_jax.measuring.programs import Shapes
from movq_jax.training import tokenizer_task
from movq_jax.training.sharding import make_mesh

GIGA = 1e9
# GFLOP of an image of 256²: encoder, decoder (published sizes, counted by others).
BACKBONES = {
    "vqgan_imagenet": (138.4, 252.7),
    "movq_imagenet": (138.4, 252.7 + 3.2),
    "movq_f8:67m": (226.1, 472.4 + 0.19),
    "movq_f8:102m": (428, 674),
    "movq_f8:270m": (891, 1871),
}
STEPS = {"vqgan_imagenet": 1344, "movq_imagenet": 1354, "movq_f8:67m": 2259}


def one_image():
    return Shapes(1, 256, make_mesh(jax.devices()[:1]))


def gflop(program):
    return programs.flops_per_image(program, one_image()) / GIGA


@functools.cache
def with_lpips(spec):
    return load_config(spec, ["loss.perceptual.name=lpips_vgg"])


@pytest.mark.parametrize("spec", BACKBONES)
def test_the_work_of_encoder_and_decoder(spec):
    parts = programs.tokenizer_parts(load_config(spec).model, one_image())
    encoder, _, decoder = (gflop(part) for part in parts)
    assert (encoder, decoder) == pytest.approx(BACKBONES[spec], rel=0.003)


def test_the_work_of_the_networks_of_the_losses():
    """VGG16 to relu5_3: 40.1 GFLOP; PatchGAN of 3 and 2 layers: 6.3 and 5.4."""
    three = list(programs.loss_parts(with_lpips("vqgan_imagenet"), one_image()))
    assert [part.name for part in three] == ["perceptual", "discriminator"]
    assert gflop(three[0]) == pytest.approx(2 * 40.1, rel=0.01)  # of a pair
    assert gflop(three[1]) == pytest.approx(6.3, rel=0.01)
    # Two forward, and backward to the reconstruction only: no weights learn.
    both = gflop(programs.with_backward(three[0]))
    assert both == pytest.approx(3 * 40.1, rel=0.01)
    two = programs.loss_parts(load_config("movq_f8"), one_image())
    assert gflop(list(two)[-1]) == pytest.approx(5.4, rel=0.01)


@pytest.mark.parametrize(
    "spec",
    [
        "vqgan_imagenet",
        pytest.param("movq_imagenet", marks=pytest.mark.slow),
        pytest.param("movq_f8:67m", marks=pytest.mark.slow),
    ],
)
def test_the_work_of_a_training_step(spec):
    """3 autoencoders + 3 VGG + 8 discriminators, by the textbook.

    That is one generator forward and backward; VGG forward of both images and back to
    one; the discriminator forward and back to the image for the generator, and twice
    forward and backward for itself.
    """
    config = with_lpips(spec)
    assert programs.phases(config)[-1] == "adversarial"
    step = programs.train_step(config, "adversarial", one_image())
    assert gflop(step) == pytest.approx(STEPS[spec], rel=0.005)


def test_phases(tiny_config):
    def of(**keys):
        keys = [f"loss.adversarial.{key}={value}" for key, value in keys.items()]
        return programs.phases(tiny_config("train.num_steps=10", *keys))

    assert of(name="none") == ["reconstruction"]
    assert of(start=0, warmup=0) == ["adversarial"]
    assert of(start=5, warmup=0) == ["reconstruction", "adversarial"]
    assert of(start=5, warmup=2) == ["reconstruction", "warmup", "adversarial"]
    assert of(start=5, warmup=5) == ["warmup", "adversarial"]
    assert of(start=20, warmup=0) == ["reconstruction"]  # after the end


def test_lazy_r1_is_counted_as_often_as_it_is(tiny_config, shapes):
    def step(*overrides, phase="warmup"):
        keys = ["loss.discriminator.norm=group"]
        keys += [f"loss.adversarial.r1.{override}" for override in overrides]
        return programs.train_step(tiny_config(*keys), phase, shapes())

    def flops(*overrides):
        return programs.flops_per_image(step(*overrides), shapes())

    without, always = flops("weight=0.0"), flops("weight=1.0", "every=1")
    assert always > 1.04 * without
    lazy = without + (always - without) / 16
    assert flops("weight=1.0", "every=16") == pytest.approx(lazy, abs=2)
    assert step("weight=1.0", "every=16", phase="adversarial").period == 16
    assert step("weight=1.0", "every=16", phase="reconstruction").period == 1


def test_accumulation_and_recomputation_in_the_count(tiny_config, shapes):
    def flops(*overrides):
        config = tiny_config("loss.adversarial.adaptive=False", *overrides)
        step = programs.train_step(config, "adversarial", shapes())
        return programs.flops_per_image(step, shapes())

    assert flops("train.accumulation=2") == pytest.approx(flops(), rel=0.001)
    again = flops("train.remat_levels=(0,1)") / flops()
    # Not 4 / 3: nobody asks again for the result of a block's last convolution.
    assert 1.05 < again < 4 / 3


@pytest.mark.parametrize("name", ["encode", "decode"])
def test_a_program_of_the_model(name, tiny_movq, shapes):
    shapes = shapes(batch_size=8)
    program = getattr(programs, name)(tiny_movq, shapes)
    params, images = programs.random_arguments(program)
    assert len(images.sharding.device_set) == 8
    assert not images.sharding.is_fully_replicated
    assert params["quantize"]["codebook"]["rows"].sharding.is_fully_replicated
    out = jax.jit(program.function)(params, images)
    if name == "encode":
        assert out.shape == (8, 4, 4, 2) and out.dtype == jnp.int32
        assert len(np.unique(out)) > 1
    else:
        assert images.dtype == jnp.int32 and 0 <= int(images.min())
        assert 16 < int(images.max()) < 32
        assert out.shape == (8, 16, 16, 3) and out.dtype == jnp.uint8
        assert np.asarray(out).std() > 1


def test_a_training_step_from_random_arguments_is_finite(tiny_config, shapes):
    config = tiny_config("loss.adversarial.lecam.weight=0.1")
    program = programs.train_step(config, "adversarial", shapes())
    arguments = programs.random_arguments(program)
    expected = jax.eval_shape(lambda: tokenizer_task.init_state(config))
    shape_of = functools.partial(jax.tree.map, lambda a: (a.shape, str(a.dtype)))
    assert shape_of(arguments[0]) == shape_of(expected)
    state, _ = jax.jit(program.function)(*arguments)
    assert int(state.step) == 1 and int(state.skipped_steps) == 0


def test_forward_and_backward(tiny_config, shapes):
    config = tiny_config()
    parts = list(programs.tokenizer_parts(config.model, shapes()))
    parts += programs.loss_parts(config, shapes())
    assert [part.name for part in parts] == [
        "encoder",
        "quantizer",
        "decoder",
        "discriminator",
    ]
    for part in parts:
        both = programs.with_backward(part)
        results, gradients = jax.eval_shape(both.function, *both.arguments)
        forward = jax.eval_shape(part.function, *part.arguments)
        assert jax.tree.structure(results) == jax.tree.structure(forward)
        passes_on = part.name in ("quantizer", "decoder")
        assert len(gradients) == 1 + passes_on
        shape_of = functools.partial(jax.tree.map, lambda a: a.shape)
        assert shape_of(gradients[0]) == shape_of(part.arguments[0])
        work = [programs.flops_per_image(p, shapes()) for p in (part, both)]
        if part.name != "quantizer":  # the search has no gradient
            assert 1.9 < work[1] / work[0] < 3.01
