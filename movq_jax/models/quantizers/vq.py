"""Plain vector quantisation: one index a position."""

from movq_jax.models.quantizers.multichannel import MultichannelQuantizer


class VectorQuantizer(MultichannelQuantizer):
    """The nearest of K codes (VQ-VAE, arXiv 1711.00937): one channel of many."""

    num_channels: int = 1
