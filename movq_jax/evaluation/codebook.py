"""How a codebook is used: counts of its codes, and what follows from them."""

import clu.metrics
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


@flax.struct.dataclass
class CodeCounts(clu.metrics.Metric):
    """How often each of K codes was chosen; merging adds the counts up."""

    counts: jax.Array  # [K] float32

    @classmethod
    def empty(cls) -> "CodeCounts":
        return cls(counts=jnp.zeros(()))

    def merge(self, other: "CodeCounts") -> "CodeCounts":
        return CodeCounts(counts=self.counts + other.counts)

    def compute(self) -> dict[str, float]:
        return usage(np.asarray(self.counts))


def count_codes(
    ids: jax.Array, codebook_size: int, mask: jax.Array | None = None
) -> CodeCounts:
    """Counts ids [B, h, w, M] of the images that `mask` [B] keeps, all channels."""
    weights = jnp.ones(ids.shape, jnp.float32)
    if mask is not None:
        weights = weights * mask.reshape(-1, 1, 1, 1)
    return CodeCounts(
        counts=jax.ops.segment_sum(
            weights.reshape(-1), ids.reshape(-1), num_segments=codebook_size
        )
    )


def usage(counts: np.ndarray) -> dict[str, float]:
    """Counts [K] -> share of codes in use, and perplexity exp(entropy), 1 to K."""
    share = counts.astype(np.float64) / max(1.0, float(counts.sum()))
    used = share[share > 0]
    return {
        "codebook_usage": float(np.mean(counts > 0)),
        "codebook_perplexity": float(np.exp(-np.sum(used * np.log(used)))),
    }
