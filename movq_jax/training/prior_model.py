"""The prior of a config, its frozen tokenizer, and what both give of a batch."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from movq_jax.models.pixels import from_uint8
from movq_jax.models.priors import Tokens, build_prior
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.training import prior_losses as losses
from movq_jax.training.prior_resolving import frozen_tokenizer

Batch = dict[str, jax.Array]  # see `prior_inputs`


def tokens_of(config: ConfigDict) -> Tokens:
    """The grid of indices that is modelled."""
    return Tokens.of(config.tokens)


def make_prior(config: ConfigDict) -> nn.Module:
    """The prior of a config whose tokens are known."""
    return build_prior(config.model, tokens_of(config), remat=config.train.remat)


def is_masked(config: ConfigDict) -> bool:
    """Whether the prior is a masked one, and not autoregressive."""
    return config.model.name == "masked"


def make_tokenizer(config: ConfigDict) -> nn.Module:
    """The tokenizer whose variables `load_frozen` gives."""
    bundle = frozen_tokenizer(config.tokenizer, config.tokens.fingerprint)
    return build_tokenizer(bundle.model)


def make_encode(config: ConfigDict) -> Callable[[Batch, Any], jax.Array]:
    """(batch, frozen) -> ids [B, N, M], of a cache or of images."""

    def encode(batch: Batch, frozen: Any) -> jax.Array:
        ids = batch.get("ids")
        if ids is None:
            tokenizer = make_tokenizer(config)  # not before: a cache needs none
            images = from_uint8(batch["image"])
            ids = tokenizer.apply(frozen["tokenizer"], images, method="encode")
        return ids.reshape(ids.shape[0], -1, ids.shape[-1])

    return encode


def draw_masked(config: ConfigDict, key: jax.Array, batch: int) -> jax.Array:
    """Which indices of `batch` images a masked prior has to fill in, [B, N, M]."""
    tokens = tokens_of(config)
    whole = make_prior(config).whole_positions
    masked = losses.draw_masked(
        key,
        batch,
        tokens.num_positions if whole else tokens.units,
        schedule=config.loss.mask,
        min_rate=config.loss.min_rate,
    )
    return losses.spread(masked, tokens.num_channels, whole_positions=whole)
