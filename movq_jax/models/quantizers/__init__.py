"""Quantizers: latents to codes and back. One interface, chosen by name in config.

A quantizer is a small Linen module:

- `quantizer(z, train=False) -> QuantizerOutput(z_q, ids, loss, stats)`
- `quantizer.codes(ids) -> z_q`, with the codes in effect
- `num_channels` (M), `codebook_size` (K) and `depth` (D, channels of the latent)
"""

from movq_jax.models.quantizers.base import QuantizerOutput
from movq_jax.models.quantizers.multichannel import MultichannelQuantizer
from movq_jax.models.quantizers.vq import VectorQuantizer

QUANTIZERS = {"vq": VectorQuantizer, "multichannel": MultichannelQuantizer}

__all__ = [
    "QUANTIZERS",
    "MultichannelQuantizer",
    "QuantizerOutput",
    "VectorQuantizer",
]
