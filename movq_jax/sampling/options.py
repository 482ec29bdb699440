"""The options of sampling, checked as a whole. See `SampleOptions`."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.fields import check_number, check_size, is_number, is_whole
from movq_jax.sampling.guidance import guidance_scales
from movq_jax.sampling.orders import make_order
from movq_jax.sampling.schedules import make_schedule


def _named(name: str, **fields: Any) -> Any:
    return dataclasses.field(default_factory=lambda: {"name": name, **fields})


@dataclasses.dataclass(frozen=True)
class SampleOptions:
    """How to draw from a prior.

    An autoregressive prior uses temperature, top_k, top_p, guidance and
    guidance_schedule alone.

    Attributes:
      steps: T of masked decoding, from 1.
      schedule: of how many units are unknown after each step, {name: 'cosine'},
        'arccos', 'linear', or {name: 'power', exponent: 2.0}.
      temperature: that logits are divided by; 0 takes the likeliest token. One number,
        or one for each channel; so are the next two.
      top_k: only the k likeliest tokens are drawn; 0: all.
      top_p: of those only the likeliest that together have probability p; 1: all.
      choice_temperature: of the noise in the order `confidence`. It fades to 0 at the
        last step. MaskGIT has 4.5; with guidance 7.5 to 10.5 are usual.
      guidance: w in `(1 + w) conditional - w unconditional`; 0: none. For a
        class-conditional prior.
      guidance_schedule: of w, {name: 'constant'}, 'linear', or {name: 'power_cosine',
        power: 3.0}.
      order: {name: 'confidence'}, 'random', or {name: 'halton', roll: False}.

    Raises:
      UserError: a value makes no sense.
    """

    steps: int = 12
    schedule: Mapping[str, Any] = _named("cosine")
    temperature: float | tuple[float, ...] = 1.0
    top_k: int | tuple[int, ...] = 0
    top_p: float | tuple[float, ...] = 1.0
    choice_temperature: float = 4.5
    guidance: float = 0.0
    guidance_schedule: Mapping[str, Any] = _named("constant")
    order: Mapping[str, Any] = _named("confidence")

    def __post_init__(self):
        check_size("sample.steps", self.steps)
        make_schedule(self.schedule)
        make_order(self.order)
        check_number("sample.choice_temperature", self.choice_temperature)
        check_number("sample.guidance", self.guidance)
        guidance_scales(self.guidance, self.guidance_schedule, 1)
        for name, (fits, words) in _PER_CHANNEL.items():
            value = getattr(self, name)
            each = value if isinstance(value, tuple) else (value,)
            if not each or not all(map(fits, each)):
                raise UserError(
                    f"sample.{name} is {value!r}; give {words}, or a tuple of one for "
                    "each channel"
                )

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "SampleOptions":
        """Options of a mapping, such as the `sample` section of a config.

        What is missing has its default; 'linear' is {name: 'linear'}.

        Raises:
          UserError: `fields` is no mapping, has an unknown field, or a value that makes
            no sense.
        """
        if not hasattr(fields, "items"):  # a ConfigDict is no Mapping
            raise UserError(f"sample is {fields!r}; give a dict of options")
        known = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in known:
                suggestion = families.nearest(name, known)
                raise UserError(f"sample has no field {name!r}{suggestion}")
        values = {name: _plain(value) for name, value in {**fields}.items()}
        for name in _NAMED & values.keys():
            if isinstance(values[name], str):
                values[name] = {"name": values[name]}
        return cls(**values)

    def per_channel(self, name: str, channels: int) -> tuple[float, ...]:
        """temperature, top_k or top_p of each of M channels.

        Raises:
          UserError: there are values for another number of channels.
        """
        value = getattr(self, name)
        if not isinstance(value, tuple):
            return (value,) * channels
        if len(value) != channels:
            raise UserError(
                f"sample.{name} has {len(value)} values, but the prior has {channels} "
                "channels; give one value, or one for each channel"
            )
        return value


def _plain(value: Any) -> Any:
    """Lists of JSON as tuples, a ConfigDict as a dict."""
    if isinstance(value, list):
        return tuple(value)
    return {**value} if hasattr(value, "items") else value


_NAMED = {"schedule", "guidance_schedule", "order"}  # each {name: ..., fields}


def _is_temperature(value: Any) -> bool:
    return is_number(value) and 0 <= value < math.inf


def _is_probability(value: Any) -> bool:
    return is_number(value) and 0 < value <= 1


def _is_count(value: Any) -> bool:
    return is_whole(value) and 0 <= value < 2**31


_PER_CHANNEL = {
    "temperature": (_is_temperature, "a number from 0"),
    "top_k": (_is_count, "a whole number from 0"),
    "top_p": (_is_probability, "a number above 0 and at most 1"),
}
