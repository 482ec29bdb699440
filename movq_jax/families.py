"""Choosing a member of a family: `{name: ..., ...fields}` in config becomes an object.

Quantizers, losses, schedules, transforms and the like are each a dict from name to
class or function, kept where the members live.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from movq_jax import fields as checks
from movq_jax.errors import UserError


def make(
    family: Mapping[str, Callable],
    fields: Mapping[str, Any],
    where: str,
    *args,
    **extra,
) -> Any:
    """Calls the member named `fields['name']` with `args`, the other fields, `extra`.

    Args:
      family: name -> callable.
      fields: from config: 'name' and the member's own fields.
      where: dotted path in the config, for error messages.

    Raises:
      UserError: for an unknown name, an unknown or missing field, and for what has no
        fields at all.
    """
    if not hasattr(fields, "items"):  # a ConfigDict is no Mapping
        raise UserError(
            f"{where} is {fields!r}; choose by {{'name': ...}}{nearest('', family)}"
        )
    fields = {**fields}
    name = fields.pop("name", None)
    chosen = member(family, name, where)
    return call(chosen, fields, f"{where} ({name})", *args, **extra)


def member(family: Mapping[str, Any], name: Any, where: str) -> Any:
    """The member of that name.

    Raises:
      UserError: there is none; the message suggests the nearest.
    """
    if name not in family:
        raise UserError(f"{where}.name is {name!r}{nearest(name, family)}")
    return family[name]


def call(
    chosen: Callable, fields: Mapping[str, Any], where: str, *args, **extra
) -> Any:
    """`chosen(*args, **fields, **extra)`, with a clear error for a field of no use.

    Raises:
      UserError: for an unknown or missing field, and for a value that is no int,
        float, bool or str where the signature says so.
    """
    signature = inspect.signature(chosen)
    parameters = list(signature.parameters)[len(args) :]
    known = [p for p in parameters if p not in ("parent", "name", *extra)]
    for field in fields:
        if field not in known:
            raise UserError(f"{where} has no field {field!r}{nearest(field, known)}")
        kind = signature.parameters[field].annotation
        checks.check_type(f"{where.split()[0]}.{field}", fields[field], kind)
    missing = [
        name
        for name in known
        if name not in fields and _is_required(signature.parameters[name])
    ]
    if missing:
        raise UserError(f"{where} lacks {', '.join(map(repr, missing))}: give it too")
    try:
        signature.bind(*args, **fields, **extra)
    except TypeError as error:
        raise UserError(f"{where}: {error}") from error
    return chosen(*args, **fields, **extra)


def _is_required(parameter: inspect.Parameter) -> bool:
    several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return not several and parameter.default is parameter.empty


def nearest(word: Any, known: Iterable[str]) -> str:
    """The end of an error message: a suggestion, and what there is."""
    known = sorted(known)
    if not known:
        return "; there is none"
    close = closest(word, known)
    suggestion = f"; did you mean {close!r}?" if close else ";"
    return f"{suggestion} Known: {', '.join(known)}"


def closest(word: Any, known: Iterable[str]) -> str | None:
    """The one of `known` that was most likely meant, or None where none is like it."""
    return next(iter(difflib.get_close_matches(str(word), list(known), n=1)), None)
