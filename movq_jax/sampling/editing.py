"""Masks of pixels and of tokens, and pictures put together from old and new pixels.

A mask is True where something is to be made. Everything here is NumPy on one picture.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8


def unknown_tokens(
    mask: Bool[np.ndarray, "H W"], factor: int, margin: int = 0
) -> Bool[np.ndarray, "h w"]:
    """Which tokens a mask of pixels makes unknown: all whose patch it touches.

    Args:
      mask: [H, W], True where the picture is to be filled; H and W are multiples of
        `factor`.
      factor: a token stands for a patch of factor x factor pixels.
      margin: tokens that are made unknown around those, diagonally as well.

    Returns:
      bool [H / factor, W / factor].
    """
    height, width = mask.shape
    patches = mask.reshape(height // factor, factor, width // factor, factor)
    unknown = patches.any(axis=(1, 3))
    for _ in range(min(margin, max(unknown.shape))):
        unknown = _grown(unknown, diagonally=True)
    return unknown


def random_tokens(
    grid: tuple[int, int], share: float, rng: np.random.Generator
) -> Bool[np.ndarray, "h w"]:
    """True at a share of the positions of a grid, chosen at random without repetition.

    Args:
      grid: (h, w).
      share: 0 to 1; the number of positions is rounded, half to even.
      rng: makes the choice.
    """
    chosen = np.zeros(grid, bool)
    count = round(share * chosen.size)
    chosen.flat[rng.permutation(chosen.size)[:count]] = True
    return chosen


def fill_holes(
    image: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Continue a picture smoothly into its mask, from the pixels outside alone.

    An encoder sees beyond the patch of a token. Filled so, what the mask hides (a thing
    to be removed, the white of transparency) cannot reach the tokens beside it. A
    picture that is masked as a whole becomes grey.
    """
    if not mask.any():
        return image
    if mask.all():
        return np.full_like(image, 128)
    smooth = _spread(image.astype(np.float32), ~mask)
    return np.where(mask[:, :, None], _as_uint8(smooth), image)


def composite(
    original: UInt8[np.ndarray, "H W 3"],
    made: UInt8[np.ndarray, "H W 3"],
    mask: Bool[np.ndarray, "H W"],
    blend: int = 0,
) -> UInt8[np.ndarray, "H W 3"]:
    """Put what was made into the masked part of a picture; the rest stays exact.

    With `blend`, the difference between the two pictures at the seam is carried over
    it, into the mask, and fades out there. No pixel that the mask hid comes back by
    that, as it would by mixing the two pictures.

    Args:
      original: the picture; its masked pixels are not used.
      made: of the same size, also outside the mask.
      mask: True where `made` is to be seen.
      blend: over how many pixels the difference fades, 0 for a hard seam.
    """
    if blend and mask.any() and not mask.all():
        difference = original.astype(np.float32) - made
        carried = _spread(difference, ~mask) * _seam_weights(mask, blend)[:, :, None]
        made = _as_uint8(made + carried)
    return np.where(mask[:, :, None], made, original)


def tokens_shown(
    image: UInt8[np.ndarray, "H W 3"],
    known: Bool[np.ndarray, "h w"],
    factor: int,
    grey: int = 214,
) -> UInt8[np.ndarray, "H W 3"]:
    """The patches of known tokens, the others in grey.

    `image` may be smaller than the grid by less than a patch.
    """
    pixels = known.repeat(factor, axis=0).repeat(factor, axis=1)
    pixels = pixels[: image.shape[0], : image.shape[1], None]
    return np.where(pixels, image, np.uint8(grey))


def checkered(
    image: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"], side: int = 8
) -> UInt8[np.ndarray, "H W 3"]:
    """The picture with its mask as a chessboard, the way viewers show transparency."""
    rows, columns = np.indices(mask.shape) // side
    board = np.where((rows + columns) % 2, 200, 232).astype(np.uint8)
    return np.where(mask[:, :, None], board[:, :, None], image)


def _seam_weights(
    mask: Bool[np.ndarray, "H W"], blend: int
) -> Float[np.ndarray, "H W"]:
    """1 outside the mask, falling to 0 over `blend` pixels inside it."""
    weights = (~mask).astype(np.float32)
    reached = ~mask
    for ring in range(1, blend + 1):
        # By turns with and without the diagonals: nearly a circle.
        grown = _grown(reached, diagonally=ring % 2 == 0)
        weights[grown & ~reached] = 1 - ring / (blend + 1)
        if grown.all():
            break
        reached = grown
    return weights


def _grown(mask: Bool[np.ndarray, "H W"], diagonally: bool) -> Bool[np.ndarray, "H W"]:
    """The mask and the neighbours of it."""
    rows = mask.copy()
    rows[1:] |= mask[:-1]
    rows[:-1] |= mask[1:]
    grown = rows.copy()
    sides = rows if diagonally else mask
    grown[:, 1:] |= sides[:, :-1]
    grown[:, :-1] |= sides[:, 1:]
    return grown


def _spread(
    values: Float[np.ndarray, "H W C"], known: Bool[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W C"]:
    """Fill what is not known from coarser and coarser means of what is.

    The pull-push scheme of Gortler et al., The Lumigraph (1996), with weights 0 and 1.
    At least one value must be known.
    """
    if known.all():
        return values
    height, width = known.shape
    even = ((0, height % 2), (0, width % 2))
    weights = np.pad(known.astype(np.float32), even)[:, :, None]
    sums = _halved(np.pad(values, (*even, (0, 0))) * weights)
    counts = _halved(weights)
    coarse = _spread(sums / np.maximum(counts, 1), counts[:, :, 0] > 0)
    fine = _doubled(_doubled(coarse, axis=0), axis=1)[:height, :width]
    return np.where(known[:, :, None], values, fine)


def _halved(values: Float[np.ndarray, "H W C"]) -> Float[np.ndarray, "h w C"]:
    height, width, channels = values.shape
    blocks = values.reshape(height // 2, 2, width // 2, 2, channels)
    return blocks.sum(axis=(1, 3))


def _doubled(values: np.ndarray, axis: int) -> np.ndarray:
    """Twice as many rows or columns, interpolated linearly."""
    ends = [(0, 0)] * values.ndim
    ends[axis] = (1, 1)
    padded = np.moveaxis(np.pad(values, ends, mode="edge"), axis, 0)
    middle = 0.75 * padded[1:-1]
    pairs = np.stack([middle + 0.25 * padded[:-2], middle + 0.25 * padded[2:]], axis=1)
    return np.moveaxis(pairs.reshape(-1, *padded.shape[1:]), 0, axis)


def _as_uint8(values: np.ndarray) -> UInt8[np.ndarray, "H W C"]:
    return np.rint(values).clip(0, 255).astype(np.uint8)
