"""Where a picture is to be filled: from a picture of a mask, transparency, or boxes."""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageOps

from movq_jax.data.images import decode_image
from movq_jax.errors import UserError

ALPHA = "alpha"  # the value of --mask that means each picture's own transparency
WHITE = 128  # brighter than this, 0..255, is white

Box = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Masks:
    """What the flags said of the parts to fill."""

    boxes: tuple[Box, ...] = ()  # left, top, right, bottom; the last two not included
    shared: np.ndarray | None = None  # bool [H, W], for all pictures
    source: str = ""  # the file of `shared`
    alpha: bool = False

    def of(self, path: Path, size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
        """True where the picture in `path`, of (height, width), is to be filled.

        Raises:
            UserError: the mask has another size, a box reaches beyond the picture, or
                the picture has no transparency where that is the mask.
        """
        if self.alpha:
            return _transparent(path)
        if self.shared is not None:
            if self.shared.shape != size:
                raise UserError(
                    f"the mask {self.source} is {_size(self.shared.shape)}, but {path} "
                    f"is {_size(size)}: give a mask of the picture's size"
                )
            return self.shared
        return _boxed(self.boxes, path, size)


def masks_of(mask: str | None, boxes: list[Box] | None) -> Masks:
    """Return what `--mask` or `--box` mean.

    Raises:
        UserError: the file of the mask cannot be read, or cannot be understood.
    """
    if mask is None:
        return Masks(boxes=tuple(boxes or ()))
    if mask == ALPHA:
        return Masks(alpha=True)
    return Masks(shared=read_mask(Path(mask).expanduser()), source=mask)


def read_mask(path: Path) -> Bool[np.ndarray, "H W"]:
    """Read a mask: True where it is transparent; without transparency, where white.

    Raises:
        UserError: it is no picture, or is white on a transparent ground, which could
            mean either.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"--mask={path} is no file: give a picture of the mask")
    colours = decode_image(path)
    with Image.open(path) as image:
        alpha = _alpha(image)
    white = colours.mean(axis=2) >= WHITE
    if alpha is None or alpha.all():
        return white
    if white.all():
        raise UserError(
            f"the mask {path} is white on a transparent ground: give it a black "
            "ground, or cut what is to be filled out of the picture"
        )
    return ~alpha


def parse_box(text: str) -> Box:
    """Read `x0,y0,x1,y1`: the first pixel inside and the first one beyond."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no box: give four whole numbers, x0,y0,x1,y1"
        )
    left, top, right, bottom = map(int, parts)
    if right <= left or bottom <= top:
        raise argparse.ArgumentTypeError(
            f"{text!r} is empty: x1 must be above x0, and y1 above y0"
        )
    return left, top, right, bottom


def _transparent(path: Path) -> Bool[np.ndarray, "H W"]:
    """Where a picture is not fully opaque: half-opaque rims show what is behind."""
    with Image.open(path) as image:
        alpha = _alpha(image)
    if alpha is None:
        raise UserError(
            f"{path} has no transparency, which --mask={ALPHA} looks for: cut a part "
            "out and save it as PNG, or give a mask or a box"
        )
    return ~alpha


def _alpha(image: Image.Image) -> Bool[np.ndarray, "H W"] | None:
    """Return where an image is opaque, as a viewer turns it; None: it has no alpha."""
    if not image.has_transparency_data:
        return None
    upright = ImageOps.exif_transpose(image.convert("RGBA"))
    return np.asarray(upright.getchannel("A")) == 255


def _boxed(
    boxes: tuple[Box, ...], path: Path, size: tuple[int, int]
) -> Bool[np.ndarray, "H W"]:
    mask = np.zeros(size, bool)
    for box in boxes:
        left, top, right, bottom = box
        if right > size[1] or bottom > size[0]:
            raise UserError(
                f"the box {','.join(map(str, box))} reaches beyond {path}, which is "
                f"{_size(size)}"
            )
        mask[top:bottom, left:right] = True
    return mask


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"
