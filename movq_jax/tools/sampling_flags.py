"""The flags of the commands that draw from a prior."""

import argparse
import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any

import movq_jax
from movq_jax.data.codes import MAX_MICRO_BATCH
from movq_jax.errors import UserError
from movq_jax.tools import command
from movq_jax.tools.feeding import is_out_of_memory

MAX_SEED = 2**32 - 1
MAX_STEPS = 2**20

# The field that `NAME:VALUE` sets, and how it is read.
_FIELDS = {
    "power": ("exponent", float),
    "power_cosine": ("power", float),
    "halton": ("roll", {"roll": True}.__getitem__),
}


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--model` and `--micro-batch`."""
    parser.add_argument(
        "--model", required=True, help="a prior's run folder, or the model folder in it"
    )
    parser.add_argument(
        "--micro-batch",
        type=command.micro_batch,
        metavar="N",
        help=f"images a compiled call on each device, at most {MAX_MICRO_BATCH}; the "
        "last bits may depend on it (default: the model's choice for this device)",
    )


def add_flags(parser: argparse.ArgumentParser, *, masked: bool = True) -> None:
    """Add `--seed` and how to draw. What is not given is the model's default.

    Args:
        parser: of the command.
        masked: with what only a masked prior has a use for.
    """
    parser.add_argument(
        "--seed", type=seed, default=0, help="another one, other images (default: 0)"
    )
    add_option_flags(parser, masked=masked)


def add_option_flags(parser: argparse.ArgumentParser, *, masked: bool = True) -> None:
    """Add how to draw, without `--seed`; see `add_flags`."""
    title = "how to draw (default: what the prior's config says)"
    _add_draw_flags(parser.add_argument_group(title))
    if masked:
        _add_masked_flags(parser.add_argument_group("how a masked prior draws"))
    else:
        parser.set_defaults(**dict.fromkeys(MASKED_ONLY))


def _add_draw_flags(group: Any) -> None:
    group.add_argument(
        "--temperature",
        type=_numbers,
        metavar="T",
        help="below 1 likelier indices, above 1 more variety; or one a channel: 1,0.9",
    )
    group.add_argument(
        "--top-k",
        type=_whole_numbers,
        metavar="K",
        help="draw from the K likeliest indices alone; 0: all; or one a channel",
    )
    group.add_argument(
        "--top-p",
        type=_numbers,
        metavar="P",
        help="draw from the likeliest that have the share P together; 1: all; or one a "
        "channel",
    )
    group.add_argument(
        "--guidance",
        type=_number,
        metavar="W",
        help="towards the class: (1 + W) with it - W without it; 0: off (others count "
        "1 + W)",
    )
    group.add_argument(
        "--guidance-schedule",
        type=_member,
        metavar="NAME",
        help="constant, linear or power_cosine:3",
    )


def _add_masked_flags(group: Any) -> None:
    group.add_argument("--steps", type=_steps, help="calls of the prior for an image")
    group.add_argument(
        "--schedule",
        type=_member,
        metavar="NAME",
        help="cosine, arccos, linear or power:2",
    )
    group.add_argument(
        "--choice-temperature",
        type=_number,
        metavar="T",
        help="noise in which indices are kept (order `confidence`)",
    )
    group.add_argument(
        "--order",
        type=_member,
        metavar="NAME",
        help="what is kept first: confidence, random, halton or halton:roll",
    )


MASKED_ONLY = ("steps", "schedule", "choice_temperature", "order")
NAMES = (
    "steps",
    "schedule",
    "temperature",
    "top_k",
    "top_p",
    "choice_temperature",
    "guidance",
    "guidance_schedule",
    "order",
)


def options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the flags say of how to draw: fields of `SampleOptions`."""
    given = {name: getattr(args, name) for name in NAMES}
    return {name: value for name, value in given.items() if value is not None}


def load_prior(path: str, micro_batch: int | None) -> Any:
    """Return the prior at `path`, its compiled programs kept on disk.

    Raises:
        UserError: there is none, or it is a tokenizer.
    """
    # Only now: jax takes a second to import, which --help need not wait for.
    from movq_jax import compilation_cache

    compilation_cache.enable()
    model = movq_jax.load(path, micro_batch=micro_batch)
    if not hasattr(model, "sample"):
        raise UserError(
            f"--model={path} is a tokenizer, which draws nothing new: give a prior "
            "that was trained on its indices"
        )
    return model


def check_options(prior: Any, given: dict[str, Any]) -> None:
    """Refuse options that the prior has no use for.

    Raises:
        UserError: names the flag.
    """
    if prior.kind == "autoregressive":
        for name in MASKED_ONLY:
            if name in given:
                raise UserError(
                    f"{flag(name)} is for masked priors, and this one is "
                    "autoregressive: it draws index after index"
                )
    if not prior.num_classes and given.get("guidance"):
        raise UserError(
            "--guidance leads towards a class, and this prior is unconditional: leave "
            "it out"
        )
    if given.get("guidance") and prior.knows_classes_alone:
        raise UserError(
            "--guidance leads away from drawing without a class, and this prior never "
            "learned that (config.loss.class_dropout was 0): leave it out"
        )
    for name in ("temperature", "top_k", "top_p"):
        value = given.get(name)
        if isinstance(value, tuple) and len(value) != prior.num_channels:
            raise UserError(
                f"{flag(name)} has {len(value)} values and the prior "
                f"{prior.num_channels} channels: give one for all, or one a channel"
            )
    if "steps" in given and given["steps"] > prior.num_units:
        raise UserError(
            f"--steps={given['steps']} is more than the {prior.num_units} units that "
            "the prior can draw one after the other: give that many or fewer"
        )
    try:
        prior.chosen(**given)
    except UserError as error:
        raise UserError(_with_flags(str(error))) from error


def _with_flags(message: str) -> str:
    """Return a message about fields of the options as one about flags."""
    return re.sub(r"\bsample\.(\w+)", lambda field: flag(field[1]), message)


def classes(prior: Any, text: str) -> list[int]:
    """Return the numbers of the classes that `--classes=text` names, each once.

    Raises:
        UserError: there is no such class.
    """
    # Only now: it imports jax.
    from movq_jax.pretrained.classes import class_numbers, split_names

    wanted = split_names(text, prior.classes)
    numbers = class_numbers(wanted, prior.classes, prior.num_classes)
    return list(dict.fromkeys(numbers))


def without_classes(prior: Any, named: Any, options: dict[str, Any]) -> None:
    """Where no class is named there is nothing to guide to: draw without, in place.

    Raises:
        UserError: guidance was asked for, or the prior cannot do without a class.
    """
    if named is not None:
        return
    if prior.knows_classes_alone:
        raise UserError(
            "this prior never learned to draw without a class "
            "(config.loss.class_dropout was 0): give --classes"
        )
    if options.get("guidance"):
        raise UserError("--guidance leads towards a class: give --classes")
    if prior.options.guidance:
        options["guidance"] = 0.0  # the model's own would double the work for nothing


@contextlib.contextmanager
def memory_explained(prior: Any) -> Iterator[None]:
    """Say what to do where memory does not suffice.

    Raises:
        UserError: it did not.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        size = prior.micro_batch
        advice = "lower --micro-batch" if size > 1 else "use another device"
        raise UserError(
            f"there is not enough memory for {size} images at once: {advice}"
        ) from error


def flag(name: str) -> str:
    """Return how a field is called on the command line."""
    return "--" + name.replace("_", "-")


def seed(text: str) -> int:
    """Read a seed."""
    if not text.isdecimal() or int(text) > MAX_SEED:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number from 0 to {MAX_SEED}"
        )
    return int(text)


def _steps(text: str) -> int:
    number = command.positive_int(text)
    if number > MAX_STEPS:
        raise argparse.ArgumentTypeError(f"{text} is above {MAX_STEPS}")
    return number


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return number


def _numbers(text: str) -> float | tuple[float, ...]:
    values = tuple(map(_number, text.split(",")))
    return values if len(values) > 1 else values[0]


def _whole_numbers(text: str) -> int | tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) < 2**31 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    values = tuple(map(int, parts))
    return values if len(values) > 1 else values[0]


def _member(text: str) -> dict[str, Any]:
    """Read `NAME` or `NAME:VALUE` as {name, field: value}."""
    name, colon, value = text.partition(":")
    fields: dict[str, Any] = {"name": name}
    if name == "halton":
        fields["roll"] = False
    if colon:
        field, read = _FIELDS.get(name, ("", None))
        try:
            fields |= {field: read(value)}
        except (KeyError, TypeError, ValueError) as error:
            known = {"": name, "roll": f"{name} or {name}:roll"}
            meant = known[field] if field in known else f"{name}:NUMBER"
            raise argparse.ArgumentTypeError(f"{text!r} is not {meant}") from error
    return fields
