"""Plain vector quantisation: one index a position."""

from movq_jax.errors import UserError
from movq_jax.models.quantizers.multichannel import MultichannelQuantizer


class VectorQuantizer(MultichannelQuantizer):
    """The nearest of K codes (VQ-VAE, arXiv 1711.00937): one channel of many."""

    num_channels: int = 1

    def __post_init__(self):
        if self.num_channels != 1:
            raise UserError(
                f"the quantizer 'vq' has 1 channel, not {self.num_channels}: "
                "choose 'multichannel'"
            )
        super().__post_init__()
