"""PSNR and SSIM of many images: a row each, their means, and the table of them."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from movq_jax.evaluation.metrics import pixels


@dataclasses.dataclass(frozen=True)
class Row:
    """The numbers of one image.

    Attributes:
        name: of the image.
        height: of the image, in pixels.
        width: of the image, in pixels.
        psnr: in dB; infinite for an exact reconstruction, which JSON writes as null.
        ssim: None for an image that is smaller than the window.
    """

    name: str
    height: int
    width: int
    psnr: float
    ssim: float | None

    @property
    def psnr_text(self) -> str:
        """The PSNR as people read it."""
        return f"{self.psnr:.2f} dB" if math.isfinite(self.psnr) else "exact"

    @property
    def ssim_text(self) -> str:
        """The SSIM as people read it."""
        return "n/a" if self.ssim is None else f"{self.ssim:.4f}"


def measure(
    name: str,
    original: UInt8[np.ndarray, "h w 3"],
    reconstruction: UInt8[np.ndarray, "h w 3"],
) -> Row:
    """Compare a uint8 image [H, W, 3] with its reconstruction."""
    height, width = original.shape[:2]
    ssim = None
    if min(height, width) >= pixels.SSIM_TAPS:
        ssim = float(pixels.ssim(original, reconstruction))
    psnr = float(pixels.psnr(original, reconstruction))
    return Row(name, height, width, psnr, ssim)


def summary(rows: Sequence[Row]) -> dict[str, float | int | None]:
    """Return the means over the images, and how many images each of them leaves out.

    An exact reconstruction has no finite PSNR, an image smaller than the window no
    SSIM. A mean over no image is None.
    """
    psnrs = [row.psnr for row in rows if math.isfinite(row.psnr)]
    ssims = [row.ssim for row in rows if row.ssim is not None]
    return {
        "psnr": sum(psnrs) / len(psnrs) if psnrs else None,
        "psnr_left_out": len(rows) - len(psnrs),
        "ssim": sum(ssims) / len(ssims) if ssims else None,
        "ssim_left_out": len(rows) - len(ssims),
    }


def table(rows: Sequence[Row]) -> str:
    """Return the rows and their means as aligned lines of text."""
    mean = summary(rows)
    cells = [("image", "size", "PSNR", "SSIM")]
    cells += [
        (row.name, f"{row.width} x {row.height}", row.psnr_text, row.ssim_text)
        for row in rows
    ]
    psnr = "exact" if mean["psnr"] is None else f"{mean['psnr']:.2f} dB"
    ssim = "n/a" if mean["ssim"] is None else f"{mean['ssim']:.4f}"
    cells.append((f"mean of {len(rows)}", "", psnr, ssim))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            [name.ljust(widths[0])]
            + [
                text.rjust(width)
                for text, width in zip(numbers, widths[1:], strict=True)
            ]
        )
        for name, *numbers in cells
    ]
    if mean["psnr"] is not None and mean["psnr_left_out"]:
        lines.append(f"(exact, so not in the mean PSNR: {mean['psnr_left_out']})")
    if mean["ssim"] is not None and mean["ssim_left_out"]:
        lines.append(f"(too small for SSIM: {mean['ssim_left_out']})")
    return "\n".join(lines)
