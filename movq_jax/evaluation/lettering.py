"""The font of all pictures with words, and what it can write."""

import functools
import math
import unicodedata

from PIL import ImageFont

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


@functools.cache
def font(size: int) -> Font:
    """Return Pillow's own font, which is everywhere the same."""
    return ImageFont.load_default(size=size)


def writable(text: str) -> str:
    """Return `text` in the letters of the font, which are those of ASCII.

    Example:
        >>> writable("Größe 東")
        'Grosse ?'
    """
    text = text.replace("ß", "ss")
    parts = unicodedata.normalize("NFKD", text)
    bare = "".join(part for part in parts if not unicodedata.combining(part))
    return bare.encode("ascii", "replace").decode()


def text_width(text: str, size: int) -> int:
    """Return how many pixels a line is wide."""
    return math.ceil(font(size).getlength(text))


def cut_middle(text: str, size: int, width: int) -> str:
    """Return `text` as it can be written, its middle left out where it is too wide."""
    text = writable(text)
    shorter = (
        f"{text[: kept // 2]}...{text[-(kept - kept // 2) :]}"
        for kept in range(len(text) - 1, 1, -1)
    )
    return next((t for t in (text, *shorter) if text_width(t, size) <= width), "")


def cut_end(text: str, size: int, width: int) -> str:
    """Return `text` as it can be written, its end left out where it is too wide."""
    text = writable(text)
    shorter = (f"{text[:kept].rstrip()}..." for kept in range(len(text) - 1, 0, -1))
    return next((t for t in (text, *shorter) if text_width(t, size) <= width), "")
