"""The numbers of `movq evaluate` as people read them, on a terminal and on a page."""

from collections.abc import Mapping
from typing import Any

from movq_jax.evaluation.metric_table import METRICS

DIFFERENT_PROTOCOLS = "numbers of different protocols are not to be compared"
COLUMNS = ("metric", "value", "95 % interval", "images", "better")


def rows_of(record: Mapping[str, Any]) -> list[list[str]]:
    """Return the table's rows: metric, value, interval, count and which is better."""
    return [
        [
            METRICS[name].title if name in METRICS else name,
            value_text(name, found["value"]),
            interval_text(name, found),
            f"{found['count']:,}",
            "higher" if found["higher_is_better"] else "lower",
        ]
        for name, found in record["metrics"].items()
    ]


def value_text(name: str, value: float | None) -> str:
    """Return a metric's number as people read it."""
    digits = METRICS[name].digits if name in METRICS else 4
    return "none" if value is None else f"{value:,.{digits}f}"


def interval_text(name: str, found: Mapping[str, Any]) -> str:
    """Return the interval of a mean, the deviation of blocks or subsets, or nothing."""
    if found.get("low") is not None:
        low, high = (value_text(name, found[key]) for key in ("low", "high"))
        return f"{low} to {high}"
    if found.get("std") is not None:
        return f"std {value_text(name, found['std'])}"
    return ""


def images_text(count: int) -> str:
    """Return '1 image', '2 images', ..."""
    return "1 image" if count == 1 else f"{count:,} images"


def title_of(record: Mapping[str, Any]) -> str:
    """Return what a record's protocol is called; `nll` alone has none."""
    protocol = record["protocol"]
    return f"protocol {protocol['name']}" if protocol else "likelihood"


def name_text(name: str) -> str:
    """Return a file's name such that it can be shown: one line, of letters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)


def notes_of(record: Mapping[str, Any]) -> list[str]:
    """Return what has to be said beside the numbers of a record."""
    notes = list(record.get("warnings", ()))
    for name, found in record["metrics"].items():
        title = METRICS[name].title if name in METRICS else name
        too_small = found.get("too_small", 0)
        exact = found.get("left_out", 0) - too_small
        if too_small:
            are = "is" if too_small == 1 else "are"
            left = f"{images_text(too_small)} {are} left out of the mean"
            notes.append(f"{title}: {left}: {found['reason']}")
        elif found.get("reason"):
            notes.append(f"{title}: {found['reason']}")
        if exact:
            pairs = "1 exact pair is" if exact == 1 else f"{exact} exact pairs are"
            notes.append(f"{title}: {pairs} left out of the mean")
    return notes
