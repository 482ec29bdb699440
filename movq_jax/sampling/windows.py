"""Grids of any size, filled through windows of the size that a prior was trained on.

A window sees everything in it that is known by then, also what earlier windows made;
so the order matters: the next window is the one in which least is unknown.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int

Corner = tuple[int, int]  # the first row and column of a window


def complete_grid(
    sample: Callable[[int, np.ndarray, np.ndarray], np.ndarray],
    ids: Int[np.ndarray, "B H W M"],
    unknown: Bool[np.ndarray, "H W"],
    window: tuple[int, int],
    plan: Sequence[Corner] | None = None,
) -> Int[np.ndarray, "B H W M"]:
    """Fill the unknown positions of grids; known ones are returned as they are.

    A grid that is smaller than the window is continued with unknown positions, below
    and to the right, and what they became is cut off.

    Args:
      sample: `sample(turn, ids [B, h, w, M], known [h, w])` returns the ids of a
        window whose unknown positions were drawn; `turn` counts from 0.
      ids: B grids; what stands at unknown positions is not used.
      unknown: which positions are unknown, the same in all of them.
      window: (h, w), what `sample` takes.
      plan: where the windows are, if that is known already: see `plan_windows`.
    """
    height, width = unknown.shape
    plan = plan_windows(unknown, window) if plan is None else plan
    known = _at_least(~unknown, window)
    below, right = known.shape[0] - height, known.shape[1] - width
    grid = np.pad(ids, ((0, 0), (0, below), (0, right), (0, 0)))
    grid *= known[None, :, :, None]
    for turn, corner in enumerate(plan):
        here = _slices(corner, window)
        # Copies: what is handed out may be read later than it is changed here.
        fixed = known[here].copy()
        drawn = sample(turn, grid[:, *here].copy(), fixed)
        grid[:, *here] = np.where(fixed[None, :, :, None], grid[:, *here], drawn)
        known[here] = True
    return grid[:, :height, :width]


def plan_windows(
    unknown: Bool[np.ndarray, "H W"], window: tuple[int, int]
) -> list[Corner]:
    """Where windows are laid, in their order, until nothing is unknown.

    Each region of unknown positions has windows of its own: one around its middle
    where it leaves an eighth of the window on each side, else a row of windows that
    overlap by half and begin half a window before the region. A window with nothing
    unknown in it is not laid.

    Args:
      unknown: [H, W].
      window: (h, w).

    Returns:
      The corners; 0 along a side that is shorter than that of the window.
    """
    left = _at_least(unknown, window)
    corners = {
        corner
        for region in _regions(left, (window[0] // 4, window[1] // 4))
        for corner in _covering(region, left.shape, window)
    }
    corners = sorted(corners, key=lambda c: (_off_centre(c, left.shape, window), c))
    places = np.array(corners)
    counts = np.array([left[_slices(corner, window)].sum() for corner in corners])
    plan = []
    while left.any():
        # Of several the first: what begins, begins in the middle.
        chosen = int(np.where(counts, counts, left.size + 1).argmin())
        plan.append(corners[chosen])
        left[_slices(corners[chosen], window)] = False
        touched = np.abs(places - places[chosen]) < window
        for other in np.flatnonzero(touched.all(axis=1)):
            counts[other] = left[_slices(corners[other], window)].sum()
    return plan


def _at_least(
    mask: Bool[np.ndarray, "H W"], window: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    """The mask, continued with False where it is smaller than the window."""
    missing = [max(0, window[i] - mask.shape[i]) for i in (0, 1)]
    return np.pad(mask, [(0, size) for size in missing])


def _slices(corner: Corner, window: tuple[int, int]) -> tuple[slice, slice]:
    (top, left), (height, width) = corner, window
    return slice(top, top + height), slice(left, left + width)


def _off_centre(corner: Corner, shape: tuple[int, ...], window: tuple[int, int]) -> int:
    """How far a window is from the middle of the grid."""
    return sum(abs(2 * corner[i] + window[i] - shape[i]) for i in (0, 1))


def _covering(
    region: tuple[slice, slice], shape: tuple[int, ...], window: tuple[int, int]
) -> Iterator[Corner]:
    """The corners of the windows over a region."""
    rows, columns = (
        _starts(region[i].start, region[i].stop, shape[i], window[i]) for i in (0, 1)
    )
    yield from ((row, column) for row in rows for column in columns)


def _starts(begin: int, end: int, length: int, window: int) -> list[int]:
    """Where windows start that together cover `begin` to `end` of a line."""
    if end - begin <= window * 3 // 4:
        starts = [(begin + end - window) // 2]
    else:
        step = max(1, window // 2)
        starts = list(range(begin - step, end, step))
    return sorted({min(max(start, 0), length - window) for start in starts})


def _regions(
    unknown: Bool[np.ndarray, "H W"], reach: tuple[int, int]
) -> Iterator[tuple[slice, slice]]:
    """The bounding boxes of groups of unknown positions.

    Two positions are in one group where they are at most `reach` apart, both ways,
    also over several steps.
    """
    waiting = unknown.copy()
    height, width = (max(1, distance) for distance in reach)
    for first in np.argwhere(unknown):
        if not waiting[*first]:
            continue
        waiting[*first] = False
        group = [tuple(first)]
        for row, column in group:  # grows while it is walked
            top, left = max(0, row - height), max(0, column - width)
            near = waiting[top : row + height + 1, left : column + width + 1]
            group += [(top + r, left + c) for r, c in np.argwhere(near)]
            near[:] = False
        rows, columns = zip(*group, strict=True)
        yield (
            slice(int(min(rows)), int(max(rows)) + 1),
            slice(int(min(columns)), int(max(columns)) + 1),
        )
