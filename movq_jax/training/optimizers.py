"""Optimizers, learning-rate schedules and gradient clipping, from `config.optim`."""

from collections.abc import Mapping
from typing import Any

import optax

from movq_jax import families


def constant(learning_rate: float, warmup_steps: int = 0) -> optax.Schedule:
    """Constant, after a linear warm-up from 0."""
    return _warmed_up(
        learning_rate, warmup_steps, optax.constant_schedule(learning_rate)
    )


def cosine(
    learning_rate: float, num_steps: int, warmup_steps: int = 0, end_factor: float = 0.0
) -> optax.Schedule:
    """Half a cosine down to `end_factor * learning_rate` at `num_steps`."""
    decay_steps = max(1, num_steps - warmup_steps)
    decay = optax.cosine_decay_schedule(learning_rate, decay_steps, alpha=end_factor)
    return _warmed_up(learning_rate, warmup_steps, decay)


def linear(
    learning_rate: float, num_steps: int, warmup_steps: int = 0, end_factor: float = 0.0
) -> optax.Schedule:
    """A line down to `end_factor * learning_rate` at `num_steps`."""
    decay_steps = max(1, num_steps - warmup_steps)
    decay = optax.linear_schedule(
        learning_rate, end_factor * learning_rate, decay_steps
    )
    return _warmed_up(learning_rate, warmup_steps, decay)


def _warmed_up(
    peak: float, warmup_steps: int, schedule: optax.Schedule
) -> optax.Schedule:
    if warmup_steps <= 0:
        return schedule
    # Step 0 already moves: the line reaches the peak at step `warmup_steps - 1`.
    warmup = optax.linear_schedule(peak / warmup_steps, peak, warmup_steps - 1)
    return optax.join_schedules([warmup, schedule], [warmup_steps])


SCHEDULES = {"constant": constant, "cosine": cosine, "linear": linear}

CLIPPING = {
    "none": optax.identity,
    "global_norm": lambda value: optax.clip_by_global_norm(value),
    "value": lambda value: optax.clip(value),
}


def adam(learning_rate: optax.Schedule, b1: float, b2: float, eps: float = 1e-8):
    """Adam without weight decay."""
    return optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)


OPTIMIZERS = {"adam": adam}


def make_schedule(optim: Mapping[str, Any], part: str) -> optax.Schedule:
    """The learning rate of `part` ('gen' or 'disc'): optimizer step -> rate."""
    return families.make(
        SCHEDULES,
        _fields_for(optim["schedule"]),
        "config.optim.schedule",
        optim[part]["learning_rate"],
    )


def _fields_for(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """The constant schedule needs neither length nor end; a config may give them."""
    fields = dict(schedule)
    if fields.get("name") == "constant":
        fields.pop("num_steps", None)
        fields.pop("end_factor", None)
    return fields


def make_optimizer(optim: Mapping[str, Any], part: str) -> optax.GradientTransformation:
    """Clipping, then the optimizer of `part` ('gen' or 'disc') with its schedule."""
    fields = {k: v for k, v in optim[part].items() if k != "learning_rate"}
    optimizer = families.make(
        OPTIMIZERS, fields, f"config.optim.{part}", make_schedule(optim, part)
    )
    clip = {k: v for k, v in optim["clip"].items()}
    if clip.get("name") == "none":
        clip.pop("value", None)
    return optax.chain(families.make(CLIPPING, clip, "config.optim.clip"), optimizer)
