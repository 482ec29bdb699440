"""Sheets of samples, and how a sample came to be: as a strip, and as a GIF."""

import dataclasses
import math
from collections.abc import Sequence, Sized

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw

from movq_jax.errors import UserError
from movq_jax.evaluation.lettering import cut_end, font, text_width, writable
from movq_jax.evaluation.pictures import BACKGROUND, FAINT_INK, INK, thumbnail

MARGIN, GAP = 16, 4
CELL = 128  # pixels an image in a sheet of samples
MIN_SHOWN = 192  # of a step
MAX_SHOWN = 512
STRIP_WIDTH = 2000
LINE = 20
SCALE_WIDTH = 96  # of the bar that tells which colour is how certain
UNKNOWN = np.array((226, 228, 230), np.float32)
HATCH = np.array((178, 182, 188), np.float32)
# From uncertain to certain: dark blue, violet, orange, pale yellow (as Matplotlib's
# "inferno", which also reads in print and by the colour-blind).
_STOPS = np.array(
    [(10, 7, 46), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)],
    np.float32,
)


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of decoding.

    Attributes:
        image: uint8 [H, W, 3], everything that the step drew.
        known: bool [h, w], the positions that are kept from then on.
        confidence: float32 [h, w], mean log p of what was drawn there; NaN where
            nothing was drawn yet.
    """

    image: np.ndarray
    known: np.ndarray
    confidence: np.ndarray


def sample_grid(
    images: Sequence[np.ndarray] | UInt8[np.ndarray, "n h w 3"],
    *,
    columns: int | None = None,
    cell: int = CELL,
) -> UInt8[np.ndarray, "H W 3"]:
    """Return images in a near-square sheet, row by row.

    Args:
        images: uint8 [N, H, W, 3].
        columns: images a row.
        cell: the room for an image in pixels, both ways.

    Raises:
        UserError: there is no image to show.
    """
    _check_some(images)
    columns = min(len(images), columns or math.ceil(math.sqrt(len(images))))
    rows = [images[i : i + columns] for i in range(0, len(images), columns)]
    return _sheet(rows, [None] * len(rows), cell)


def class_grid(
    images: Sequence[np.ndarray] | UInt8[np.ndarray, "n h w 3"],
    names: Sequence[str],
    *,
    columns: int = 8,
    max_rows: int = 16,
    cell: int = CELL,
) -> UInt8[np.ndarray, "H W 3"]:
    """Return a sheet with a row for each class, its name before it.

    Args:
        images: uint8 [N, H, W, 3].
        names: the class of each; rows are in the order in which classes come first.
        columns: images a row at most: the first of a class.
        max_rows: classes at most.
        cell: the room for an image in pixels, both ways.

    Raises:
        UserError: there is no image to show.
    """
    _check_some(images)
    rows: dict[str, list[np.ndarray]] = {}
    for image, name in zip(images, names, strict=True):
        if name in rows or len(rows) < max_rows:
            rows.setdefault(name, []).append(image)
    return _sheet([row[:columns] for row in rows.values()], list(rows), cell)


def decoding_frame(
    step: Step, number: int, steps: int, scale: tuple[float, float]
) -> UInt8[np.ndarray, "H W 3"]:
    """Return what is known after a step, beside it how certain each index was.

    Args:
        step: see `Step`.
        number: of the step, from 1.
        steps: of all.
        scale: of the colours, see `scale_of`.
    """
    picture, heat = _panels(step, scale)
    height, width = picture.shape[:2]
    bar = LINE + GAP
    total = 2 * width + GAP + 2 * MARGIN
    sheet = _blank(total, LINE + GAP + height + 2 * GAP + bar + MARGIN + MARGIN)
    draw = ImageDraw.Draw(sheet)
    share = step.known.mean()
    right = MARGIN + width + GAP
    top = MARGIN + LINE + GAP
    middles = (MARGIN + width // 2, right + width // 2)
    title = f"step {number} of {steps}: {share:.0%} known"
    _write(draw, (middles[0], MARGIN), title, INK, width)
    _write(draw, (middles[1], MARGIN), "confidence", FAINT_INK, width)
    sheet.paste(Image.fromarray(picture), (MARGIN, top))
    sheet.paste(Image.fromarray(heat), (right, top))
    _legend(sheet, (right, top + height + 2 * GAP), scale, width)
    return np.asarray(sheet)


def decoding_strip(
    steps: Sequence[Step], *, max_steps: int = 12
) -> UInt8[np.ndarray, "H W 3"]:
    """Return the steps from left to right: what is known above, confidence below.

    Of more than `max_steps` only so many are shown, evenly spread, with the first and
    the last.

    Raises:
        UserError: there is no step to show.
    """
    _check_some(steps)
    scale = scale_of(steps)
    count = min(len(steps), max_steps)
    shown = np.unique(np.linspace(0, len(steps) - 1, count).round().astype(int))
    panels = [_panels(steps[number], scale, strip=True) for number in shown]
    height, width = panels[0][0].shape[:2]
    columns = max(1, min(len(shown), (STRIP_WIDTH - MARGIN) // (width + GAP)))
    rows = -(-len(shown) // columns)
    columns = -(-len(shown) // rows)  # as many in the last row, if they are
    pitch = LINE + GAP + 2 * height + GAP + MARGIN
    total = 2 * MARGIN + columns * (width + GAP) - GAP
    sheet = _blank(max(total, 240), MARGIN + rows * pitch + LINE + GAP + MARGIN)
    draw = ImageDraw.Draw(sheet)
    for place, (number, panel) in enumerate(zip(shown, panels, strict=True)):
        left = MARGIN + place % columns * (width + GAP)
        top = MARGIN + place // columns * pitch
        title = f"{number + 1}/{len(steps)}: {steps[number].known.mean():.0%}"
        _write(draw, (left + width // 2, top), title, INK, width)
        for part, image in enumerate(panel):
            below = top + LINE + GAP + part * (height + GAP)
            sheet.paste(Image.fromarray(image), (left, below))
    room = sheet.width - 2 * MARGIN
    title = "above: what is known; below: how likely what was drawn is,"
    if text_width(title, 13) + 2 * SCALE_WIDTH > room:
        title = "how likely:"
    _legend(sheet, (MARGIN, MARGIN + rows * pitch), scale, room, title)
    return np.asarray(sheet)


def write_gif(
    file: object, frames: Sequence[np.ndarray], *, milliseconds: int = 300
) -> None:
    """Write uint8 [H, W, 3] frames as a GIF that repeats and rests on the last.

    Args:
        file: open for writing, or a path.
        frames: of one size.
        milliseconds: a frame; the last stays for six times as long.
    """
    pictures = [Image.fromarray(frame) for frame in frames]
    times = [milliseconds] * (len(frames) - 1) + [6 * milliseconds]
    pictures[0].save(
        file,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=times,
        loop=0,
    )


def scale_of(steps: Sequence[Step]) -> tuple[float, float]:
    """Return log p of the darkest and the brightest colour.

    2 % of all that was drawn are below the one and 2 % above the other; they are not
    so near each other that noise would look like a difference.
    """
    values = np.concatenate([step.confidence.ravel() for step in steps])
    low, high = np.quantile(values[np.isfinite(values)], [0.02, 0.98])
    high = min(float(high), 0.0)
    return min(float(low), high - 1.0), high


def heat_map(
    confidence: Float[np.ndarray, "h w"], scale: tuple[float, float]
) -> UInt8[np.ndarray, "h w 3"]:
    """Return log p as colours, from dark to pale yellow; grey where it is NaN."""
    low, high = scale
    # Far below everything: a likelihood of 0, of which log p is -inf.
    finite = np.maximum(np.nan_to_num(confidence, nan=low, neginf=low), low)
    share = np.clip((finite - low) / (high - low), 0, 1) * (len(_STOPS) - 1)
    below = np.minimum(share.astype(int), len(_STOPS) - 2)
    part = (share - below)[..., None]
    colours = _STOPS[below] * (1 - part) + _STOPS[below + 1] * part
    colours = np.where(np.isnan(confidence)[..., None], UNKNOWN, colours)
    return np.rint(colours).astype(np.uint8)


def hatched(
    image: UInt8[np.ndarray, "H W 3"], known: Bool[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Return the image, hatched in grey at the positions that are not known."""
    height, width = image.shape[:2]
    rows = np.arange(height) * known.shape[0] // height
    columns = np.arange(width) * known.shape[1] // width
    shown = known[rows[:, None], columns[None, :]]
    y, x = np.mgrid[:height, :width]
    lines = ((x + y) % 10 < 2)[..., None]
    hatching = np.where(lines, HATCH, UNKNOWN).astype(np.uint8)
    return np.where(shown[..., None], image, hatching)


