"""What a config may put into a field: a check each, and one sentence as the error."""

import math
from collections.abc import Collection, Iterable
from typing import Any

from movq_jax.errors import UserError


def check_type(where: str, value: Any, kind: Any) -> None:
    """`value` is of `kind`, where that is int, float, bool or str.

    Raises:
      UserError: it is not; `where` says where it stands.
    """
    fits, words = _TYPES.get(kind, (None, ""))
    if fits is not None and not fits(value):
        raise UserError(f"{where} is {value!r}; {words}")


def check_size(where: str, value: Any, least: int = 1) -> None:
    """`value` is a whole number from `least`.

    Raises:
      UserError: it is not.
    """
    check_type(where, value, int)
    if value < least:
        raise UserError(f"{where} is {value}; {least} is the least")


def check_number(where: str, value: Any) -> None:
    """`value` is a finite number from 0.

    Raises:
      UserError: it is not.
    """
    if not is_number(value) or not 0 <= value < math.inf:
        raise UserError(f"{where} is {value!r}; give a number that is not negative")


def check_share(where: str, value: Any) -> None:
    """`value` is a number from 0 to 1.

    Raises:
      UserError: it is not.
    """
    if not is_number(value) or not 0 <= value <= 1:
        raise UserError(f"{where} is {value!r}; give a number from 0 to 1")


def check_flag(where: str, value: Any) -> None:
    """`value` is a bool.

    Raises:
      UserError: it is not.
    """
    check_type(where, value, bool)


def check_choice(where: str, value: Any, choices: Iterable[str]) -> None:
    """`value` is one of `choices`.

    Raises:
      UserError: it is not; the choices are named.
    """
    choices = list(choices)
    if value not in choices:
        raise UserError(f"{where} is {value!r}; use {' or '.join(choices)}")


def check_members(where: str, values: Any, allowed: Collection[int], what: str) -> None:
    """`values` is a tuple of some of `allowed`.

    Raises:
      UserError: it is not; `what` says in the message what is allowed.
    """
    if not are_whole(values) or not set(values) <= set(allowed):
        listed = ", ".join(map(str, allowed))
        raise UserError(f"{where} is {values!r}; give some of {what}: {listed}")


def are_whole(values: Any) -> bool:
    """Whether `values` is a tuple of whole numbers."""
    return isinstance(values, tuple) and all(map(is_whole, values))


def is_whole(value: Any) -> bool:
    """Whether `value` is an int, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether `value` is an int or a float, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# A type -> what tells its values, and the words for the error message.
_TYPES = {
    int: (is_whole, "give a whole number"),
    float: (is_number, "give a number"),
    bool: (lambda value: isinstance(value, bool), "use true or false"),
    str: (lambda value: isinstance(value, str), "give a word"),
}
