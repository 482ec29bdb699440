"""Splits of datasets that anyone makes: what they are called, and one held out."""

from collections.abc import Sequence

from movq_jax.data.builders.listing import hash_of
from movq_jax.errors import UserError

# What people call a split -> what it is called here.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}


def check_fraction(fraction: float) -> None:
    """Refuse what cannot be held out.

    Raises:
        UserError: the fraction is not from 0 to below 1.
    """
    if not 0 <= fraction < 1:
        raise UserError(
            f"the validation fraction is {fraction}: it must be from 0 to below 1"
        )


def held_out(keys: Sequence[str], fraction: float) -> list[str]:
    """Choose keys by their own hash; neither none nor all of two or more."""
    if fraction == 0 or len(keys) < 2:
        return []
    ordered = sorted(keys, key=hash_of)
    limit = fraction * 2**64
    below = sum(int.from_bytes(hash_of(key)[:8], "big") < limit for key in ordered)
    return ordered[: min(max(below, 1), len(keys) - 1)]
