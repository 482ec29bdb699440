"""The prior stage: its state, its training step, its evaluation step.

A masked prior (MaskGIT, 2202.04200) learns indices that are hidden from it, an
autoregressive one each index from those before it. The tokenizer is frozen; where there
is no token cache, images are encoded within the step.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from etils import epath
from ml_collections import ConfigDict

from movq_jax import __version__
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.bundle import FOLDER as BUNDLE_FOLDER
from movq_jax.pretrained.prior_bundle import write_prior_bundle
from movq_jax.pretrained.tokenizer import inference_variables
from movq_jax.randomness import named_key
from movq_jax.training import prior_losses as losses
from movq_jax.training.accumulation import accumulate
from movq_jax.training.metrics import Metrics, average, ratio
from movq_jax.training.optimizers import make_optimizer
from movq_jax.training.prior_checks import check as check  # the loop asks for them here
from movq_jax.training.prior_evaluation import make_eval_step as make_eval_step
from movq_jax.training.prior_evaluation import make_judged as make_judged
from movq_jax.training.prior_evaluation import preview as preview
from movq_jax.training.prior_inputs import batch_at as batch_at
from movq_jax.training.prior_inputs import eval_batches as eval_batches
from movq_jax.training.prior_inputs import train_batches as train_batches
from movq_jax.training.prior_model import (
    Batch,
    draw_masked,
    is_masked,
    make_encode,
    make_prior,
    tokens_of,
)
from movq_jax.training.prior_resolving import frozen_tokenizer
from movq_jax.training.prior_resolving import resolve as resolve
from movq_jax.training.state import TrainState, advance, ema_update

PHASES = ("prior",)
QUARTERS = ("0_25", "25_50", "50_75", "75_100")  # per cent of the units, masked


def score(values: dict[str, float]) -> float:
    """Of the metrics of an evaluation: the larger, the better."""
    return -values["val/bits_per_token"]


def init_state(config: ConfigDict) -> TrainState:
    """The state before the first step. Pure: to be jitted or `eval_shape`d."""
    tokens = tokens_of(config)
    ids = jnp.zeros((1, tokens.num_positions, tokens.num_channels), jnp.int32)
    labels = jnp.zeros(1, jnp.int32)
    inputs = (ids, ids == 0, labels, ids) if is_masked(config) else (ids, labels)
    params = make_prior(config).init(named_key(config.seed, "prior"), *inputs)["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        skipped_steps=jnp.zeros((), jnp.int32),
        skipped_in_row=jnp.zeros((), jnp.int32),
        gen_params=params,
        gen_opt=make_optimizer(config.optim, "gen").init(params),
        ema_params=jax.tree.map(jnp.copy, params),
        disc_params={},
        disc_opt=(),
        variables={},
    )


def with_params(config: ConfigDict, state: TrainState, params: Any) -> TrainState:
    """A state before the first step that begins with other weights."""
    del config
    return state.replace(gen_params=params, ema_params=jax.tree.map(jnp.copy, params))


def load_frozen(config: ConfigDict) -> dict[str, Any]:
    """The tokenizer's variables; they are no part of the state.

    Raises:
      UserError: the tokenizer is not there, or is another than when the run began.
    """
    bundle = frozen_tokenizer(config.tokenizer, config.tokens.fingerprint)
    tokenizer = build_tokenizer(bundle.model)
    return {"tokenizer": inference_variables(tokenizer, bundle.params)}


def fits_to_data(config: ConfigDict, step: int) -> bool:
    """Never: a prior has nothing that is estimated from many batches at once."""
    del config, step
    return False


def fit_to_data(
    config: ConfigDict, state: TrainState, batches: Iterable[Batch]
) -> TrainState:
    """Nothing to do, see `fits_to_data`."""
    del config, batches
    return state


def phase(config: ConfigDict, step: int) -> str:
    """Which of the compiled steps trains at `step`: there is one."""
    del config, step
    return PHASES[0]


def make_train_step(
    config: ConfigDict, phase: str
) -> Callable[[TrainState, Batch, Any], tuple[TrainState, Metrics]]:
    """(state, batch, frozen) -> (state, metrics), to be jitted."""
    del phase
    loss = make_loss(config)
    encode = make_encode(config)
    optimizer = make_optimizer(config.optim, "gen")

    def train_step(state: TrainState, batch: Batch, frozen: Any):
        def part(carry, batch, number):
            ids = encode(batch, frozen)
            gradients = jax.value_and_grad(loss, has_aux=True)
            (value, found), grads = gradients(
                state.gen_params, ids, batch["label"], state.step, number
            )
            return carry, (value, grads), found

        inputs = {k: v for k, v in batch.items() if k in ("image", "ids", "label")}
        _, (value, grads), found = accumulate(
            part, (), inputs, config.train.accumulation
        )
        updates, opt = optimizer.update(grads, state.gen_opt, state.gen_params)
        params = optax.apply_updates(state.gen_params, updates)
        decay = config.train.ema_decay
        ema = ema_update(state.ema_params, params, state.step, decay)
        new = state.replace(gen_params=params, gen_opt=opt, ema_params=ema)
        scalars = {
            "loss": value,
            "grad_norm": optax.tree.norm(grads),
            "param_norm": optax.tree.norm(params),
        }
        finite = jnp.all(jnp.isfinite(jnp.stack(list(scalars.values()))))
        metrics = {name: average(v, finite) for name, v in scalars.items()}
        metrics |= by_channel(found, finite)
        if is_masked(config):
            metrics |= by_quarter(config, found, finite)
        return advance(state, new, finite), metrics

    return train_step


def make_loss(config: ConfigDict) -> Callable:
    """(params, ids, labels, step, number) -> (loss, what `by_channel` takes).

    The number of a micro-batch tells its randomness from that of the others.
    """
    prior, tokens = make_prior(config), tokens_of(config)
    num_classes, settings = config.model.num_classes, config.loss

    def key_of(name, step, number):
        return jax.random.fold_in(named_key(config.seed, name, step), number)

    def predict(params, ids, labels, masked, key):
        inputs = (ids, ~masked, labels, ids) if is_masked(config) else (ids, labels)
        return prior.apply(
            {"params": params}, *inputs, train=True, rngs={"dropout": key}
        )

    def loss(params, ids, labels, step, number):
        if num_classes:
            key = key_of("class_dropout", step, number)
            labels = losses.drop_classes(
                key, labels, num_classes, settings.class_dropout
            )
        masked, weights = jnp.ones(ids.shape, bool), jnp.ones(ids.shape)
        if is_masked(config):
            masked = draw_masked(config, key_of("mask", step, number), ids.shape[0])
            weights = losses.weights_of(masked, settings.unmasked_weight)
        logits = predict(params, ids, labels, masked, key_of("dropout", step, number))
        each = losses.predicted(
            logits, ids, tokens.codebook_sizes, settings.label_smoothing
        )
        by_image = losses.mean_by_image(each.loss, weights)
        found = {
            "loss": jnp.sum(each.loss * masked, axis=1),  # [B, M]
            "hits": jnp.sum(each.hit & masked, axis=1),
            "count": jnp.sum(masked, axis=1),
            "by_image": by_image,
        }
        return jnp.mean(by_image), found

    return loss


def by_channel(found: dict[str, jax.Array], finite: jax.Array) -> Metrics:
    """Metrics of the indices that were to be predicted: of all, and by channel.

    Each index counts alike here; in the loss each image does.
    """
    loss, hits, count = (
        jnp.where(finite, jnp.sum(found[name], axis=0), 0)
        for name in ("loss", "hits", "count")
    )
    metrics = {"accuracy": ratio(jnp.sum(hits), jnp.sum(count))}
    for channel in range(count.shape[0]):
        metrics[f"loss_channel_{channel}"] = ratio(loss[channel], count[channel])
        metrics[f"accuracy_channel_{channel}"] = ratio(hits[channel], count[channel])
    return metrics


def by_quarter(
    config: ConfigDict, found: dict[str, jax.Array], finite: jax.Array
) -> Metrics:
    """The loss of the images of which a quarter, half, ... at most was masked."""
    share = jnp.sum(found["count"], axis=1) / tokens_of(config).units
    quarter = jnp.ceil(share * 4) - 1
    return {
        f"loss_masked_{name}": average(found["by_image"], finite & (quarter == number))
        for number, name in enumerate(QUARTERS)
    }


def save_bundle(
    config: ConfigDict, workdir: epath.Path, state: TrainState, values: dict[str, float]
) -> None:
    """Writes the averaged weights, what they reached and the tokenizer."""
    tokens = config.tokens.to_dict()
    write_prior_bundle(
        workdir / BUNDLE_FOLDER,
        params=jax.device_get(state.ema_params),
        model=config.model.to_dict(),
        tokens={k: v for k, v in tokens.items() if k != "classes"},
        protocol={
            "step": int(state.step),
            "weights": f"average over training, decay {config.train.ema_decay}",
            "dataset": config.data.dataset,
            "split": config.data.split_eval,
            "cache": config.cache.to_dict(),
            "eval": config.data.eval.to_dict(),
            "metrics": values,
            "sample": config.sample.to_dict(),
            "class_dropout": config.loss.class_dropout,
            "classes": tokens["classes"],
            "version": __version__,
        },
        tokenizer=frozen_tokenizer(config.tokenizer, config.tokens.fingerprint),
    )
