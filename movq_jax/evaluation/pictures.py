"""Pictures that show originals beside reconstructions: uint8 arrays in, one out.

Small images are enlarged by a whole number without smoothing, so that every pixel of
the model stays to be seen; large ones are reduced to fit their cell.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from movq_jax.errors import UserError
from movq_jax.evaluation.lettering import cut_middle, font, text_width
from movq_jax.evaluation.metrics import pixels

BACKGROUND = (250, 250, 250)
INK = (32, 33, 36)
FAINT_INK = (95, 99, 104)
TITLES = ("original", "reconstruction")
MARGIN = 20  # around the whole picture and between its cards
GAP = 4  # between the two images of a pair
MIN_SHOWN = 192  # shorter sides than this are enlarged in a side-by-side


def side_by_side(
    original: UInt8[np.ndarray, "h w 3"],
    reconstruction: UInt8[np.ndarray, "h w 3"],
    *,
    caption: str | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Return one pair at full size, titled, with a caption below.

    Args:
        original: uint8 [H, W, 3].
        reconstruction: uint8 [H, W, 3], of the same size.
        caption: the line below the pair; by default its PSNR.

    Returns:
        uint8 [H', W', 3]. Images with sides under 192 pixels are enlarged.
    """
    height, width = original.shape[:2]
    scale = max(1, MIN_SHOWN // min(height, width))
    # A thin strip enlarged until it is 192 thick may be too long to be of use.
    scale = max(1, min(scale, 4 * MIN_SHOWN // max(height, width)))
    box = (width * scale, height * scale)
    font_size = max(14, min(box) // 24)
    caption = psnr_caption(original, reconstruction) if caption is None else caption
    needed = (
        2 * box[0] + GAP,
        text_width(caption, font_size),
        2 * text_width(TITLES[1], font_size) + 3 * GAP,
    )
    card_width = max(needed)
    header = _text_height(font_size) + GAP
    sheet = _blank(
        card_width + 2 * MARGIN, header + _card_height(box[1], font_size) + 2 * MARGIN
    )
    _write_titles(sheet, (MARGIN, MARGIN), (card_width - GAP) // 2, font_size)
    shown = (thumbnail(original, box), thumbnail(reconstruction, box))
    card = _card(shown, caption, box, font_size, width=card_width)
    sheet.paste(card, (MARGIN, MARGIN + header))
    return np.asarray(sheet)


def comparison_grid(
    originals: Sequence[np.ndarray] | UInt8[np.ndarray, "n h w 3"],
    reconstructions: Sequence[np.ndarray] | UInt8[np.ndarray, "n h w 3"],
    *,
    max_images: int = 16,
    captions: Sequence[str] | None = None,
    cell: int = 192,
    columns: int | None = None,
    titles: tuple[str, str] = TITLES,
) -> UInt8[np.ndarray, "H W 3"]:
    """Return a sheet of pairs, each an original beside its reconstruction.

    Args:
        originals: uint8 [N, H, W, 3], or a sequence of [H, W, 3] of any sizes.
        reconstructions: as many, each of its original's size.
        max_images: how many pairs to show at most, from the first on.
        captions: a line under each pair; by default its PSNR.
        cell: the room for an image in pixels, both ways.
        columns: pairs in a row; by default what makes a sheet somewhat wider than
            it is high.
        titles: what stands over the two columns.

    Returns:
        uint8 [H', W', 3].

    Raises:
        UserError: there is no image to show.
    """
    count = min(len(originals), len(reconstructions), max_images)
    if count < 1:
        raise UserError("there is no image to show")
    if captions is None:
        captions = [
            psnr_caption(originals[i], reconstructions[i]) for i in range(count)
        ]
    shown = [
        tuple(thumbnail(image, (cell, cell)) for image in (originals[i], made))
        for i, made in enumerate(reconstructions[:count])
    ]
    columns = min(count, columns or max(1, math.ceil(math.sqrt(count / 1.5))))
    font_size = max(12, cell // 13)
    rows = [
        _card_row(
            shown[i : i + columns], captions[i : i + columns], cell, font_size, columns
        )
        for i in range(0, count, columns)
    ]
    header = _text_height(font_size) + GAP
    sheet = _blank(
        rows[0].width + 2 * MARGIN,
        header + sum(row.height + MARGIN for row in rows) + MARGIN,
    )
    for column in range(columns):
        left = MARGIN + column * (2 * cell + GAP + MARGIN)
        _write_titles(sheet, (left, MARGIN), cell, font_size, titles)
    top = MARGIN + header
    for row in rows:
        sheet.paste(row, (MARGIN, top))
        top += row.height + MARGIN
    return np.asarray(sheet)


def psnr_caption(
    original: UInt8[np.ndarray, "h w 3"], reconstruction: UInt8[np.ndarray, "h w 3"]
) -> str:
    """Return the PSNR of a pair as it stands under the two."""
    value = float(pixels.psnr(original, reconstruction))
    return "exact" if math.isinf(value) else f"{value:.2f} dB"


def thumbnail(
    image: UInt8[np.ndarray, "h w 3"], box: tuple[int, int]
) -> UInt8[np.ndarray, "H W 3"]:
    """Return `image` as large as fits `box` (width, height), its aspect kept.

    Enlarged by a whole number only, and then without smoothing.
    """
    height, width = image.shape[:2]
    fit = min(box[0] / width, box[1] / height)
    if fit == 1:
        return image
    if fit >= 1:
        scale = int(fit)
        return image.repeat(scale, axis=0).repeat(scale, axis=1)
    size = (max(1, round(width * fit)), max(1, round(height * fit)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _card_row(
    pairs: Sequence[tuple[np.ndarray, ...]],
    captions: Sequence[str],
    cell: int,
    font_size: int,
    columns: int,
) -> Image.Image:
    """Draw up to `columns` pairs in a row that is as high as its highest image."""
    height = max(image.shape[0] for pair in pairs for image in pair)
    card_width = 2 * cell + GAP
    row = _blank(
        columns * (card_width + MARGIN) - MARGIN, _card_height(height, font_size)
    )
    for column, (pair, caption) in enumerate(zip(pairs, captions, strict=True)):
        card = _card(pair, caption, (cell, height), font_size, width=card_width)
        row.paste(card, (column * (card_width + MARGIN), 0))
    return row


def _card(
    pair: tuple[np.ndarray, ...],
    caption: str,
    box: tuple[int, int],
    font_size: int,
    *,
    width: int,
) -> Image.Image:
    """Draw a pair in the middle of two boxes side by side, its caption below."""
    card = _blank(width, _card_height(box[1], font_size))
    side = (width - 2 * box[0] - GAP) // 2
    for i, image in enumerate(pair):
        height, image_width = image.shape[:2]
        left = side + i * (box[0] + GAP) + (box[0] - image_width) // 2
        card.paste(Image.fromarray(image), (left, (box[1] - height) // 2))
    _write(card, (width // 2, box[1] + GAP), caption, font_size, INK)
    return card


def _card_height(image_height: int, font_size: int) -> int:
    return image_height + GAP + _text_height(font_size)


def _blank(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), BACKGROUND)


def _write_titles(
    image: Image.Image,
    corner: tuple[int, int],
    cell: int,
    font_size: int,
    titles: tuple[str, str] = TITLES,
) -> None:
    """Write what the two are over the middle of two cells."""
    left, top = corner
    for i, title in enumerate(titles):
        middle = left + i * (cell + GAP) + cell // 2
        _write(image, (middle, top), title, font_size, FAINT_INK, width=cell)


def _write(
    image: Image.Image,
    where: tuple[int, int],
    text: str,
    font_size: int,
    ink: tuple[int, int, int],
    width: int | None = None,
) -> None:
    """Write one line, centred below the point `where`, cut to fit `width`."""
    text = cut_middle(text, font_size, width or image.width)
    ImageDraw.Draw(image).text(where, text, ink, font(font_size), anchor="ma")


def _text_height(font_size: int) -> int:
    return math.ceil(font_size * 1.3)
