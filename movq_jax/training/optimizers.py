"""Optimizers, learning-rate schedules and gradient clipping, from `config.optim`."""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import optax

from movq_jax import families
from movq_jax.errors import UserError


def constant(
    learning_rate: float, warmup_steps: int = 0, *, begins: int = 0
) -> optax.Schedule:
    """Constant, after a linear warm-up from 0."""
    level = optax.constant_schedule(learning_rate)
    return _warmed_up(learning_rate, warmup_steps, level, begins)


def cosine(
    learning_rate: float,
    num_steps: int,
    warmup_steps: int = 0,
    end_factor: float = 0.0,
    *,
    begins: int = 0,
) -> optax.Schedule:
    """Half a cosine down to `end_factor * learning_rate` at `num_steps`."""
    decay_steps = max(1, num_steps - warmup_steps)
    decay = optax.cosine_decay_schedule(learning_rate, decay_steps, alpha=end_factor)
    return _warmed_up(learning_rate, warmup_steps, decay, begins)


def linear(
    learning_rate: float,
    num_steps: int,
    warmup_steps: int = 0,
    end_factor: float = 0.0,
    *,
    begins: int = 0,
) -> optax.Schedule:
    """A line down to `end_factor * learning_rate` at `num_steps`."""
    decay_steps = max(1, num_steps - warmup_steps)
    decay = optax.linear_schedule(
        learning_rate, end_factor * learning_rate, decay_steps
    )
    return _warmed_up(learning_rate, warmup_steps, decay, begins)


def _warmed_up(
    peak: float, warmup_steps: int, decay: optax.Schedule, begins: int
) -> optax.Schedule:
    """The warm-up counts updates, the decay training steps: `begins` more of them."""

    def schedule(count):
        return decay(count + begins)

    if warmup_steps <= 0:
        return schedule
    # Step 0 already moves: the line reaches the peak at step `warmup_steps - 1`.
    warmup = optax.linear_schedule(peak / warmup_steps, peak, warmup_steps - 1)
    return optax.join_schedules([warmup, schedule], [warmup_steps])


SCHEDULES = {"constant": constant, "cosine": cosine, "linear": linear}


def clip_layer_wise(value: float) -> optax.GradientTransformation:
    """Scales each tensor's gradient so that its own L2 norm is at most `value`.

    So a tensor with a large gradient does not make the others' small.
    """

    def clip(gradient):
        norm = optax.tree.norm(gradient)
        return gradient * (value / jnp.maximum(norm, value))

    return optax.stateless(lambda gradients, _: jax.tree.map(clip, gradients))


CLIPPING = {
    "none": optax.identity,
    "global_norm": lambda value: optax.clip_by_global_norm(value),
    "layer_wise": clip_layer_wise,
    "value": lambda value: optax.clip(value),  # each number of the gradient
}


def adam(learning_rate: optax.Schedule, b1: float, b2: float, eps: float = 1e-8):
    """Adam (1412.6980), without weight decay."""
    return optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)


def adamw(
    learning_rate: optax.Schedule,
    b1: float,
    b2: float,
    weight_decay: float,
    eps: float = 1e-8,
):
    """Adam with decoupled weight decay (1711.05101), of what `decayed` selects.

    A step takes `learning_rate * weight_decay` of a decayed parameter off, as in
    torch; the paper's decay is not multiplied by the learning rate.
    """
    return optax.adamw(
        learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decayed
    )


def decayed(params: Any) -> Any:
    """Which parameters decay, as a tree of bools like `params`.

    Kernels with at least two axes. Biases and the scales of norms do not, nor do the
    rows of codebooks: one that no feature chooses would only shrink, step by step.
    """

    def is_decayed(path, param) -> bool:
        names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        # Several kernels of one module are numbered: kernel_0, kernel_1.
        return names[-1].partition("_")[0] == "kernel" and param.ndim >= 2

    return jax.tree_util.tree_map_with_path(is_decayed, params)


OPTIMIZERS = {"adam": adam, "adamw": adamw}

# What a number must be: a test, and the words for the error message.
_RANGES = {
    "learning_rate": (lambda v: 0 <= v < math.inf, "0 is the least"),
    "b1": (lambda v: 0 <= v < 1, "it lies in 0..1, without 1"),
    "b2": (lambda v: 0 <= v < 1, "it lies in 0..1, without 1"),
    "eps": (lambda v: 0 < v < math.inf, "it must be above 0"),
    "weight_decay": (lambda v: 0 <= v < math.inf, "0 is the least"),
    "warmup_steps": (lambda v: 0 <= v < math.inf, "0 is the least"),
    "end_factor": (lambda v: 0 <= v <= 1, "it lies in 0..1"),
    "value": (lambda v: 0 < v < math.inf, "it must be above 0"),
}


def _check_ranges(fields: Mapping[str, Any], where: str) -> None:
    for field, value in fields.items():
        in_range, words = _RANGES.get(field, (None, ""))
        if in_range and not (isinstance(value, Real) and in_range(value)):
            raise UserError(f"{where}.{field} is {value!r}; {words}")


def make_schedule(
    optim: Mapping[str, Any], part: str, begins: int = 0
) -> optax.Schedule:
    """The learning rate of `part` ('gen' or 'disc'): its update's number -> rate.

    Args:
      begins: the training step of its update 0. The warm-up is its own, the decay goes
        with the training steps.

    Raises:
      UserError: an unknown schedule or field, or a number that is out of range.
    """
    fields = _without(
        optim["schedule"], "num_steps", "end_factor", unused_by="constant"
    )
    _check_ranges(fields, "config.optim.schedule")
    rate = {"learning_rate": optim[part]["learning_rate"]}
    _check_ranges(rate, f"config.optim.{part}")
    return families.make(
        SCHEDULES,
        fields,
        "config.optim.schedule",
        rate["learning_rate"],
        begins=begins,
    )


def _without(member: Mapping[str, Any], *names: str, unused_by: str) -> dict[str, Any]:
    """The fields of a member, without those that a config may give but it ignores."""
    fields = {**member}
    if fields.get("name") == unused_by:
        fields = {k: v for k, v in fields.items() if k not in names}
    return fields


def make_optimizer(
    optim: Mapping[str, Any], part: str, begins: int = 0
) -> optax.GradientTransformation:
    """Clipping, then the optimizer of `part` ('gen' or 'disc') with its schedule.

    `begins`: see `make_schedule`.

    Raises:
      UserError: an unknown optimizer, clipping, schedule or field, or a number that
        is out of range.
    """
    fields = {k: v for k, v in optim[part].items() if k != "learning_rate"}
    _check_ranges(fields, f"config.optim.{part}")
    optimizer = families.make(
        OPTIMIZERS, fields, f"config.optim.{part}", make_schedule(optim, part, begins)
    )
    clip = _without(optim["clip"][part], "value", unused_by="none")
    where = f"config.optim.clip.{part}"
    _check_ranges(clip, where)
    return optax.chain(families.make(CLIPPING, clip, where), optimizer)
