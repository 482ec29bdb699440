"""What a config of a tokenizer may not say, found before training begins."""

from ml_collections import ConfigDict

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.fields import are_whole
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.training.augmentation import make_augment
from movq_jax.training.codebook_init import ESTIMATORS
from movq_jax.training.codebooks import check_rule, ruled_books
from movq_jax.training.discriminator_step import build_discriminator
from movq_jax.training.losses import RECONSTRUCTION_LOSSES, adversarial_loss
from movq_jax.training.optimizers import make_optimizer
from movq_jax.training.perceptual import make_perceptual


def check(config: ConfigDict) -> None:
    """Refuses what would only fail, or mislead, in the middle of training.

    Raises:
      UserError: the key, its value, and what it could be.
    """
    _check_sizes(config)
    _check_image_losses(config)
    if adversarial_loss(config.loss.adversarial.name) is not None:
        _check_adversarial(config.loss.adversarial)
        _check_regularizers(config)
        make_optimizer(config.optim, "disc")
    make_optimizer(config.optim, "gen")
    _check_train(config)
    check_rule(config)
    _check_codebook_init(config)


def _check_sizes(config: ConfigDict) -> None:
    factor = build_tokenizer(
        config.model, remat_levels=config.train.remat_levels
    ).factor
    for name, size in _sizes(config).items():
        if size < 1 or size % factor:
            raise UserError(
                f"config.data.{name} is {size}, but must be a multiple of {factor}, "
                "the factor of config.model"
            )


def _sizes(config: ConfigDict) -> dict[str, int]:
    """Sides of the images of training and of evaluation, by key in config.data."""
    size = config.data.image_size
    return {"image_size": size, "eval.image_size": config.data.eval.image_size or size}


def _check_image_losses(config: ConfigDict) -> None:
    loss = config.loss
    families.member(
        RECONSTRUCTION_LOSSES, loss.reconstruction.name, "config.loss.reconstruction"
    )
    perceptual = make_perceptual(loss.perceptual)
    for name, size in _sizes(config).items():
        if perceptual is not None and size < perceptual.min_side:
            raise UserError(
                f"config.data.{name} is {size}, but the network of "
                f"config.loss.perceptual, {loss.perceptual.name}, needs at least "
                f"{perceptual.min_side}"
            )
    _at_least(loss.reconstruction.weight, 0, "loss.reconstruction.weight")
    _at_least(loss.quantizer_weight, 0, "loss.quantizer_weight")


def _check_adversarial(adversarial: ConfigDict) -> None:
    where = "loss.adversarial"
    for key in ("weight", "start", "warmup"):
        _at_least(adversarial[key], 0, f"{where}.{key}")
    if adversarial.warmup > adversarial.start:
        raise UserError(
            f"config.{where}.warmup is {adversarial.warmup}, but start is "
            f"{adversarial.start}: the discriminator would have to learn before the "
            "first step. Make warmup at most start"
        )
    if adversarial.adaptive and adversarial.adaptive_max <= 0:
        raise UserError(
            f"config.{where}.adaptive_max is {adversarial.adaptive_max}, but must be "
            "above 0"
        )
    make_augment(adversarial.augment)


def _check_regularizers(config: ConfigDict) -> None:
    build_discriminator(config)
    where, adversarial = "loss.adversarial", config.loss.adversarial
    r1, lecam = adversarial.r1, adversarial.lecam
    _at_least(r1.weight, 0, f"{where}.r1.weight")
    _at_least(r1.every, 1, f"{where}.r1.every")
    _at_least(lecam.weight, 0, f"{where}.lecam.weight")
    if not 0 <= lecam.decay <= 1:
        raise UserError(f"config.{where}.lecam.decay is {lecam.decay}; it lies in 0..1")
    discriminator = config.loss.discriminator
    if r1.weight and discriminator.name == "patch" and discriminator.norm == "batch":
        raise UserError(
            "config.loss.adversarial.r1 is on, but config.loss.discriminator.norm is "
            "'batch': batch norm mixes the images, so that a gradient at one image is "
            "not its own. Set norm to 'group' or 'none', or r1.weight to 0"
        )


def _check_train(config: ConfigDict) -> None:
    train = config.train
    if not 0 <= train.ema_decay <= 1:
        raise UserError(f"config.train.ema_decay is {train.ema_decay}; it lies in 0..1")
    _at_least(train.accumulation, 1, "train.accumulation")
    if train.batch_size % train.accumulation:
        raise UserError(
            f"config.train.accumulation is {train.accumulation}, which does not divide "
            f"config.train.batch_size, {train.batch_size}"
        )


def _check_codebook_init(config: ConfigDict) -> None:
    start, where = config.train.codebook_init, "config.train.codebook_init"
    known = {"none": None, **ESTIMATORS}
    if families.member(known, start.name, where) is None:
        return
    if not ruled_books(config):
        raise UserError(
            f"{where}.name is {start.name!r}, but the quantizer "
            f"{config.model.quantizer.name!r} as it is set has no book whose rows "
            "could be set from features: use none"
        )
    for key in ("features_per_code", "iterations"):
        if key in start:
            _at_least(start[key], 1, f"train.codebook_init.{key}")
    steps = start.get("steps", ())
    if not are_whole(steps) or any(step < 0 for step in steps):
        raise UserError(f"{where}.steps is {steps!r}; give training steps, as (0, 40)")


def _at_least(value: float, least: float, key: str) -> None:
    if not value >= least:  # NaN, too
        raise UserError(f"config.{key} is {value}; {least} is the least")
