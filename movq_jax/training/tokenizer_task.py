"""The tokenizer stage: its state, its training step, its evaluation step.

One jitted step trains generator and discriminator; the generator's gradients come
through the seam, see `movq_jax.training.seam`.

Deviation from VQGAN's code: the discriminator learns from the same reconstruction
that trained the generator, not from a second one made after the generator's update.
"""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from ml_collections import ConfigDict

from movq_jax import __version__, families
from movq_jax.errors import UserError
from movq_jax.evaluation.codebook import count_codes
from movq_jax.evaluation.pictures import comparison_grid
from movq_jax.models.discriminators import DISCRIMINATORS
from movq_jax.models.pixels import from_uint8, to_uint8
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.bundle import FOLDER as BUNDLE_FOLDER
from movq_jax.pretrained.bundle import write_bundle
from movq_jax.training import codebook_init
from movq_jax.training.losses import ADVERSARIAL_LOSSES, RECONSTRUCTION_LOSSES
from movq_jax.training.metrics import Metrics, average
from movq_jax.training.optimizers import make_optimizer
from movq_jax.training.randomness import named_key
from movq_jax.training.seam import AdversarialTerm, generator_gradients
from movq_jax.training.state import TrainState, advance, ema_update

Batch = dict[str, jax.Array]  # image: uint8 [B, H, W, 3]; mask: bool [B] in evaluation

BEST_METRIC = "val/psnr"  # the larger, the better
PHASES = ("reconstruction", "adversarial")


def check(config: ConfigDict) -> None:
    """Refuses what would only fail, or mislead, in the middle of training.

    Raises:
      UserError: image sizes that the model's factor does not divide, and the like.
    """
    factor = build_tokenizer(config.model).factor
    sizes = {"image_size": config.data.image_size}
    sizes["eval.image_size"] = config.data.eval.image_size or config.data.image_size
    for name, size in sizes.items():
        if size % factor:
            raise UserError(
                f"config.data.{name} is {size}, but must be a multiple of {factor}, "
                "the factor of config.model"
            )
    if not 0 <= config.train.ema_decay <= 1:
        raise UserError(
            f"config.train.ema_decay is {config.train.ema_decay}; it lies in 0..1"
        )


def init_state(config: ConfigDict) -> TrainState:
    """The state before the first step. Pure: to be jitted or `eval_shape`d."""
    image = jnp.zeros((1, config.data.image_size, config.data.image_size, 3))
    gen = build_tokenizer(config.model).init(named_key(config.seed, "gen"), image)
    gen_params = gen.pop("params")
    disc, disc_params, disc_opt = {}, {}, ()
    if config.loss.adversarial.name != "none":
        disc = _discriminator(config).init(named_key(config.seed, "disc"), image)
        disc_params = disc.pop("params")
        disc_opt = make_optimizer(config.optim, "disc").init(disc_params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        skipped_steps=jnp.zeros((), jnp.int32),
        skipped_in_row=jnp.zeros((), jnp.int32),
        gen_params=gen_params,
        gen_opt=make_optimizer(config.optim, "gen").init(gen_params),
        ema_params=jax.tree.map(jnp.copy, gen_params),
        disc_params=disc_params,
        disc_opt=disc_opt,
        variables={"gen": gen, "disc": disc},
    )


def fits_to_data(config: ConfigDict, step: int) -> bool:
    """Whether `fit_to_data` comes before the training step `step`."""
    start = config.train.codebook_init
    return start.name != "none" and step in start.steps


def fit_to_data(
    config: ConfigDict, state: TrainState, batches: Iterable[Batch]
) -> TrainState:
    """The codebook anew from encoder features, see `codebook_init`."""
    codebook = codebook_init.from_data(config, state.gen_params, batches)
    return state.replace(
        gen_params=codebook_init.with_codebook(state.gen_params, codebook),
        # A copy: a buffer that occurs twice in the state cannot be donated.
        ema_params=codebook_init.with_codebook(state.ema_params, jnp.copy(codebook)),
    )


def phase(config: ConfigDict, step: int) -> str:
    """Which of the compiled steps trains at `step`."""
    adversarial = config.loss.adversarial
    if adversarial.name == "none" or step < adversarial.start:
        return "reconstruction"
    return "adversarial"


