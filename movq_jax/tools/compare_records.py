"""Records of `movq evaluate` from JSON files, which anybody may have edited."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from movq_jax.errors import UserError
from movq_jax.evaluation.metric_table import METRICS, PAIRS, PRIOR
from movq_jax.regular_files import check_regular

Record = dict[str, Any]


def read_records(path: str) -> list[Record]:
    """Return the records of a file: one a protocol.

    Raises:
        UserError: the file is not what `movq evaluate` writes.
    """
    record = _read_json(path)
    several = record.get("results") if isinstance(record, dict) else None
    found = several if isinstance(several, list) and several else [record]
    for one in found:
        _check_record(path, one)
    return found


def _read_json(path: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no number of JSON")

    place = Path(path).expanduser()
    check_regular(place)
    try:
        text = place.read_text(encoding="utf-8")
        return json.loads(text, parse_constant=refuse)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply for a record") from error


def _check_record(path: str, record: Any) -> None:
    if not isinstance(record, dict) or record.get("tool") != "evaluate":
        raise UserError(
            f"{path} is not what `movq evaluate --json=FILE` writes: make it again"
        )
    metrics = _get(path, record, "", "metrics", _is_object, "an object")
    networks = _get(path, record, "", "networks", _is_object, "an object")
    references = _get(path, record, "", "reference", _is_object, "an object")
    for name in networks:
        _get(path, networks, "networks.", name, _is_text, "a text")
    for kind in references:
        found = _get(path, references, "reference.", kind, _is_object, "an object")
        for key in ("name", "fingerprint"):
            _get(path, found, f"reference.{kind}.", key, _is_text, "a text")
    for name in metrics:
        _check_metric(path, name, metrics, references)
    if all(METRICS[name].kind == PRIOR for name in metrics) and not record.get(
        "protocol"
    ):
        return  # the run prepared the images
    protocol = _get(path, record, "", "protocol", _is_object, "an object")
    _get(path, protocol, "protocol.", "name", _is_text, "a text")


def _check_metric(path: str, name: str, metrics: Record, references: Record) -> None:
    if name not in METRICS:
        raise UserError(
            f"{path}: metrics.{name} is of no metric that is known here: leave it out "
            "of the file, or update movq_jax"
        )
    found = _get(path, metrics, "metrics.", name, _is_object, "an object")
    where = f"metrics.{name}."
    _get(path, found, where, "value", _is_number_or_null, "a finite number or null")
    _get(path, found, where, "count", _is_count, "a whole number")
    _get(path, found, where, "higher_is_better", _is_bool, "true or false")
    for key in ("low", "high", "std"):
        if key in found:
            _get(path, found, where, key, _is_number_or_null, "a finite number or null")
    for key in ("subset_size", "maskings", "seed", "tokens"):
        if key in found:
            _get(path, found, where, key, _is_count, "a whole number")
    metric = METRICS[name]
    if metric.kind == PAIRS or metric.needs_reference:
        known = references.keys()
        named = f"one of the keys of 'reference' ({', '.join(known) or 'none'})"
        _get(
            path, found, where, "reference", lambda x: _is_text(x) and x in known, named
        )
    if metric.kind == PRIOR:
        for key in ("split", "fingerprint", "tokenizer", "preprocessing"):
            _get(path, found, where, key, _is_text, "a text")


def _get(
    path: str,
    record: Record,
    where: str,
    key: str,
    is_right: Callable[[Any], bool],
    wanted: str,
) -> Any:
    """Return `record[key]`, once it is found to be what it has to be."""
    if key not in record:
        raise UserError(
            f"{path} has no {where}{key}: make the file again with `movq evaluate "
            "--json=FILE`"
        )
    value = record[key]
    if not is_right(value):
        raise UserError(
            f"{path}: {where}{key} is {_shown(value)}, not {wanted}: make the file "
            "again with `movq evaluate --json=FILE`"
        )
    return value


def _shown(value: Any) -> str:
    kinds = {dict: "an object", list: "a list"}
    return kinds.get(type(value), f"{json.dumps(value):.40}")


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    # In Python true is 1.
    return isinstance(value, int) and not _is_bool(value) and 0 <= value < 2**63


def _is_number_or_null(value: Any) -> bool:
    if value is None:
        return True
    try:
        return not _is_bool(value) and math.isfinite(value)
    except (TypeError, OverflowError):  # a text; a whole number beyond all floats
        return False
