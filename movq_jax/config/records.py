"""Configs as JSON beside a run, and what two configs differ in."""

import fnmatch
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

PARTS = (
    "model",
    "loss",
    "optim",
    "data",
    "train",
    "eval",
    "log",
    "checkpoint",
    "seed",
)

# What a prior's config has besides.
PRIOR_PARTS = ("tokenizer", "tokenizer_config", "tokens", "cache", "sample")
NO_SECTIONS = ("seed", "tokenizer", "tokenizer_config")

# Keys that configs had not always, and what a config without one means.
LATER = {"init_from": "", "init_discriminator": False}

# What a run may change when it resumes: none of it moves a step already taken.
MAY_CHANGE_ON_RESUME = (
    "train.num_steps",
    "log.*",
    "eval.*",
    "checkpoint.*",
    "data.data_dir",
    "data.num_threads",
    "data.num_workers",
    "data.prefetch",
    "data.decode_once",
    "data.max_broken_share",
    "loss.perceptual.weights",  # where the file lies
)
PRIOR_MAY_CHANGE_ON_RESUME = (
    "tokenizer",  # where it lies: tokens.fingerprint tells which one it is
    "sample.*",
)


def kind_of(config: Mapping[str, Any]) -> str:
    """Return what `config` trains: `tokenizer` or `prior`."""
    return "prior" if "tokens" in config else "tokenizer"


def parts_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys that a config of its kind has."""
    return PARTS + (PRIOR_PARTS if kind_of(config) == "prior" else ())


def difference(
    old: Mapping[str, Any], new: Mapping[str, Any], ignore: Iterable[str] = ()
) -> list[str]:
    """Return a line for each key whose value differs, such as `seed: 0 -> 1`.

    Args:
        old: a config, or what `from_json` made of one; `new` likewise.
        ignore: keys that may differ, as patterns: `train.num_steps`, `log.*`.
    """
    ignore = tuple(ignore)
    before, after = _flatten(_plain(old)), _flatten(_plain(new))
    lines = []
    for key in sorted(before.keys() | after.keys()):
        change = _show(before, key), _show(after, key)
        if change[0] != change[1] and not _matches(key, ignore):
            lines.append(f"{key}: {change[0]} -> {change[1]}")
    return lines


def forbidden_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the lines of `difference` that a run may not bring when it resumes."""
    ignore = MAY_CHANGE_ON_RESUME
    if kind_of(old) == kind_of(new) == "prior":
        ignore += PRIOR_MAY_CHANGE_ON_RESUME + _moved_caches(old, new)
    if _schedule_ends_with_training(old) and _schedule_ends_with_training(new):
        ignore += ("optim.schedule.num_steps",)
    return difference(old, new, ignore)


def to_json(config: Mapping[str, Any]) -> str:
    """Return `config` as JSON with sorted keys; tuples become lists."""
    return json.dumps(_plain(config), indent=2, sort_keys=True, allow_nan=False) + "\n"


def from_json(text: str) -> ConfigDict:
    """Return the config that `to_json` wrote, locked; lists become tuples.

    A key that followed another (`optim.schedule.num_steps`) keeps its value, but
    follows no longer.

    Raises:
        ValueError: `text` is not JSON, or not that of a config.
    """
    config = json.loads(text)
    if not isinstance(config, dict):
        raise ValueError("not a JSON object")
    parts = parts_of(config)
    missing = [part for part in parts if part not in config]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    for part in parts:
        if part not in NO_SECTIONS and not isinstance(config[part], dict):
            raise ValueError(f"{part} is {config[part]!r}, not a section")
    try:
        return ConfigDict(with_tuples({**LATER, **config})).lock()
    except (KeyError, TypeError) as error:  # names that a ConfigDict keeps for itself
        raise ValueError(str(error)) from error


def missing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the dotted keys of `new` that `old` lacks.

    Left out are those that may change on resume anyway. A family of which the two have
    different members is not looked into.
    """
    missing = _missing(_plain(old), _plain(new), "")
    return sorted(key for key in missing if not _matches(key, MAY_CHANGE_ON_RESUME))


def _missing(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str
) -> Iterable[str]:
    for key, value in new.items():
        if key not in old:
            yield prefix + key
        elif (
            isinstance(value, dict)
            and isinstance(old[key], dict)
            and old[key].get("name") == value.get("name")
        ):
            yield from _missing(old[key], value, f"{prefix}{key}.")


def _moved_caches(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of caches, which may lie elsewhere, but not come or go."""
    both = (part for part in ("train", "eval") if old["cache"][part])
    return tuple(f"cache.{part}" for part in both if new["cache"][part])


def _schedule_ends_with_training(config: Mapping[str, Any]) -> bool:
    flat = _flatten(_plain(config))
    return flat.get("optim.schedule.num_steps") == flat.get("train.num_steps")


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> value; an empty section is a value."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _show(flat: Mapping[str, Any], key: str) -> str:
    return repr(flat[key]) if key in flat else "(absent)"


def _plain(value: Any) -> Any:
    if isinstance(value, (Mapping, ConfigDict)):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def with_tuples(value: Any) -> Any:
    """Return what JSON made of a config with tuples instead of lists."""
    if isinstance(value, dict):
        return {key: with_tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(with_tuples(item) for item in value)
    return value