def _panels(
    step: Step, scale: tuple[float, float], *, strip: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture of a step and its confidence, of one size."""
    height, width = step.image.shape[:2]
    least = MIN_SHOWN // 2 if strip else MIN_SHOWN
    most = MIN_SHOWN if strip else MAX_SHOWN
    times = max(1, -(-least // max(height, width)))
    box = (min(width * times, most), min(height * times, most))
    image = thumbnail(step.image, box)
    heat = Image.fromarray(heat_map(step.confidence, scale))
    size = image.shape[1], image.shape[0]
    heat = np.asarray(heat.resize(size, Image.Resampling.NEAREST))
    return hatched(image, step.known), heat


def _legend(
    sheet: Image.Image,
    corner: tuple[int, int],
    scale: tuple[float, float],
    width: int,
    title: str = "",
) -> None:
    """Draw the scale of the confidence: a bar with probabilities at its ends."""
    letters = font(13)
    left, top = corner
    low, high = (f"{math.exp(log_p):.2g}" for log_p in scale)
    low = f"{title} {low}".strip()
    start = left + text_width(low, 13) + GAP
    stop = left + width - text_width(high, 13) - GAP
    stop = max(start + 1, min(start + SCALE_WIDTH, stop))
    shares = np.linspace(*scale, stop - start, dtype=np.float32)
    bar = heat_map(shares[None], scale).repeat(12, axis=0)
    sheet.paste(Image.fromarray(bar), (start, top + 2))
    draw = ImageDraw.Draw(sheet)
    draw.text((left, top), low, FAINT_INK, letters)
    draw.text((stop + GAP, top), high, FAINT_INK, letters)


def _sheet(
    rows: Sequence[Sequence[np.ndarray] | np.ndarray],
    names: Sequence[str | None],
    cell: int,
) -> UInt8[np.ndarray, "H W 3"]:
    """Lay rows of images out, with a name before each row where there is one."""
    pictures = [[_shown(image, cell) for image in row] for row in rows]
    height = max(image.shape[0] for row in pictures for image in row)
    width = max(image.shape[1] for row in pictures for image in row)
    labels = [cut_end(name or "", 15, 2 * CELL) for name in names]
    room = max(text_width(label, 15) for label in labels)
    left = MARGIN + (room + 2 * GAP if room else 0)
    columns = max(map(len, pictures))
    sheet = _blank(
        left + columns * (width + GAP) - GAP + MARGIN,
        len(pictures) * (height + GAP) - GAP + 2 * MARGIN,
    )
    draw = ImageDraw.Draw(sheet)
    for row, (label, images) in enumerate(zip(labels, pictures, strict=True)):
        top = MARGIN + row * (height + GAP)
        draw.text(
            (left - 2 * GAP, top + height // 2), label, INK, font(15), anchor="rm"
        )
        for column, image in enumerate(images):
            sheet.paste(Image.fromarray(image), (left + column * (width + GAP), top))
    return np.asarray(sheet)


def _shown(image: np.ndarray, cell: int) -> np.ndarray:
    """Return an image as large as its cell, or smaller."""
    return thumbnail(image, (cell, cell))


def _write(
    draw: ImageDraw.ImageDraw,
    where: tuple[int, int],
    text: str,
    ink: tuple[int, int, int],
    width: int,
) -> None:
    """Write one line, centred below a point, as large as fits."""
    size = 15
    while size > 9 and text_width(writable(text), size) > width:
        size -= 1
    draw.text(where, cut_end(text, size, width), ink, font(size), anchor="ma")


def _check_some(items: Sized) -> None:
    if not len(items):
        raise UserError("there is no image to show")


def _blank(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), BACKGROUND)
