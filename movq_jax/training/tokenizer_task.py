"""The tokenizer stage: its state, its training step, its evaluation step.

One jitted step trains generator and discriminator; the generator's gradients come
through the seam, see `movq_jax.training.seam`.

Deviation from VQGAN's code: the discriminator learns from the same reconstruction
that trained the generator, not from a second one made after the generator's update.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from ml_collections import ConfigDict

from movq_jax import __version__
from movq_jax.evaluation.codebooks.counts import CodeCounts, count_codes
from movq_jax.evaluation.pictures import comparison_grid
from movq_jax.models.pixels import from_uint8, to_uint8
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.bundle import FOLDER as BUNDLE_FOLDER
from movq_jax.pretrained.bundle import write_bundle
from movq_jax.randomness import named_key
from movq_jax.training import codebook_init, codebooks, similarity
from movq_jax.training.accumulation import accumulate
from movq_jax.training.checks import check as check  # the loop asks for it here
from movq_jax.training.discriminator_step import (
    init_discriminator,
    make_discriminator_gradients,
    make_discriminator_optimizer,
    r1_is_due,
)
from movq_jax.training.generator_step import (
    make_generator_gradients,
    make_reconstruction_loss,
)
from movq_jax.training.image_inputs import batch_at as batch_at
from movq_jax.training.image_inputs import eval_batches as eval_batches
from movq_jax.training.image_inputs import train_batches as train_batches
from movq_jax.training.init_from import with_model
from movq_jax.training.metrics import Metrics, average
from movq_jax.training.optimizers import make_optimizer
from movq_jax.training.perceptual import make_perceptual
from movq_jax.training.state import TrainState, advance, ema_update

Batch = dict[str, jax.Array]  # image: uint8 [B, H, W, 3]; mask: bool [B] in evaluation

MAX_COUNTED = 2**18  # codes of a book
PHASES = ("reconstruction", "warmup", "adversarial")


def resolve(config: ConfigDict, workdir: epath.PathLike, train: Any) -> ConfigDict:
    """A tokenizer's config says everything already, but for `config.init_from`.

    Raises:
      UserError: see `init_from.with_model`.
    """
    del train
    return with_model(config, workdir)


def score(values: dict[str, float]) -> float:
    """Of the metrics of an evaluation: the larger, the better."""
    return values["val/psnr"]


def init_state(config: ConfigDict) -> TrainState:
    """The state before the first step. Pure: to be jitted or `eval_shape`d."""
    image = jnp.zeros((1, config.data.image_size, config.data.image_size, 3))
    gen = build_tokenizer(config.model).init(named_key(config.seed, "gen"), image)
    gen_params = gen.pop("params")
    disc, disc_params, disc_opt = {"disc": {}}, {}, ()
    if config.loss.adversarial.name != "none":
        disc_params, disc = init_discriminator(config, image)
        disc_opt = make_discriminator_optimizer(config).init(disc_params)
    books = codebooks.init_books(config, gen_params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        skipped_steps=jnp.zeros((), jnp.int32),
        skipped_in_row=jnp.zeros((), jnp.int32),
        gen_params=gen_params,
        gen_opt=make_optimizer(config.optim, "gen").init(gen_params),
        ema_params=jax.tree.map(jnp.copy, gen_params),
        disc_params=disc_params,
        disc_opt=disc_opt,
        variables={"gen": gen, "codebooks": books, **disc},
    )


def with_params(config: ConfigDict, state: TrainState, params: Any) -> TrainState:
    """A state before the first step that begins with other weights."""
    books = codebooks.init_books(config, params)
    return state.replace(
        gen_params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        variables={**state.variables, "codebooks": books},
    )


def load_frozen(config: ConfigDict) -> dict[str, Any]:
    """Weights of the networks that losses look through; they are no part of the state.

    Raises:
      UserError: a file is missing or is not what it should be.
    """
    perceptual = make_perceptual(config.loss.perceptual)
    return {} if perceptual is None else {"perceptual": perceptual.load()}


def abstract_frozen(config: ConfigDict) -> dict[str, Any]:
    """Shapes and dtypes of `load_frozen`, without the files."""
    perceptual = make_perceptual(config.loss.perceptual)
    return {} if perceptual is None else {"perceptual": perceptual.abstract()}


def fits_to_data(config: ConfigDict, step: int) -> bool:
    """Whether `fit_to_data` comes before the training step `step`."""
    return codebook_init.is_due(config, step)


def fit_to_data(
    config: ConfigDict, state: TrainState, batches: Iterable[Batch]
) -> TrainState:
    """The codebooks anew from encoder features, see `codebook_init`."""
    step = int(state.step)
    rows = codebook_init.from_data(config, state.gen_params, batches, step)
    return codebooks.start_anew(config, state, rows)


def phase(config: ConfigDict, step: int) -> str:
    """Which of the compiled steps trains at `step`."""
    adversarial = config.loss.adversarial
    if adversarial.name == "none" or step < adversarial.start - adversarial.warmup:
        return "reconstruction"
    return "warmup" if step < adversarial.start else "adversarial"


def make_train_step(
    config: ConfigDict, phase: str
) -> Callable[[TrainState, Batch, Any], tuple[TrainState, Metrics]]:
    """(state, batch, frozen) -> (state, metrics) for one of `PHASES`, to be jitted.

    In 'reconstruction' there is no discriminator; in 'warmup' it learns, and in
    'adversarial' it pushes the generator as well.
    """
    gradients = _make_gradients(config, phase)
    update = _make_update(config)
    count = make_count(config)

    def train_step(state: TrainState, batch: Batch, frozen: Any):
        variables, (grads, scalars, stats), (z, ids) = accumulate(
            lambda variables, images, number: gradients(
                state, variables, images, number, frozen
            ),
            state.variables,
            batch["image"],
            config.train.accumulation,
        )
        new, norms = update(state.replace(variables=variables), grads, z, ids)
        scalars |= norms
        finite = jnp.all(jnp.isfinite(jnp.stack(list(scalars.values()))))
        new = advance(state, new, finite)
        metrics = {name: average(v, finite) for name, v in (scalars | stats).items()}
        if "r1" in metrics:  # of the steps that have it
            counted = finite & r1_is_due(config, state.step)
            metrics["r1"] = average(scalars["r1"], counted)
        kept = jnp.broadcast_to(finite, ids.shape[:1])
        metrics["codes"] = count(ids, kept)
        return new, metrics

    return train_step


def _make_gradients(config: ConfigDict, phase: str) -> Callable:
    """(state, variables, uint8 images, number, frozen) -> what `accumulate` asks for.

    The number of the micro-batch tells its randomness from that of the others.
    """
    gen_gradients = make_generator_gradients(config, phase)
    disc_gradients = None
    if phase != "reconstruction":
        disc_gradients = make_discriminator_gradients(config)

    def gradients(state, variables, images, number, frozen):
        x = from_uint8(images)
        key = jax.random.fold_in(named_key(config.seed, "step", state.step), number)
        gen = gen_gradients(state, variables, x, frozen, key)
        variables = {**variables, "gen": gen.variables}
        grads, scalars = {"gen": gen.grads}, gen.scalars
        if disc_gradients is not None:
            disc = disc_gradients(state, variables, x, gen.x_hat, key)
            variables, grads["disc"] = disc.variables, disc.grads
            scalars = scalars | disc.scalars
        return variables, (grads, scalars, gen.stats), (gen.z, gen.ids)

    return gradients


def _make_update(config: ConfigDict) -> Callable:
    """(state, {'gen': gradients, 'disc': gradients or absent}, z, ids) -> state, norms.

    Optimizers first, then the rule of the codebooks, then the running average.
    """
    decay = config.train.ema_decay
    blind = codebooks.without_rows(config)
    move_books = codebooks.make_update(config)

    def apply(optimizer, grads, opt_state, params):
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def update(state: TrainState, grads: dict[str, Any], z, ids):
        gen_grads = blind(grads["gen"])
        optimizer = make_optimizer(config.optim, "gen")
        params, gen_opt = apply(optimizer, gen_grads, state.gen_opt, state.gen_params)
        new = state.replace(gen_params=params, gen_opt=gen_opt)
        if move_books is not None:
            key = named_key(config.seed, "codebook_update", state.step)
            new = move_books(new, state.gen_params, z, ids, key)
        new = new.replace(
            ema_params=ema_update(new.ema_params, new.gen_params, state.step, decay)
        )
        norms = {
            "grad_norm": optax.tree.norm(gen_grads),
            "param_norm": optax.tree.norm(new.gen_params),
        }
        if "disc" in grads:
            optimizer = make_discriminator_optimizer(config)
            params, disc_opt = apply(
                optimizer, grads["disc"], state.disc_opt, state.disc_params
            )
            new = new.replace(disc_params=params, disc_opt=disc_opt)
            norms["disc_grad_norm"] = optax.tree.norm(grads["disc"])
            norms["disc_param_norm"] = optax.tree.norm(params)
        return new, norms

    return update


def make_eval_step(config: ConfigDict) -> Callable[[TrainState, Batch, Any], Metrics]:
    """(state, batch with mask, frozen) -> metrics of the averaged weights.

    PSNR and SSIM are those of the rounded uint8 images, averaged over images; there is
    no SSIM of images that are smaller than its window.
    """
    count = make_count(config)
    reconstruct = make_reconstruct(config)
    rec_loss = make_reconstruction_loss(config)
    perceive = make_perceptual(config.loss.perceptual)

    def eval_step(state: TrainState, batch: Batch, frozen: Any) -> Metrics:
        x, mask = from_uint8(batch["image"]), batch["mask"]
        out = reconstruct(state, x)
        shown = to_uint8(out.x_hat)
        error = batch["image"].astype(jnp.float32) - shown.astype(jnp.float32)
        mse = jnp.maximum(jnp.mean(jnp.square(error), axis=(1, 2, 3)), 1e-10)
        metrics = {
            "psnr": average(20 * jnp.log10(255.0) - 10 * jnp.log10(mse), mask),
            "loss_rec": average(jax.vmap(rec_loss)(x, out.x_hat), mask),
            "codes": count(out.quantized.ids, mask),
            "quantisation_mse": average(out.quantized.stats["quantisation_mse"], mask),
        }
        if min(shown.shape[1:3]) >= similarity.MIN_SIDE:
            metrics["ssim"] = average(similarity.ssim(batch["image"], shown), mask)
        if perceive is not None:
            distance = perceive(frozen["perceptual"], x, out.x_hat)
            metrics["loss_perceptual"] = average(distance, mask)
        return metrics

    return eval_step


def make_judged(
    config: ConfigDict,
) -> Callable[[TrainState, Batch, Any], tuple[jax.Array, jax.Array]]:
    """(state, batch, frozen) -> reconstructions and originals, uint8 [B, H, W, 3]."""
    reconstruct = make_reconstruct(config)

    def judged(state: TrainState, batch: Batch, frozen: Any):
        del frozen
        images = batch["image"]
        return to_uint8(reconstruct(state, from_uint8(images)).x_hat), images

    return judged


def make_count(config: ConfigDict) -> Callable[[jax.Array, jax.Array], CodeCounts]:
    """(ids [B, h, w, M], mask [B]) -> how often which code of which book was chosen.

    Books of more than `MAX_COUNTED` codes, which are implicit ones, are left out: a
    count of each would be larger than the images.
    """
    tokenizer = build_tokenizer(config.model)
    sizes, books = tokenizer.codebook_sizes, tokenizer.channel_books
    kept = [channel for channel, size in enumerate(sizes) if size <= MAX_COUNTED]
    names = [books[channel] for channel in kept]
    numbers = [sizes[channel] for channel in kept]

    def count(ids: jax.Array, mask: jax.Array | None = None) -> CodeCounts:
        return count_codes(ids[..., kept], mask, sizes=numbers, books=names)

    return count


def make_reconstruct(config: ConfigDict) -> Callable:
    """(state, x [B, H, W, 3]) -> TokenizerOutput of the averaged weights."""
    tokenizer = build_tokenizer(config.model)

    def reconstruct(state: TrainState, x: jax.Array):
        return tokenizer.apply(
            {"params": state.ema_params, **state.variables["gen"]}, x
        )

    return reconstruct


def preview(
    config: ConfigDict,
) -> Callable[[TrainState, Batch, Any], dict[str, np.ndarray]]:
    """(state, batch, frozen) -> pictures for the log: name -> uint8 [H, W, 3]."""
    reconstruct = make_reconstruct(config)

    @jax.jit
    def shown(state, images):
        return to_uint8(reconstruct(state, from_uint8(images)).x_hat)

    def pictures(state: TrainState, batch: Batch, frozen: Any) -> dict[str, np.ndarray]:
        del frozen
        reconstructions = np.asarray(shown(state, batch["image"]))
        originals = np.asarray(batch["image"])
        keep = np.asarray(batch["mask"])
        grid = comparison_grid(originals[keep], reconstructions[keep])
        return {"val/reconstructions": grid}

    return pictures


def save_bundle(
    config: ConfigDict, workdir: epath.Path, state: TrainState, values: dict[str, float]
) -> None:
    """Writes the averaged weights and what they reached to `<workdir>/model`."""
    write_bundle(
        workdir / BUNDLE_FOLDER,
        kind="tokenizer",
        params=jax.device_get(state.ema_params),
        model=config.model.to_dict(),
        protocol={
            "step": int(state.step),
            "weights": f"average over training, decay {config.train.ema_decay}",
            "dataset": config.data.dataset,
            "split": config.data.split_eval,
            "eval": config.data.eval.to_dict(),
            "metrics": values,
            "version": __version__,
        },
    )
