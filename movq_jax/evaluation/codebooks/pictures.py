"""The pictures of the codebook report, with what stands beside them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np

from movq_jax.evaluation.codebooks import figures, sheets
from movq_jax.evaluation.codebooks.probe import Mosaic, Probe, mosaics
from movq_jax.evaluation.codebooks.report import Picture
from movq_jax.evaluation.codebooks.tally import CodeTally, Counts
from movq_jax.pretrained.tokenizer import PretrainedTokenizer

TITLES = ("original", "reconstruction", "second model")
FILES = {
    "usage": "usage.png",
    "sorted": "sorted.png",
    "neighbours": "neighbours.png",
}
ROWS_A_SHEET = 3  # more of them would be small on paper


def file_names(tok: PretrainedTokenizer, most_shown: int) -> list[str]:
    """Return what the pictures of a model's report may be called."""
    books = [*dict.fromkeys(tok.channel_books), "pairs"]
    sheets_of_each = range(0, most_shown, ROWS_A_SHEET)
    return [
        *FILES.values(),
        *map(_mosaic_file, books),
        *(_sheet_file(which, i) for which in ("best", "worst") for i in sheets_of_each),
    ]


def draw(
    tok: PretrainedTokenizer,
    tally: CodeTally,
    distances: Mapping[str, np.ndarray],
    *,
    best: Sequence[sheets.Shown],
    worst: Sequence[sheets.Shown],
    progress: Callable[[int, str], AbstractContextManager],
) -> Iterator[tuple[Picture, np.ndarray]]:
    """Yield the pictures in the order of the report, each with its uint8 [H, W, 3].

    Args:
      tok: decodes the codes.
      tally: how often each was used.
      distances: book -> distance of its codes to their neighbours.
      best, worst: images and what models made of them; none: no picture.
      progress: called with how many codes there are to decode, and 'codes'.
    """
    uses = _uses(tally)
    flat = [use for of_book in uses.values() for use in of_book]
    yield _use_picture("usage", "Share of each code", flat), figures.usage_bars(flat)
    yield (
        _use_picture("sorted", "From the most to the least used", flat),
        figures.sorted_curves(uses),
    )
    plans = mosaics(tok, tally)
    with progress(sum(len(plan.codes) for plan in plans), "codes") as counter:
        for plan in plans:
            parts = []
            for part in Probe(tok).tiles(plan.ids):
                parts.append(part)
                counter.advance(len(part))
            tiles = np.concatenate(parts)
            yield _mosaic_picture(plan), sheets.mosaic(tiles, plan.codes, plan.dead)
    if distances:
        caption = "How many codes lie how far from their nearest neighbour."
        picture = Picture("neighbours", FILES["neighbours"], "", caption, caption)
        yield picture, figures.distance_bars(distances)
    for which, items in (("best", best), ("worst", worst)):
        for start in range(0, len(items), ROWS_A_SHEET):
            part = items[start : start + ROWS_A_SHEET]
            titles = TITLES[: len(part[0].images)]
            caption = f"From the left: {', '.join(titles)}."
            alternative = (
                f"The {which} reconstructions, {start + 1} to {start + len(part)}, "
                "with the numbers of the table."
            )
            file = _sheet_file(which, start)
            picture = Picture(which, file, "", caption, alternative)
            yield picture, sheets.reconstructions(part, titles, first=start + 1)


def _uses(tally: CodeTally) -> dict[str, list[figures.Use]]:
    """How each book was used, and below it each of its channels, where it has more."""
    found = {}
    for book in tally.book_names:
        channels = tally.channels_of(book)
        name = book.replace("_", " ")
        if len(channels) == 1:
            found[book] = [_use(name, tally.book(book))]
            continue
        found[book] = [_use(f"{name}, all channels", tally.book(book))]
        found[book] += [
            _use(f"channel {channel}", tally.channels[channel]) for channel in channels
        ]
    return found


def _use(label: str, counts: Counts) -> figures.Use:
    return figures.Use(label, counts.size, *counts.seen())


def _use_picture(section: str, title: str, uses: Sequence[figures.Use]) -> Picture:
    captions = {
        "usage": "How often each code was chosen, by its index. Dashed: if all were "
        "chosen alike.",
        "sorted": "The same, both axes logarithmic. A curve that ends left of K "
        "leaves codes unused.",
    }
    caption = captions[section]
    if section == "usage" and uses[0].size > figures.MOST_BARS:
        caption += " Neighbours by index share a bar: the most used of them."
    if section == "sorted" and len(uses) > figures.MOST_LINES:
        caption += f" Of each book at most {figures.MOST_LINES} curves are drawn."
    labels = ", ".join(use.label for use in uses)
    return Picture(section, FILES[section], title, caption, f"{title}: {labels}.")


def _mosaic_picture(plan: Mosaic) -> Picture:
    dead = int(plan.dead.sum())
    marked = (
        f" Pale with a red frame: never chosen ({dead:,})."
        if dead
        else " Every one that is shown was chosen."
    )
    order = " Row by row in the order of the index, which stands before the rows."
    title = plan.title[:1].upper() + plan.title[1:]
    return Picture(
        "mosaics",
        _mosaic_file(plan.name),
        title,
        plan.note + order + marked,
        f"{title}: {len(plan.codes):,} decoded codes.",
    )


def _mosaic_file(book: str) -> str:
    return f"mosaic_{book}.png"


def _sheet_file(which: str, start: int) -> str:
    return f"{which}_{start // ROWS_A_SHEET + 1}.png"
