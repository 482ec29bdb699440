"""The training state: everything that changes from step to step, as one pytree."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class TrainState:
    """Checkpoint == state + config. The data position is `step` alone."""

    step: jax.Array  # int32, batches seen
    skipped_steps: jax.Array  # int32, those whose loss or gradient was not finite
    skipped_in_row: jax.Array  # int32, of the latest steps
    gen_params: Any
    gen_opt: Any
    ema_params: Any  # running average of gen_params
    disc_params: Any  # {} without a discriminator
    disc_opt: Any
    variables: Any  # {'gen': ..., 'disc': ...}: collections that are not parameters


def advance(old: TrainState, new: TrainState, finite: jax.Array) -> TrainState:
    """One step further: `new` if the step was finite, else the values of `old`.

    `step`, `skipped_steps` and `skipped_in_row` go on in either case; parameters,
    codebook, averages, optimizers and statistics keep their old values in a bad step.
    """
    kept = jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
    bad = 1 - finite.astype(jnp.int32)
    return kept.replace(
        step=old.step + 1,
        skipped_steps=old.skipped_steps + bad,
        skipped_in_row=(old.skipped_in_row + 1) * bad,
    )


def ema_update(ema: Any, params: Any, step: jax.Array, decay: float) -> Any:
    """`ema <- d ema + (1 - d) params`, d = min(decay, (1 + step) / (10 + step)).

    The warm-up lets the average forget its random start.
    """
    d = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda e, p: d * e + (1.0 - d) * p, ema, params)
