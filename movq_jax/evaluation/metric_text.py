"""The numbers of `movq evaluate` as people read them, on a terminal and on a page."""

from collections.abc import Mapping
from typing import Any

from movq_jax.evaluation.metric_table import METRICS

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


def notes_of(record: Mapping[str, Any]) -> list[str]:
    """Return what has to be said beside the numbers of a record."""
    notes = list(record.get("warnings", ()))
    for name, found in record["metrics"].items():
        title = METRICS[name].title if name in METRICS else name
        left_out = found.get("left_out")
        if found.get("reason"):
            notes.append(f"{title}: {found['reason']}")
        elif left_out:
            pairs = (
                "1 exact pair is" if left_out == 1 else f"{left_out} exact pairs are"
            )
            notes.append(f"{title}: {pairs} left out of the mean")
    return notes
