"""What a config of a prior may not say, found before training begins."""

from typing import Any

from ml_collections import ConfigDict

from movq_jax import fields as checks
from movq_jax.errors import UserError
from movq_jax.models.priors import Tokens, build_prior
from movq_jax.sampling.options import SampleOptions
from movq_jax.sampling.schedules import make_schedule
from movq_jax.training.optimizers import make_optimizer


def check(config: ConfigDict) -> None:
    """Refuses what would only fail, or mislead, in the middle of training.

    Args:
      config: with its `tokens`, see `prior_resolving.resolve`.

    Raises:
      UserError: the key, its value, and what it could be.
    """
    tokens = Tokens.of(config.tokens)
    build_prior(config.model, tokens)
    _check_loss(config)
    make_optimizer(config.optim, "gen")
    _check_train(config)
    check_sample(config.sample, tokens.num_channels, config.model.num_classes)
    if config.sample.guidance and not config.loss.class_dropout:
        raise UserError(
            f"config.sample.guidance is {config.sample.guidance}, but with "
            "config.loss.class_dropout=0 the prior never learns to go without a "
            "class: set class_dropout to 0.1, or guidance to 0"
        )


def _check_loss(config: ConfigDict) -> None:
    loss = config.loss
    make_schedule(loss.mask, "config.loss.mask")
    for name in ("min_rate", "label_smoothing", "unmasked_weight", "class_dropout"):
        checks.check_share(f"config.loss.{name}", loss[name])
    if loss.label_smoothing == 1:
        raise UserError(
            "config.loss.label_smoothing is 1, which leaves nothing to learn: use 0.1"
        )


def _check_train(config: ConfigDict) -> None:
    train = config.train
    checks.check_share("config.train.ema_decay", train.ema_decay)
    checks.check_flag("config.train.remat", train.remat)
    if train.accumulation < 1 or train.batch_size % train.accumulation:
        raise UserError(
            f"config.train.accumulation is {train.accumulation}, which does not divide "
            f"config.train.batch_size, {train.batch_size}"
        )


def check_sample(sample: Any, num_channels: int, num_classes: int) -> None:
    """Refuses ways of sampling that do not fit the prior.

    Raises:
      UserError: one of the fields.
    """
    SampleOptions.of(sample)
    for name in ("temperature", "top_k", "top_p"):
        value = sample[name]
        if isinstance(value, (tuple, list)) and len(value) != num_channels:
            raise UserError(
                f"config.sample.{name} has {len(value)} numbers; give one, or one for "
                f"each of the {num_channels} channels"
            )
    if sample["guidance"] and not num_classes:
        raise UserError(
            f"config.sample.guidance is {sample['guidance']}, but guidance needs "
            "classes and config.model.num_classes is 0: set guidance to 0"
        )
