"""How well a prior knows indices, and what it draws: metrics and pictures."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from movq_jax.evaluation.sample_sheets import sample_grid
from movq_jax.models.pixels import to_uint8
from movq_jax.sampling.autoregressive import decode_autoregressive
from movq_jax.sampling.keys import image_keys, purpose_keys
from movq_jax.sampling.likelihood import nll_autoregressive, nll_masked
from movq_jax.sampling.masked import decode_masked
from movq_jax.sampling.options import SampleOptions
from movq_jax.training.metrics import Metrics, average, ratio
from movq_jax.training.prior_model import (
    Batch,
    draw_masked,
    is_masked,
    make_encode,
    make_prior,
    make_tokenizer,
    tokens_of,
)
from movq_jax.training.state import TrainState


def make_eval_step(config: ConfigDict) -> Callable[[TrainState, Batch, Any], Metrics]:
    """(state, batch with mask and index, frozen) -> metrics of the averaged weights.

    Bits are those of the bound of `nll_masked`, or exact (`nll_autoregressive`). What
    is masked is a function of (seed, index of the example) alone. Accuracy is that in
    training: over the indices of one mask an image, or over all.
    """
    prior, tokens, encode = make_prior(config), tokens_of(config), make_encode(config)

    def eval_step(state: TrainState, batch: Batch, frozen: Any) -> Metrics:
        ids, mask, labels = encode(batch, frozen), batch["mask"], batch["label"]
        variables = {"params": state.ema_params}
        keys = image_keys(config.seed, batch["index"])
        if is_masked(config):
            nats, channels = nll_masked(
                prior, variables, keys, ids, labels, samples=config.eval.nll_samples
            )
            masked = jax.vmap(lambda key: draw_masked(config, key, 1)[0])(
                purpose_keys(keys, "accuracy")
            )
            logits = prior.apply(variables, ids, ~masked, labels, ids)
        else:
            nats, channels = nll_autoregressive(prior, variables, ids, labels)
            masked = jnp.ones(ids.shape, bool)
            logits = prior.apply(variables, ids, labels)
        counted = masked & mask[:, None, None]
        hits = jnp.sum((jnp.argmax(logits, axis=-1) == ids) & counted)
        bits, channels = nats / math.log(2), channels / math.log(2)
        metrics = {
            "bits_per_token": average(bits / tokens.units, mask),
            "bits_per_image": average(bits, mask),
            "accuracy": ratio(hits, jnp.sum(counted)),
        }
        for channel in range(tokens.num_channels):
            value = channels[:, channel] / tokens.num_positions
            metrics[f"bits_channel_{channel}"] = average(value, mask)
        return metrics

    return eval_step


def preview(
    config: ConfigDict,
) -> Callable[[TrainState, Batch, Any], dict[str, np.ndarray]]:
    """(state, batch, frozen) -> samples for the log: name -> uint8 [H, W, 3].

    As many as the batch has images, always from the same random numbers; with classes
    these in turn.
    """
    prior, tokens, tokenizer = (
        make_prior(config),
        tokens_of(config),
        make_tokenizer(config),
    )
    options = SampleOptions.of(config.sample)
    decode = decode_masked if is_masked(config) else decode_autoregressive

    @jax.jit
    def sample(params, keys, labels, frozen):
        shape = len(labels), tokens.num_positions, tokens.num_channels
        ids, known = jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool)
        ids = decode(prior, {"params": params}, keys, ids, known, labels, options)
        grid = ids.reshape(-1, *tokens.grid, tokens.num_channels)
        x = tokenizer.apply(frozen["tokenizer"], grid, method="decode_ids")
        return to_uint8(jnp.clip(x, -1, 1))

    def pictures(state: TrainState, batch: Batch, frozen: Any) -> dict[str, np.ndarray]:
        numbers = jnp.arange(len(batch["mask"]))
        labels = numbers % max(1, config.model.num_classes)
        keys = image_keys(config.seed, numbers)
        images = np.asarray(sample(state.ema_params, keys, labels, frozen))
        return {"val/samples": sample_grid(images)}

    return pictures
