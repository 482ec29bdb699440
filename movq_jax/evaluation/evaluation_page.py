"""The page of `movq evaluate`: the numbers, how they were made, the worst images.

One HTML file that needs nothing beside it.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image

from movq_jax.evaluation.html_page import facts, figure, page, paragraph, section, table
from movq_jax.evaluation.metric_table import METRICS
from movq_jax.evaluation.metric_text import (
    COLUMNS,
    DIFFERENT_PROTOCOLS,
    name_text,
    notes_of,
    rows_of,
    title_of,
    value_text,
)
from movq_jax.evaluation.pair_values import Shown
from movq_jax.evaluation.pictures import comparison_grid

SIDES = (("images", "images"), ("model", "model"))
# What metrics compare with, by its key in a record.
REFERENCES = {
    "pairs": "reference of pairs",
    "sets": "reference of sets",
    "statistics": "reference of sets, statistics",
}


def make_html(
    records: Sequence[Mapping[str, Any]],
    worst: Sequence[Mapping[str, Sequence[Shown]]],
) -> str:
    """Return the page.

    Args:
        records: one a protocol, as `movq evaluate` writes them as JSON.
        worst: for each record, of each metric of pairs those with the worst numbers.
    """
    first = records[0]
    parts = [facts(_header(first))]
    if len(records) > 1:
        parts.append(paragraph(DIFFERENT_PROTOCOLS, "warning"))
    for record, shown in zip(records, worst, strict=True):
        parts.append(_results(record))
        if any(shown.values()):
            title = f"The worst images, {title_of(record)}"
            parts.append(section(title, _worst(shown, stored=not record["model"])))
    if first["refused"]:
        listed = [(item["file"], item["reason"]) for item in first["refused"]]
        parts.append(section("Refused", [facts(listed)]))
    return page(f"Evaluation of {_subject(first)}", parts)


def _subject(record: Mapping[str, Any]) -> str:
    model = record.get("model")
    return model["path"] if model else record["images"]["name"]


def _header(record: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for key, title in SIDES:
        side = record.get(key)
        if side:
            yield title, side.get("name") or side.get("path")
            if side.get("fingerprint"):
                yield f"{title}'s fingerprint", side["fingerprint"]
    model = record.get("model") or {}
    for title, part in (("weights", "protocol"), ("sampling", "sampling")):
        for key, value in (model.get(part) or {}).items():
            if isinstance(value, str | int | float) and value is not None:
                yield f"{title}: {key.replace('_', ' ')}", value
    yield "images judged", f"{record['num_images']:,}"
    for name, digits in record["networks"].items():
        yield f"weights of {name}", digits
    yield "movq_jax", record["version"]


def _results(record: Mapping[str, Any]) -> str:
    # What holds of all protocols was said above.
    notes = [note for note in notes_of(record) if note != DIFFERENT_PROTOCOLS]
    parts = [paragraph(note, "warning") for note in notes]
    parts.append(table(COLUMNS, rows_of(record)))
    parts.append(
        paragraph(
            "Intervals are of the mean over images (percentile bootstrap); of a "
            "distance of sets there is none. The deviation is that of the blocks or "
            "subsets.",
            "note",
        )
    )
    parts.append(facts(_made_how(record)))
    title = title_of(record)
    return section(title[:1].upper() + title[1:], parts)


def _made_how(record: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for kind, found in (record["reference"] or {}).items():
        yield REFERENCES[kind], found["name"]
        yield "its fingerprint", found["fingerprint"]
    nll = record["metrics"].get("nll", {})
    for key in ("split", "preprocessing", "maskings", "seed"):
        if key in nll:
            yield f"nll: {key}", nll[key]
    for key, value in (record["protocol"] or {}).items():
        yield key, _said(value)


def _worst(worst: Mapping[str, Sequence[Shown]], *, stored: bool) -> Iterable[str]:
    titles = ("reference", "image") if stored else ("original", "reconstruction")
    for name, shown in worst.items():
        if not shown:
            continue
        title = METRICS[name].title
        captions = [
            f"{name_text(one.name)}   {value_text(name, one.value)}" for one in shown
        ]
        sheet = comparison_grid(
            [one.partner for one in shown],
            [one.image for one in shown],
            captions=captions,
            max_images=len(shown),
            titles=titles,
        )
        file = io.BytesIO()
        Image.fromarray(sheet).save(file, format="PNG")
        yield figure(
            file.getvalue(),
            title=title,
            caption=f"Left the {titles[0]}, right the {titles[1]}; the worst by "
            f"{title} first.",
            alternative=", ".join(captions),
        )


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        name, *rest = value.values()
        return f"{name} ({', '.join(map(str, rest))})" if rest else str(name)
    return "as they are" if value == 0 else str(value)
