"""Overriding single keys of a config from a command line: `--config.a.b=value`.

ml_collections' config_flags reads the values; what it says of a wrong key or value is
turned into one sentence here.
"""

import ast
import difflib
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from movq_jax.errors import UserError

_OVERRIDE = re.compile(r"--?(?P<no>no)?config\.")
# Families whose members refuse a field that they do not know: such a field may be set
# though it is not in the config, and one number may become several.
_OPEN = (
    "model.quantizer",
    "model.decoder_norm",
    "data.train.resize",
    "data.train.crop",
    "data.eval.resize",
    "data.eval.crop",
    "model.channels",
    "loss.mask",
    "sample.schedule",
    "sample.guidance_schedule",
    "sample.order",
)
# Of a prior's samples: one number, or a tuple with one for each channel.
_PER_CHANNEL = ("sample.temperature", "sample.top_k", "sample.top_p")
_EXPECTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a tuple such as (1,2)",
    ConfigDict: "a dict such as {'name': ...}",
}


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take the overrides out of a command line.

    `--config.a.b 3` becomes `--config.a.b=3`: the word after an override without a
    `=` is its value, unless it starts with two dashes.

    Returns:
        the other arguments, and the overrides.
    """
    rest: list[str] = []
    overrides: list[str] = []
    waiting = False  # the last override may still get a value
    for position, word in enumerate(argv):
        if word == "--":
            return rest + list(argv[position:]), overrides
        match = _OVERRIDE.match(word)
        if match:
            overrides.append(word)
            waiting = "=" not in word and not match["no"]
        elif waiting and not word.startswith("--"):
            overrides[-1] += f"={word}"
            waiting = False
        else:
            rest.append(word)
            waiting = False
    return rest, overrides


def parse_override(override: str) -> tuple[str, str | None]:
    """Return key and value: `--config.a.b=1` or `a.b=1` -> ('a.b', '1').

    `--config.a.b` has no value (None), `--noconfig.a.b` has 'false'.
    """
    name, equals, value = override.partition("=")
    match = _OVERRIDE.match(name)
    if match is None:
        return name, value if equals else None
    key = name[match.end() :]
    if match["no"]:
        return key, "false"
    return key, value if equals else None


def apply_override(config: ConfigDict, key: str, text: str | None) -> None:
    """Set `key` of `config`, in place, to the value that `text` is.

    Args:
        key: dotted, such as `optim.gen.learning_rate`. A family, such as
            `model.quantizer`, takes a dict that has a `name`.
        text: as on a command line; None is a flag without a value: true.

    Raises:
        UserError: there is no such key, or the value does not fit its type.
    """
    if _set_open_field(config, key, text) or _set_per_channel(config, key, text):
        return
    old = _value_of(config, key)
    if isinstance(old, ConfigDict) and "name" not in old:
        example = f"--config.{key}.{next(iter(old.keys()))}=VALUE"
        raise UserError(f"config.{key} is a section; set a key of it, as in {example}")
    expected = _EXPECTED.get(type(old), f"a value like {old!r}")
    if text is None and not isinstance(old, bool):
        raise UserError(f"config.{key} expects {expected}: --config.{key}=VALUE")
    wrong = UserError(f"config.{key} expects {expected}, not {text!r}")
    try:
        _set_through_flags(config, key, "true" if text is None else text)
    except (flags.Error, TypeError, ValueError) as error:
        raise wrong from error
    if not _fits(_value_of(config, key), old):
        raise wrong


def _set_open_field(config: ConfigDict, key: str, text: str | None) -> bool:
    """Set a field that a family's member may have, or say that it is none of those."""
    place, _, field = key.rpartition(".")
    if place not in _OPEN:
        return False
    family = _value_of(config, place)
    try:
        value = True if text is None else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if field in family and not _is_one_or_several(family[field], value):
        return False
    with family.unlocked(), family.ignore_type():
        family[field] = value
    return True


def _set_per_channel(config: ConfigDict, key: str, text: str | None) -> bool:
    """Set what may be one number or several, or say that it is none of those."""
    if key not in _PER_CHANNEL or text is None:
        return False
    section, _, field = key.rpartition(".")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False
    numbers = value if isinstance(value, tuple) else (value,)
    if not numbers or not all(type(item) in (int, float) for item in numbers):
        return False
    place = _value_of(config, section)
    _value_of(config, key)  # raises where it is not there
    with place.unlocked(), place.ignore_type():
        place[field] = value
    return True


def _is_one_or_several(old: Any, new: Any) -> bool:
    """Whether one of them is a whole number and the other a tuple of such."""
    one, several = (old, new) if isinstance(new, tuple) else (new, old)
    return (
        type(one) is int
        and isinstance(several, tuple)
        and all(type(item) is int for item in several)
    )


def _set_through_flags(config: ConfigDict, key: str, text: str) -> None:
    argv = ["", f"--config.{key}={text}"]
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    values(argv)


def _value_of(config: ConfigDict, key: str) -> Any:
    """Return the value at a dotted key, or raise `UserError` with the nearest key."""
    value = config
    for part in key.split("."):
        if not isinstance(value, ConfigDict) or part not in value:
            raise UserError(f"there is no config.{key}{_nearest_key(config, key)}")
        value = value[part]
    return value


def _nearest_key(config: ConfigDict, key: str) -> str:
    """Return the end of a message: the nearest by whole key, else by its last part."""
    known = list(_all_keys(config))
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if not nearest:
        last_parts = {name: name.rpartition(".")[2] for name in known}
        wanted = key.rpartition(".")[2]
        close = difflib.get_close_matches(wanted, set(last_parts.values()), n=1)
        nearest = [name for name in known if last_parts[name] in close]
    if not nearest:
        return f"; the sections are {', '.join(sorted(config.keys()))}"
    return f"; did you mean {' or '.join(f'config.{name}' for name in nearest)}?"


def _all_keys(config: ConfigDict, prefix: str = "") -> Iterable[str]:
    """Yield the dotted keys of `config`, sections included."""
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, ConfigDict):
            yield from _all_keys(value, f"{prefix}{key}.")


def _fits(new: Any, old: Any) -> bool:
    """Whether `new`, which has the type of `old`, may stand in its place."""
    if isinstance(new, float):
        return math.isfinite(new)
    if isinstance(new, ConfigDict):
        return "name" in new
    if isinstance(old, tuple) and old:
        return all(type(item) is type(old[0]) for item in new)
    return True
