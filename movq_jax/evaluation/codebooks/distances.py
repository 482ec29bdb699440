"""How far the codes of a book lie from each other."""

import numpy as np

DISTANCE_BYTES = 2**27  # of the distances that are held at once
MAX_ROWS = 16384  # codes whose neighbours are looked for


def neighbour_distances(codes: np.ndarray, max_rows: int = MAX_ROWS) -> np.ndarray:
    """Euclidean distance from each code to the nearest other one.

    Args:
      codes: [K, d], K from 2.
      max_rows: of more codes, so many are looked at, evenly spaced by index; their
        neighbours are looked for among all.

    Returns:
      float64 [min(K, max_rows)]; 0 where two codes are equal.
    """
    codes = np.asarray(codes, np.float64)
    square = np.sum(np.square(codes), axis=-1)
    rows = np.arange(len(codes))
    if len(codes) > max_rows:
        rows = np.linspace(0, len(codes) - 1, max_rows).round().astype(np.int64)
    chunk = max(1, DISTANCE_BYTES // (8 * len(codes)))
    found = []
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        distance = square[None, :] - 2 * codes[part] @ codes.T
        distance[np.arange(len(part)), part] = np.inf
        nearest = codes[np.argmin(distance, axis=-1)]
        # From the difference: the expanded square has lost the digits of a small one.
        found.append(np.linalg.norm(codes[part] - nearest, axis=-1))
    return np.concatenate(found)
