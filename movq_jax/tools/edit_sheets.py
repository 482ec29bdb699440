"""One sheet of edits: a row a picture, its panels side by side, a title over each."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from movq_jax.evaluation.lettering import cut_end, font
from movq_jax.evaluation.pictures import BACKGROUND, FAINT_INK, INK, thumbnail

CELL = 256  # the room of a panel in pixels, both ways
COLUMNS = 8  # panels in a line at most
MARGIN, GAP, FONT_SIZE = 20, 8, 15
LINE = 20  # the height of a line of text


@dataclasses.dataclass(frozen=True)
class _Panel:
    title: str
    image: np.ndarray
    caption: str


class Overview:
    """The first pictures of many, kept small until the sheet is drawn."""

    def __init__(self, max_pictures: int) -> None:
        """Take at most `max_pictures`."""
        self._left = max_pictures
        self._rows: list[tuple[str, list[_Panel]]] = []

    def add(self, name: str, panels: Sequence[tuple[str, np.ndarray, str]]) -> None:
        """Take a picture, unless there are enough: (title, uint8 image, caption)."""
        if self._left:
            self._left -= 1
            small = [_Panel(t, thumbnail(i, (CELL, CELL)), c) for t, i, c in panels]
            self._rows.append((name, small))

    def draw(self) -> UInt8[np.ndarray, "H W 3"]:
        """Return the sheet of the pictures taken, of at least one."""
        lines = []
        for name, panels in self._rows:
            for start in range(0, len(panels), COLUMNS):
                line = panels[start : start + COLUMNS]
                lines.append(("" if start else name, line))
        cell = max(p.image.shape[1] for _, line in lines for p in line)
        cell = max(cell, CELL * 3 // 4)
        columns = max(len(line) for _, line in lines)
        width = columns * (cell + GAP) - GAP + 2 * MARGIN
        sheet = Image.new("RGB", (width, sum(map(_height, lines)) + MARGIN), BACKGROUND)
        top = MARGIN
        for name, line in lines:
            _draw_line(sheet, top, name, line, cell)
            top += _height((name, line))
        return np.asarray(sheet)


def _height(line: tuple[str, Sequence[_Panel]]) -> int:
    """How high a line of panels is, with the room below it."""
    name, panels = line
    caption = any(panel.caption for panel in panels)
    text = (bool(name) + 1 + caption) * LINE
    return text + max(panel.image.shape[0] for panel in panels) + MARGIN


def _draw_line(
    sheet: Image.Image, top: int, name: str, panels: Sequence[_Panel], cell: int
) -> None:
    if name:
        _write(sheet, (MARGIN, top), name, INK, sheet.width - 2 * MARGIN, "la")
        top += LINE
    highest = max(panel.image.shape[0] for panel in panels)
    for column, panel in enumerate(panels):
        left = MARGIN + column * (cell + GAP)
        middle = left + cell // 2
        height, width = panel.image.shape[:2]
        _write(sheet, (middle, top), panel.title, FAINT_INK, cell)
        corner = (left + (cell - width) // 2, top + LINE + (highest - height) // 2)
        sheet.paste(Image.fromarray(panel.image), corner)
        below = top + LINE + highest + 2
        _write(sheet, (middle, below), panel.caption, FAINT_INK, cell)


def _write(
    sheet: Image.Image,
    where: tuple[int, int],
    text: str,
    ink: tuple[int, int, int],
    width: int,
    anchor: str = "ma",
) -> None:
    """Write one line, its end cut off where it is too long."""
    shown = cut_end(text, FONT_SIZE, width)
    ImageDraw.Draw(sheet).text(where, shown, ink, font(FONT_SIZE), anchor=anchor)
