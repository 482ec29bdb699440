"""Options made ready for a compiled function: numbers as arrays, choices as constants.

A `Plan` is a pytree. A function that takes one is compiled once for all plans whose
choices are equal: the numbers may differ.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from movq_jax.errors import UserError
from movq_jax.sampling.guidance import guidance_scales
from movq_jax.sampling.options import SampleOptions
from movq_jax.sampling.orders import Confidence, Halton, Random, make_order
from movq_jax.sampling.schedules import remaining


@flax.struct.dataclass
class Plan:
    """What decoding does in T steps, for a prior of M channels and U units."""

    temperature: jax.Array  # [M] float32, 0: the likeliest token
    top_k: jax.Array | None  # [M] int32, 0: all; None: nowhere
    top_p: jax.Array | None  # [M] float32, 1: all; None: nowhere
    guidance: jax.Array | None  # [T] float32, w at each step; None: nowhere
    # Of masked decoding alone:
    choice: jax.Array | None = None  # [T] float32, scale of the noise in the order
    remaining: jax.Array | None = None  # [T, U + 1] int32, see `schedules.remaining`
    order: Confidence | Random | Halton | None = flax.struct.field(
        pytree_node=False, default=None
    )

    @property
    def streams(self) -> int:
        """2 where each step runs with the class and without it, else 1."""
        return 1 if self.guidance is None else 2


def masked_plan(module: nn.Module, options: SampleOptions | Plan) -> Plan:
    """The plan of a `MaskedPrior`; one that is ready is returned.

    Raises:
      UserError: the options do not fit the prior.
    """
    if isinstance(options, Plan):
        return options
    tokens, steps = module.tokens, options.steps
    units = tokens.num_positions
    if not module.whole_positions:
        units *= tokens.num_channels
    fade = 1 - np.arange(1, steps + 1) / steps
    return Plan(
        **_common(module, options, steps),
        choice=jnp.asarray(options.choice_temperature * fade, jnp.float32),
        remaining=jnp.asarray(remaining(options.schedule, steps, units)),
        order=make_order(options.order),
    )


def autoregressive_plan(module: nn.Module, options: SampleOptions | Plan) -> Plan:
    """The plan of an `AutoregressivePrior`, whose steps are its own, likewise.

    Raises:
      UserError: the options do not fit the prior.
    """
    if isinstance(options, Plan):
        return options
    return Plan(**_common(module, options, module.num_steps))


def _common(module: nn.Module, options: SampleOptions, steps: int) -> dict:
    channels = module.tokens.num_channels
    top_k = options.per_channel("top_k", channels)
    top_p = options.per_channel("top_p", channels)
    scales = None
    if options.guidance:
        if not module.num_classes:
            raise UserError(
                f"sample.guidance is {options.guidance}, but the prior has no classes "
                "to be guided by; set it to 0"
            )
        schedule = options.guidance_schedule
        scales = jnp.asarray(guidance_scales(options.guidance, schedule, steps))
    temperature = options.per_channel("temperature", channels)
    return {
        "temperature": jnp.asarray(temperature, jnp.float32),
        "top_k": jnp.asarray(top_k, jnp.int32) if any(top_k) else None,
        "top_p": jnp.asarray(top_p, jnp.float32) if min(top_p) < 1 else None,
        "guidance": scales,
    }
