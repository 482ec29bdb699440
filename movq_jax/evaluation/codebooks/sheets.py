"""Sheets of the codebook report: decoded codes, and the best and worst images."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image, ImageDraw

from movq_jax.evaluation.lettering import cut_middle, font, text_width
from movq_jax.evaluation.pictures import BACKGROUND, FAINT_INK, INK, thumbnail
from movq_jax.evaluation.rows import Row

MARGIN, GAP = 16, 6
CELL = 224  # pixels an image in a sheet of reconstructions
SHEET_WIDTH = 1100  # of a mosaic, about
MAX_TILE = 40
FADED = 0.75  # how far a dead tile goes to the background
DEAD_FRAME = (181, 55, 31)


class Shown(NamedTuple):
    """An image and what models made of it, reduced to `CELL`."""

    name: str
    images: tuple[np.ndarray, ...]  # original, reconstruction, the second model's
    rows: tuple[Row, ...]  # of each model


def shown(name: str, images: Sequence[np.ndarray], rows: Sequence[Row]) -> Shown:
    """Keep of uint8 images [H, W, 3] what a sheet needs."""
    # Copies: a thumbnail of an image that fits is a view of it.
    small = tuple(thumbnail(image, (CELL, CELL)).copy() for image in images)
    return Shown(name, small, tuple(rows))


def mosaic(
    tiles: UInt8[np.ndarray, "n f f 3"],
    codes: Int[np.ndarray, " n"],
    dead: Bool[np.ndarray, " n"],
) -> UInt8[np.ndarray, "H W 3"]:
    """Lay decoded codes out in a near-square grid, row by row.

    Args:
        tiles: uint8 [N, f, f, 3]; they are enlarged by a whole number.
        codes: their indices; that of the first in a row stands before it.
        dead: bool [N]; such tiles are faded and have a red frame.

    Returns:
        uint8 [H, W, 3].
    """
    count, factor = tiles.shape[:2]
    columns = math.ceil(math.sqrt(count))
    room = min(MAX_TILE, SHEET_WIDTH // columns)
    scale = max(1, (room - 4) // factor)
    side, gap = factor * scale, 3 if factor * scale < 24 else 5
    pitch, letters = side + gap, font(15)
    labels = [f"{code:,}" for code in codes[::columns]]
    left = MARGIN + max(text_width(label, 15) for label in labels) + GAP
    rows = len(labels)
    sheet = Image.new(
        "RGB", (left + columns * pitch + MARGIN, rows * pitch + 2 * MARGIN), BACKGROUND
    )
    draw = ImageDraw.Draw(sheet)
    # A label is about 18 pixels high: rows of small tiles leave some out.
    every = max(1, math.ceil(18 / pitch))
    for row in range(0, rows, every):
        place = (left - GAP, MARGIN + row * pitch + side // 2)
        draw.text(place, labels[row], FAINT_INK, letters, anchor="rm")
    for number in range(count):
        x = left + number % columns * pitch
        y = MARGIN + number // columns * pitch
        tile = tiles[number].repeat(scale, axis=0).repeat(scale, axis=1)
        if dead[number]:
            tile = np.uint8(tile * (1 - FADED) + np.array(BACKGROUND) * FADED)
            # In the gap, so that no pixel of the tile is lost.
            box = (x - 1, y - 1, x + side, y + side)
            draw.rectangle(box, outline=DEAD_FRAME, width=1)
        sheet.paste(Image.fromarray(tile), (x, y))
    return np.asarray(sheet)


def reconstructions(
    items: Sequence[Shown], titles: Sequence[str], *, first: int = 1
) -> UInt8[np.ndarray, "H W 3"]:
    """Lay images and their reconstructions out, an image a row, numbers below.

    Args:
        items: at least one.
        titles: of the columns: 'original', 'reconstruction', ...
        first: the number of the first.
    """
    width = len(titles) * (CELL + GAP) - GAP + 2 * MARGIN
    line = 20
    heights = [max(image.shape[0] for image in item.images) for item in items]
    total = MARGIN + line + GAP
    total += sum(height + 2 * line + GAP + MARGIN for height in heights)
    sheet = Image.new("RGB", (width, total), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    lefts = [MARGIN + column * (CELL + GAP) for column in range(len(titles))]
    for left, title in zip(lefts, titles, strict=True):
        _write(draw, (left + CELL // 2, MARGIN), title, FAINT_INK)
    top = MARGIN + line + GAP
    for number, (item, height) in enumerate(zip(items, heights, strict=True), first):
        for left, image in zip(lefts, item.images, strict=True):
            corner = (
                left + (CELL - image.shape[1]) // 2,
                top + (height - image.shape[0]) // 2,
            )
            sheet.paste(Image.fromarray(image), corner)
        below = top + height + GAP
        _write(draw, (lefts[0] + CELL // 2, below), f"{number}. {item.name}", INK)
        for left, row in zip(lefts[1:], item.rows, strict=True):
            middle = left + CELL // 2
            _write(draw, (middle, below), f"PSNR {row.psnr_text}", INK)
            _write(draw, (middle, below + line), f"SSIM {row.ssim_text}", FAINT_INK)
        top = below + 2 * line + MARGIN
    return np.asarray(sheet)


def _write(
    draw: ImageDraw.ImageDraw,
    where: tuple[int, int],
    text: str,
    ink: tuple[int, int, int],
) -> None:
    """Write one line centred below a point, its middle left out where it is long."""
    draw.text(where, cut_middle(text, 15, CELL), ink, font(15), anchor="ma")
