"""Quantizers: latents to codes and back. One interface, chosen by name in config.

A quantizer is a small Linen module. What it does:

- `quantizer(z, train=False) -> QuantizerOutput(z_q, ids, loss, stats)`
- `codes(ids) -> z_q`, with the codes in effect
- `codes_in_effect()`: book name -> all codes [K, d], of books that are kept
- `assigned(z, ids)`: book name -> its features [N, d] and the ids [N] they got

and what is known without weights:

- `latent_channels` (D), `num_channels` (M)
- `codebook_sizes`: how many values the index of each channel takes, and
  `codebook_size` (K), where that is one number
- `channel_books`: which book each channel points into
- `ruled_books`: the books whose rows may be set from features (k-means, EMA, revival)
"""

from movq_jax.models.quantizers.base import QuantizerOutput
from movq_jax.models.quantizers.dual import DualQuantizer
from movq_jax.models.quantizers.fsq import FiniteScalarQuantizer
from movq_jax.models.quantizers.lfq import LookupFreeQuantizer
from movq_jax.models.quantizers.multichannel import MultichannelQuantizer
from movq_jax.models.quantizers.residual import ResidualQuantizer
from movq_jax.models.quantizers.vq import VectorQuantizer

QUANTIZERS = {
    "vq": VectorQuantizer,
    "multichannel": MultichannelQuantizer,
    "dual": DualQuantizer,
    "residual": ResidualQuantizer,
    "fsq": FiniteScalarQuantizer,
    "lfq": LookupFreeQuantizer,
}

__all__ = [
    "QUANTIZERS",
    "DualQuantizer",
    "FiniteScalarQuantizer",
    "LookupFreeQuantizer",
    "MultichannelQuantizer",
    "QuantizerOutput",
    "ResidualQuantizer",
    "VectorQuantizer",
]