def make_train_step(
    config: ConfigDict, phase: str
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """(state, batch) -> (state, metrics) for one of `PHASES`, to be jitted.

    In 'reconstruction' the discriminator neither pushes nor learns, and is not run.
    """
    gen_step = _make_generator_step(config, phase)
    disc_step = _make_discriminator_step(config)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        x = from_uint8(batch["image"])
        new, x_hat, scalars, metrics = gen_step(state, x)
        if phase == "adversarial":
            new, disc_scalars = disc_step(new, x, x_hat)
            scalars |= disc_scalars
        finite = jnp.all(jnp.isfinite(jnp.stack(list(scalars.values()))))
        new = advance(state, new, finite)
        metrics |= {name: average(value, finite) for name, value in scalars.items()}
        return new, metrics

    return train_step


def _make_generator_step(config: ConfigDict, phase: str) -> Callable:
    """(state, x) -> (state, x_hat, scalars that must be finite, other metrics)."""
    tokenizer = build_tokenizer(config.model)
    optimizer = make_optimizer(config.optim, "gen")
    rec_loss = _reconstruction_loss(config)
    decay = config.train.ema_decay

    def gen_step(state: TrainState, x: jax.Array):
        key = named_key(config.seed, "dropout", state.step)
        variables = state.variables["gen"]

        def generate(params):
            out, updated = tokenizer.apply(
                {"params": params, **variables},
                x,
                train=True,
                rngs={"dropout": key},
                mutable=list(variables),
            )
            return (out.x_hat, out.quantized.loss), (out.quantized, updated)

        pushed = _adversarial_term(config, state) if phase == "adversarial" else None
        grads, x_hat, scalars, (quantized, updated) = generator_gradients(
            generate,
            state.gen_params,
            rec_loss=lambda x_hat: rec_loss(x, x_hat),
            quantizer_weight=config.loss.quantizer_weight,
            adversarial=pushed,
        )
        scalars["grad_norm"] = optax.tree.norm(grads)
        updates, gen_opt = optimizer.update(grads, state.gen_opt, state.gen_params)
        params = optax.apply_updates(state.gen_params, updates)
        scalars["param_norm"] = optax.tree.norm(params)
        new = state.replace(
            gen_params=params,
            gen_opt=gen_opt,
            ema_params=ema_update(state.ema_params, params, state.step, decay),
            variables={**state.variables, "gen": updated},
        )
        metrics = {name: average(value) for name, value in quantized.stats.items()}
        metrics["codes"] = count_codes(quantized.ids, tokenizer.codebook_size)
        return new, x_hat, scalars, metrics

    return gen_step


def _adversarial_term(config: ConfigDict, state: TrainState) -> AdversarialTerm:
    """The push of the discriminator as it is before this step."""
    options = config.loss.adversarial
    loss = families.member(ADVERSARIAL_LOSSES, options.name, "config.loss.adversarial")

    def adv_loss(x_hat):
        logits, _ = _discriminate(
            config, state.disc_params, state.variables["disc"], x_hat
        )
        return loss.generator(logits)

    return AdversarialTerm(
        adv_loss, options.weight, options.adaptive, options.adaptive_max
    )


def _make_discriminator_step(config: ConfigDict) -> Callable:
    """(state, x, x_hat) -> (state, scalars). The generator is left alone."""
    name = config.loss.adversarial.name
    if name == "none":
        return None
    where = "config.loss.adversarial"
    loss_fn = families.member(ADVERSARIAL_LOSSES, name, where).discriminator
    optimizer = make_optimizer(config.optim, "disc")

    def disc_step(state: TrainState, x: jax.Array, x_hat: jax.Array):
        def disc_loss(params):
            # Two calls: batch norm takes its statistics of real and fake apart.
            variables = state.variables["disc"]
            real, variables = _discriminate(config, params, variables, x)
            fake, variables = _discriminate(config, params, variables, x_hat)
            means = {"logits_real": jnp.mean(real), "logits_fake": jnp.mean(fake)}
            return loss_fn(real, fake), (variables, means)

        (loss, (variables, means)), grads = jax.value_and_grad(disc_loss, has_aux=True)(
            state.disc_params
        )
        updates, disc_opt = optimizer.update(grads, state.disc_opt, state.disc_params)
        params = optax.apply_updates(state.disc_params, updates)
        new = state.replace(
            disc_params=params,
            disc_opt=disc_opt,
            variables={**state.variables, "disc": variables},
        )
        scalars = {
            "loss_disc": loss,
            "disc_grad_norm": optax.tree.norm(grads),
            "disc_param_norm": optax.tree.norm(params),
        }
        return new, scalars | means

    return disc_step


def _discriminate(config, params, variables, x):
    """Logits of x [B, H, W, 3] with batch statistics, and the updated variables."""
    return _discriminator(config).apply(
        {"params": params, **variables}, x, train=True, mutable=list(variables)
    )


def make_eval_step(config: ConfigDict) -> Callable[[TrainState, Batch], Metrics]:
    """(state, batch with mask) -> metrics of the averaged weights, to be jitted.

    PSNR is that of the rounded uint8 images, averaged over images.
    """
    tokenizer = build_tokenizer(config.model)
    reconstruct = make_reconstruct(config)
    rec_loss = _reconstruction_loss(config)

    def eval_step(state: TrainState, batch: Batch) -> Metrics:
        x, mask = from_uint8(batch["image"]), batch["mask"]
        out = reconstruct(state, x)
        shown = to_uint8(out.x_hat).astype(jnp.float32)
        error = jnp.square(batch["image"].astype(jnp.float32) - shown)
        mse = jnp.maximum(jnp.mean(error, axis=(1, 2, 3)), 1e-10)
        return {
            "psnr": average(20 * jnp.log10(255.0) - 10 * jnp.log10(mse), mask),
            "loss_rec": average(jax.vmap(rec_loss)(x, out.x_hat), mask),
            "codes": count_codes(out.quantized.ids, tokenizer.codebook_size, mask),
        }

    return eval_step


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
) -> Callable[[TrainState, Batch], dict[str, np.ndarray]]:
    """(state, batch) -> pictures for the log: name -> uint8 [H, W, 3]."""
    reconstruct = make_reconstruct(config)

    @jax.jit
    def shown(state, images):
        return to_uint8(reconstruct(state, from_uint8(images)).x_hat)

    def pictures(state: TrainState, batch: Batch) -> dict[str, np.ndarray]:
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


def _reconstruction_loss(config: ConfigDict) -> Callable:
    options = config.loss.reconstruction
    where = "config.loss.reconstruction"
    loss = families.member(RECONSTRUCTION_LOSSES, options.name, where)
    return lambda x, x_hat: options.weight * loss(x, x_hat)


def _discriminator(config: ConfigDict):
    return families.make(
        DISCRIMINATORS,
        config.loss.discriminator,
        "config.loss.discriminator",
        dtype=jnp.dtype(config.model.dtype),
    )
