"""How codebooks are used: counts of their codes, and what follows from them."""

import itertools
from collections.abc import Sequence
from functools import cached_property

import clu.metrics
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


@flax.struct.dataclass
class CodeCounts(clu.metrics.Metric):
    """How often each code of each book was chosen; merging adds the counts up."""

    counts: dict[str, jax.Array]  # book -> [K] float32; {}: none yet

    @classmethod
    def empty(cls) -> "CodeCounts":
        return cls(counts={})

    def merge(self, other: "CodeCounts") -> "CodeCounts":
        books = {**self.counts, **other.counts}
        for book in self.counts.keys() & other.counts.keys():
            books[book] = self.counts[book] + other.counts[book]
        return CodeCounts(counts=books)

    def compute(self) -> dict[str, float]:
        """Numbers of each book, named `<book>_usage` and so on, see `usage`."""
        return {
            f"{book}_{name}": value
            for book, counts in self.counts.items()
            for name, value in usage(np.asarray(counts)).items()
        }


def count_codes(
    ids: jax.Array,
    mask: jax.Array | None = None,
    *,
    sizes: Sequence[int],
    books: Sequence[str],
) -> CodeCounts:
    """Counts ids [B, h, w, M] of the images that `mask` [B] keeps.

    Args:
      sizes: codes of the book that each channel points into, M numbers.
      books: its name. Channels of the same book are counted together.
    """
    weights = jnp.ones(ids.shape[:-1], jnp.float32)
    if mask is not None:
        weights = weights * mask.reshape(-1, 1, 1)
    counts = {}
    for channel, (size, book) in enumerate(zip(sizes, books, strict=True)):
        found = jax.ops.segment_sum(
            weights.reshape(-1), ids[..., channel].reshape(-1), num_segments=size
        )
        counts[book] = counts[book] + found if book in counts else found
    return CodeCounts(counts=counts)


def usage(counts: np.ndarray) -> dict[str, float]:
    """What counts [K] say of a book.

    Returns:
      usage: share of the codes that were chosen at all, 0 to 1.
      perplexity: exp(entropy), 1 to K.
      entropy: in bits, 0 to log2 K.
      dead: number of codes that were never chosen.
    """
    share = counts.astype(np.float64) / max(1.0, float(counts.sum()))
    used = share[share > 0]
    nats = float(-np.sum(used * np.log(used)))
    return {
        "usage": float(np.mean(counts > 0)),
        "perplexity": float(np.exp(nats)),
        "entropy": nats / float(np.log(2)),
        "dead": float(np.sum(counts == 0)),
    }


DENSE_VALUES = 2**24  # codes of which a count each is kept: 128 MB a channel
PAIR_ENTRIES = 2**23  # pairs of codes that are told apart, of all channels together
PENDING = 2**20  # values that wait before they are counted
DISTANCE_BYTES = 2**27  # of the distances that are held at once
MAX_ROWS = 16384  # codes whose neighbours are looked for


class Counts:
    """How often each of `size` values was seen, on the host.

    Up to `DENSE_VALUES` a table is kept, beyond only what was seen (16 bytes a value),
    so that books of 2^30 implicit codes can be counted.
    """

    def __init__(self, size: int, most_entries: int = DENSE_VALUES) -> None:
        """Count 0..size-1, in a table where it has at most `most_entries`."""
        self.size = size
        self._table = np.zeros(size, np.int64) if size <= most_entries else None
        self._values = self._counts = np.zeros(0, np.int64)
        self._pending: list[np.ndarray] = []
        self._waiting = 0

    def add(self, values: np.ndarray, counts: np.ndarray | None = None) -> None:
        """Counts integers in 0..size-1, of any shape; `counts` says how often each."""
        values = values.reshape(-1).astype(np.int64)
        if counts is None:
            values, counts = np.unique(values, return_counts=True)
        if self._table is not None:
            self._table[values] += counts  # the values are distinct
            return
        self._pending.append(np.stack([values, counts]))
        self._waiting += len(values)
        if self._waiting > PENDING:
            self._settle()

    def seen(self) -> tuple[np.ndarray, np.ndarray]:
        """The values that were seen, rising, and how often each: int64 [n] both."""
        if self._table is not None:
            values = np.flatnonzero(self._table)
            return values, self._table[values]
        self._settle()
        return self._values, self._counts

    def numbers(self) -> dict[str, float | int | None]:
        """`usage`, and what a table of codes wants besides.

        Returns:
          size: K.
          positions: how many values were counted.
          used, dead: values that were seen, and that were not.
          usage: share of the values that were seen.
          perplexity: exp(entropy), 1 to K.
          entropy: in bits, of the counts as they are. With few positions for each
            code it is too low.
          bits: log2 K.
          entropy_share: entropy / bits; None where K is 1.
        """
        _, counts = self.seen()
        entropy, bits = entropy_bits(counts), float(np.log2(self.size))
        return {
            "size": self.size,
            "positions": int(counts.sum()),
            "used": len(counts),
            "dead": self.size - len(counts),
            "usage": len(counts) / self.size,
            "perplexity": float(2**entropy),
            "entropy": entropy,
            "bits": bits,
            "entropy_share": entropy / bits if bits else None,
        }

    def _settle(self) -> None:
        """Counts what waits."""
        if not self._pending:
            return
        held = np.stack([self._values, self._counts])
        values, counts = np.concatenate([held, *self._pending], axis=1)
        self._values, where = np.unique(values, return_inverse=True)
        self._counts = np.zeros(len(self._values), np.int64)
        np.add.at(self._counts, where.reshape(-1), counts)
        self._pending, self._waiting = [], 0


