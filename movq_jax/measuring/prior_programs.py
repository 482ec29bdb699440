"""What is measured of a prior: a training step, one pass, drawing an image.

Indices are given: encoding is a tokenizer's work, see `programs`. Neither a trained
tokenizer nor its data is needed, only their shapes.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict, FrozenConfigDict

from movq_jax.config import load_config
from movq_jax.config.prior_schema import prior_config
from movq_jax.data.settings import read_settings
from movq_jax.data.sources import read_classes
from movq_jax.errors import UserError
from movq_jax.measuring.programs import Program, Shapes
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.bundle import Bundle
from movq_jax.sampling.autoregressive import decode_autoregressive
from movq_jax.sampling.keys import image_keys
from movq_jax.sampling.masked import decode_masked
from movq_jax.sampling.options import SampleOptions
from movq_jax.training import prior_task
from movq_jax.training.prior_model import is_masked, make_prior, tokens_of
from movq_jax.training.prior_resolving import read_tokenizer, with_tokens
from movq_jax.training.ranges import check_ranges
from movq_jax.training.state import TrainState

PARTS = ("train", "sample")


def settle(config: ConfigDict) -> ConfigDict:
    """`config` with its tokens, of its tokenizer's config where none is trained.

    Raises:
      UserError: training would refuse the config, or the number of classes is that of
        data which are not there.
    """
    check_ranges(config)
    if config.tokenizer:
        model = read_tokenizer(config.tokenizer).model
    else:
        model = load_config(config.tokenizer_config).model
    settled = with_tokens(config, model, "not yet known", _classes(config))
    prior_task.check(settled)
    return settled


def config_of(prior: Bundle, tokenizer: Bundle) -> ConfigDict:
    """A settled config of a trained prior: its model, its tokens, how it is drawn from.

    How it was trained it does not tell.
    """
    config = prior_config()
    with config.unlocked():
        config.model = dict(prior.model["prior"])
        config.tokens.update(prior.model["tokens"])
        config.tokens.factor = build_tokenizer(tokenizer.model).factor
        config.sample.update(prior.protocol["sample"])
    return config


def abstract_state(config: ConfigDict) -> TrainState:
    """The state of training, of `jax.ShapeDtypeStruct`s; not to be changed.

    Traced once for all programs of a config: of a large prior that takes a while.
    """
    return _abstract_state(FrozenConfigDict(config))


def train_step(config: ConfigDict, shapes: Shapes) -> Program:
    """The training step on a batch of a token cache, as the loop compiles it."""
    tokens = tokens_of(config)
    size = (shapes.batch_size, *tokens.grid, tokens.num_channels)
    batch = {
        "ids": jax.ShapeDtypeStruct(size, jnp.int32),
        "label": jax.ShapeDtypeStruct(size[:1], jnp.int32),
    }
    return Program(
        "train",
        prior_task.make_train_step(config, prior_task.PHASES[0]),
        (shapes.replicated(abstract_state(config)), shapes.batched(batch), {}),
        carries=True,
        id_limit=min(tokens.codebook_sizes),
    )


def forward(config: ConfigDict, shapes: Shapes) -> Program:
    """One pass: the logits of all indices of an image."""
    prior, tokens = make_prior(config), tokens_of(config)

    def function(params, ids, labels):
        ids = ids.reshape(len(ids), tokens.num_positions, tokens.num_channels)
        inputs = (ids, ids < 0, labels, ids) if is_masked(config) else (ids, labels)
        return prior.apply({"params": params}, *inputs)

    size = (shapes.batch_size, *tokens.grid, tokens.num_channels)
    ids = jax.ShapeDtypeStruct(size, jnp.int32)
    labels = jax.ShapeDtypeStruct(size[:1], jnp.int32)
    arguments = (_params(config, shapes), *shapes.batched((ids, labels)))
    return Program("forward", function, arguments, id_limit=min(tokens.codebook_sizes))


def sample(config: ConfigDict, shapes: Shapes) -> Program:
    """Drawing whole images as `config.sample` says; indices, not pixels."""
    prior, tokens = make_prior(config), tokens_of(config)
    decode = decode_masked if is_masked(config) else decode_autoregressive
    options = SampleOptions.of(config.sample)

    def function(params, numbers, labels):
        ids = jnp.zeros(
            (len(labels), tokens.num_positions, tokens.num_channels), jnp.int32
        )
        keys = image_keys(0, numbers)
        known = jnp.zeros(ids.shape, bool)
        return decode(
            prior, {"params": params}, keys, ids, known, labels, options=options
        )

    numbers = jax.ShapeDtypeStruct((shapes.batch_size,), jnp.int32)
    arguments = (_params(config, shapes), *shapes.batched((numbers, numbers)))
    return Program("sample", function, arguments)


def programs(config: ConfigDict, parts: Sequence[str], shapes: Shapes) -> list[Program]:
    """Those of `PARTS` that are asked for."""
    made = {"train": train_step, "sample": sample}
    return [made[name](config, shapes) for name in parts]


def _params(config: ConfigDict, shapes: Shapes):
    return shapes.replicated(abstract_state(config).gen_params)


@functools.lru_cache(maxsize=4)
def _abstract_state(config: FrozenConfigDict) -> TrainState:
    config = config.as_configdict()
    return jax.eval_shape(lambda: prior_task.init_state(config))


def _classes(config: ConfigDict) -> tuple[str, ...] | None:
    """As many as the config says; None: what the data have decides."""
    count = config.model.num_classes
    if count >= 0:
        return tuple(map(str, range(count)))
    if config.cache.train:
        return None
    try:
        return read_classes(read_settings(config.data)) or None
    except UserError as error:
        raise UserError(
            f"config.model.num_classes is {count}, as many as the data have, but "
            f"{error}; or give --config.model.num_classes=10"
        ) from error
