"""How codebooks are used: counts of their codes, and what follows from them."""

from collections.abc import Sequence

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
    entropy = entropy_bits(counts[counts > 0])
    return {
        "usage": float(np.mean(counts > 0)),
        "perplexity": 2**entropy,
        "entropy": entropy,
        "dead": float(np.sum(counts == 0)),
    }


def entropy_bits(counts: np.ndarray) -> float:
    """Entropy in bits of counts above zero [n]; 0 where there are none."""
    share = counts.astype(np.float64) / max(1.0, float(counts.sum()))
    return max(0.0, -float(np.sum(share * np.log2(share))))