class PairCounts:
    """How often two channels of a position chose each pair of codes.

    Where a table of all pairs would have more than `limit` entries, the images after
    the first `limit` positions are not counted: memory stays bounded.
    """

    def __init__(self, sizes: tuple[int, int], limit: int) -> None:
        self._sizes = sizes
        self._counts = Counts(sizes[0] * sizes[1], most_entries=limit)
        self._limit = None if self._counts.size <= limit else limit
        self._positions = 0

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        """Counts the pairs of two arrays of indices of the same shape."""
        if self._limit is not None and self._positions >= self._limit:
            return
        self._positions += first.size
        self._counts.add(first.astype(np.int64) * self._sizes[1] + second)

    def numbers(self) -> dict[str, float | int]:
        """What the pairs tell.

        Returns:
          positions: how many were counted.
          pairs: different pairs that were seen.
          most: how many could have been: min(K1 K2, positions).
          mutual_information: in bits, between the counts as they are, 0 to
            min(log2 K1, log2 K2). It is too high where positions are few.
          corrected: the same less its bias by Miller and Madow (1955): entropy is too
            low by (values seen - 1) / 2N nats. May be negative.
        """
        keys, counts = self._counts.seen()
        sides = [keys // self._sizes[1], keys % self._sizes[1]]
        sums = []
        for side in sides:
            _, where = np.unique(side, return_inverse=True)
            sums.append(np.bincount(where.reshape(-1), weights=counts))
        plain = sum(map(entropy_bits, sums)) - entropy_bits(counts)
        surplus = len(counts) + 1 - len(sums[0]) - len(sums[1])
        bias = surplus / (2 * max(1, self._positions) * np.log(2))
        return {
            "positions": self._positions,
            "pairs": len(counts),
            "most": min(self._counts.size, self._positions),
            "mutual_information": max(0.0, plain),
            "corrected": float(plain - bias),
        }


class CodeTally:
    """Counts of each channel, each book and each pair of channels, image by image.

    Attributes:
      channels: M counts.
      pairs: (channel, later channel) -> counts.
      positions: how many were added.
    """

    def __init__(self, sizes: Sequence[int], books: Sequence[str]) -> None:
        """Sizes and names of the books that the M channels point into."""
        self._books = tuple(books)
        self.channels = [Counts(size) for size in sizes]
        both = list(itertools.combinations(range(len(sizes)), 2))
        limit = PAIR_ENTRIES // max(1, len(both))
        self.pairs = {(a, b): PairCounts((sizes[a], sizes[b]), limit) for a, b in both}
        self.positions = 0

    def add(self, ids: np.ndarray) -> None:
        """Counts ids [..., M]."""
        self.positions += ids[..., 0].size
        for channel, counts in enumerate(self.channels):
            counts.add(ids[..., channel])
        for (a, b), counts in self.pairs.items():
            counts.add(ids[..., a], ids[..., b])

    @cached_property
    def book_names(self) -> tuple[str, ...]:
        """The books, in the order of their first channels."""
        return tuple(dict.fromkeys(self._books))

    def channels_of(self, book: str) -> list[int]:
        """The channels that point into a book."""
        return [channel for channel, name in enumerate(self._books) if name == book]

    def book(self, name: str) -> Counts:
        """The counts of a book: those of its channels, added up."""
        members = [self.channels[channel] for channel in self.channels_of(name)]
        if len(members) == 1:
            return members[0]
        total = Counts(members[0].size)
        for member in members:
            total.add(*member.seen())
        return total


def entropy_bits(counts: np.ndarray) -> float:
    """Entropy in bits of counts above zero [n]; 0 where there are none."""
    share = counts.astype(np.float64) / max(1.0, float(counts.sum()))
    return max(0.0, -float(np.sum(share * np.log2(share))))


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
