"""Counts of codes, and of pairs of them, on the host: bounded memory for any book."""

import itertools
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from movq_jax.evaluation.codebooks.counts import entropy_bits

DENSE_VALUES = 2**24  # codes of which a count each is kept: 128 MB a channel
PAIR_ENTRIES = 2**23  # pairs of codes that are told apart, of all channels together
PENDING = 2**20  # values that wait before they are counted


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
