"""Charts of how codebooks are used, as uint8 pictures. Needs matplotlib.

Bars are counts as they are; curves on logarithmic axes show what bars cannot: the rare
codes. Text is no smaller than 9 points at 7.2 inches, so that it can be read on paper
and on a phone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from movq_jax.evaluation.plotting import figure_class

WIDTH, DPI = 7.2, 150  # inches, dots an inch
MOST_BARS = 256
MOST_LINES = 9  # a legend with more is no help
BAR, MARK, FAINT = "#31688e", "#b5371f", "#5f6368"
# Told apart in grey, and by those who see red and green alike (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
DASHES = ("-", "--", ":")


class Use(NamedTuple):
    """How the codes of a book, or of a channel, were used.

    Attributes:
      label: what it is called.
      size: K.
      codes: int64 [n], the codes that were used, rising.
      counts: int64 [n], how often each.
    """

    label: str
    size: int
    codes: np.ndarray
    counts: np.ndarray


def check_plots() -> None:
    """Raise UserError where matplotlib is not installed."""
    figure_class()


def usage_bars(uses: Sequence[Use]) -> UInt8[np.ndarray, "H W 3"]:
    """Draw for each of `uses` the share of its positions that each code has.

    Of more than 256 codes neighbours by index share a bar: the most used of them.
    """
    figure = _new_figure(0.5 + 1.75 * len(uses))
    for row, use in enumerate(uses):
        axes = figure.add_subplot(len(uses), 1, row + 1)
        edges = _bin_edges(use.size)
        heights = np.zeros(len(edges) - 1)
        bars = np.searchsorted(edges, use.codes, side="right") - 1
        np.maximum.at(heights, bars, 100 * use.counts / max(1, use.counts.sum()))
        axes.bar(
            edges[:-1], heights, np.diff(edges), align="edge", color=BAR, linewidth=0
        )
        axes.axhline(100 / use.size, color=MARK, linestyle="--", linewidth=1)
        axes.set_xlim(0, use.size)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("% of positions", fontsize=9)
        axes.set_title(use.label, fontsize=11, loc="left")
        _plain(axes)
    axes.set_xlabel("index of the code (dashed: all codes used alike)", fontsize=10)
    return _drawn(figure)


def sorted_curves(books: Mapping[str, Sequence[Use]]) -> UInt8[np.ndarray, "H W 3"]:
    """Draw for each book the shares of its codes from the most to the least used."""
    figure = _new_figure(0.4 + 3.4 * len(books))
    for row, (book, uses) in enumerate(books.items()):
        axes = figure.add_subplot(len(books), 1, row + 1)
        size = uses[0].size
        for number, use in enumerate(uses[:MOST_LINES]):
            share = 100 * np.sort(use.counts)[::-1] / max(1, use.counts.sum())
            axes.plot(
                np.arange(1, len(share) + 1),
                share,
                label=use.label,
                color=COLOURS[number % len(COLOURS)],
                linestyle=DASHES[number // len(COLOURS) % len(DASHES)],
                linewidth=1.8,
                marker="." if size <= 64 or len(share) < 3 else None,
            )
        axes.axhline(
            100 / size, color=FAINT, linestyle="--", linewidth=1, label="all alike"
        )
        axes.axvline(
            size, color=FAINT, linestyle=":", linewidth=1, label=f"K = {size:,}"
        )
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.set_xlim(0.9, size * 1.15)
        axes.set_ylabel("% of positions", fontsize=10)
        axes.set_title(book.replace("_", " "), fontsize=11, loc="left")
        axes.legend(frameon=False, fontsize=9, loc="upper right")
        _plain(axes)
    axes.set_xlabel("rank of the code, from the most used", fontsize=10)
    return _drawn(figure)


def distance_bars(books: Mapping[str, np.ndarray]) -> UInt8[np.ndarray, "H W 3"]:
    """Draw how far the codes of each book lie from their nearest neighbours."""
    figure = _new_figure(0.5 + 2.2 * len(books))
    for row, (book, distances) in enumerate(books.items()):
        axes = figure.add_subplot(len(books), 1, row + 1)
        bins = min(60, max(8, math.isqrt(len(distances)) * 2))
        axes.hist(distances, bins=bins, color=BAR)
        axes.axvline(np.median(distances), color=MARK, linestyle="--", linewidth=1.2)
        axes.set_xlim(left=0)
        axes.set_ylabel("codes", fontsize=10)
        axes.set_title(book.replace("_", " "), fontsize=11, loc="left")
        _plain(axes)
    axes.set_xlabel("distance to the nearest other code (dashed: median)", fontsize=10)
    return _drawn(figure)


def _bin_edges(size: int) -> np.ndarray:
    """Edges of at most `MOST_BARS` bins of whole indices, about equally wide."""
    return np.unique(np.linspace(0, size, min(size, MOST_BARS) + 1).round()).astype(int)


def _new_figure(height: float) -> Any:
    return figure_class()(figsize=(WIDTH, height), dpi=DPI, layout="constrained")


def _plain(axes: Any) -> None:
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _drawn(figure: Any) -> UInt8[np.ndarray, "H W 3"]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
