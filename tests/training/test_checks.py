"""Configs that must be refused, each with a sentence that names the key."""

import pytest

from movq_jax.errors import UserError
from movq_jax.training.checks import check

WRONG = {
    "data.image_size=17": "config.data.image_size is 17",
    "train.accumulation=3": "does not divide config.train.batch_size, 8",
    "train.accumulation=0": "config.train.accumulation is 0; 1 is the least",
    "train.ema_decay=1.5": "config.train.ema_decay is 1.5",
    "train.remat_levels=(7,)": "config.train.remat_levels",
    "loss.reconstruction.name=l3": "is 'l3'; Known: l1, l2",
    "loss.quantizer_weight=-1.0": "config.loss.quantizer_weight is -1.0",
    "loss.adversarial.name=hing": "did you mean 'hinge'? Known: hinge, non",
    "loss.adversarial.weight=-0.1": "config.loss.adversarial.weight is -0.1",
    "loss.adversarial.start=-1": "config.loss.adversarial.start is -1",
    "loss.adversarial.warmup=1": "would have to learn before the first step",
    "loss.adversarial.adaptive_max=0.0": "adaptive_max is 0.0",
    "loss.adversarial.r1.weight=1.0": "batch norm mixes the images",
    "loss.adversarial.r1.every=0": "r1.every is 0; 1 is the least",
    "loss.adversarial.lecam.decay=2.0": "lecam.decay is 2.0",
    "loss.adversarial.augment.policies=('colour',)": "did you mean 'color'",
    "loss.discriminator.norm=layer": "config.loss.discriminator.norm",
    "loss.perceptual.name=vgg": "config.loss.perceptual",
    "train.codebook_init.name=kmean": "did you mean 'kmeans'? Known: kmeans, none",
    "train.codebook_init.iterations=0": "codebook_init.iterations is 0",
    "train.codebook_update.name=emas": "did you mean 'ema'? Known: cvq, ema, gradient",
    "train.codebook_update.decay=1.5": "config.train.codebook_update.decay is 1.5",
    "train.codebook_update.revive_below=-1.0": "revive_below is -1.0; give a number",
    "optim.gen.learning_rate=-1.0": "config.optim.gen.learning_rate",
}


@pytest.mark.parametrize("override", WRONG)
def test_it_is_refused(adversarial_config, override):
    with pytest.raises(UserError) as error:
        check(adversarial_config(override))
    assert WRONG[override] in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_right_passes(adversarial_config, tiny_config):
    check(tiny_config())
    check(adversarial_config("loss.adversarial.start=5", "loss.adversarial.warmup=5"))


def test_without_a_discriminator_its_keys_do_not_matter(tiny_config):
    check(tiny_config("loss.adversarial.warmup=100", "loss.adversarial.start=3"))


def test_rules_and_kmeans_need_a_book(tiny_config):
    for spec in ({"name": "fsq", "levels": (4, 4)}, {"name": "lfq", "bits": 4}):
        config = tiny_config()
        with config.unlocked():
            config.model.quantizer = spec
            with pytest.raises(UserError, match="codebook_init.name is 'kmeans', but"):
                check(config)
            config.train.codebook_init = {"name": "none"}
            check(config)
            config.train.codebook_update = {"name": "ema"}
        with pytest.raises(UserError, match="codebook_update.name is 'ema', but the"):
            check(config)


def test_running_means_leave_beta_to_the_commitment(tiny_config):
    config = tiny_config("model.quantizer.legacy=True")
    config.train.codebook_update.name = "ema"
    with pytest.raises(UserError, match="quantizer.legacy is true.* Set legacy to"):
        check(config)


def test_steps_of_kmeans_are_steps(tiny_config):
    config = tiny_config()
    with config.unlocked():
        config.train.codebook_init = {"name": "kmeans"}
        check(config)
        config.train.codebook_init = {"name": "kmeans", "steps": (0, -5)}
    with pytest.raises(UserError, match="codebook_init.steps is .*give training"):
        check(config)


def test_evaluation_must_not_be_too_small_for_the_perceptual_network(tiny_config):
    config = tiny_config(
        "loss.perceptual.name=squeezenet",
        "loss.perceptual.weights=x.npz",
        "data.image_size=32",
        "data.eval.image_size=16",
    )
    with pytest.raises(UserError, match=r"config.data.eval.image_size is 16, but the"):
        check(config)
