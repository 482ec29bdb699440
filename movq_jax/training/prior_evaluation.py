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
    sample = jax.jit(_make_sample(config))

    def pictures(state: TrainState, batch: Batch, frozen: Any) -> dict[str, np.ndarray]:
        numbers = jnp.arange(len(batch["mask"]))
        labels = numbers % max(1, config.model.num_classes)
        images = np.asarray(sample(state.ema_params, numbers, labels, frozen))
        return {"val/samples": sample_grid(images)}

    return pictures


def make_judged(
    config: ConfigDict,
) -> Callable[[TrainState, Batch, Any], tuple[jax.Array, jax.Array]]:
    """(state, batch with index, frozen) -> samples and images, uint8 [B, H, W, 3].

    Samples are of the classes of the batch. Of a token cache, whose images are not at
    hand, the second are what the tokenizer makes of the indices.
    """
    sample = _make_sample(config)

    def judged(state: TrainState, batch: Batch, frozen: Any):
        samples = sample(state.ema_params, batch["index"], batch["label"], frozen)
        if "image" in batch:
            return samples, batch["image"]
        return samples, _decode(config, batch["ids"], frozen)

    return judged


def _make_sample(config: ConfigDict) -> Callable:
    """(params, numbers [B], labels [B], frozen) -> images, uint8 [B, H, W, 3].

    What is drawn is a function of the seed, a number and its label.
    """
    prior, tokens = make_prior(config), tokens_of(config)
    options = SampleOptions.of(config.sample)
    draw = decode_masked if is_masked(config) else decode_autoregressive

    def sample(params, numbers, labels, frozen):
        shape = len(labels), tokens.num_positions, tokens.num_channels
        ids, known = jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool)
        keys = image_keys(config.seed, numbers)
        ids = draw(prior, {"params": params}, keys, ids, known, labels, options)
        return _decode(config, ids, frozen)

    return sample


def _decode(config: ConfigDict, ids: jax.Array, frozen: Any) -> jax.Array:
    """ids [B, ..., M] -> images, uint8 [B, H, W, 3]."""
    tokens = tokens_of(config)
    grid = ids.reshape(-1, *tokens.grid, tokens.num_channels)
    tokenizer = make_tokenizer(config)
    x = tokenizer.apply(frozen["tokenizer"], grid, method="decode_ids")
    return to_uint8(jnp.clip(x, -1, 1))
