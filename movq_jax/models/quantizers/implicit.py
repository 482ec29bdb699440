"""What quantizers without a codebook have in common."""

import flax.linen as nn
import jax


class ImplicitQuantizer(nn.Module):
    """One channel, whose index stands for a code by a formula.

    A subclass has `codebook_size` (K) and `latent_channels`, `__call__` and `codes`.
    """

    @property
    def codebook_sizes(self) -> tuple[int]:
        """The number of values of the one channel's index."""
        return (self.codebook_size,)

    @property
    def num_channels(self) -> int:
        """M, indices a position."""
        return 1

    @property
    def channel_books(self) -> tuple[str]:
        """What the index points into, though no book is kept."""
        return ("codebook",)

    @property
    def ruled_books(self) -> tuple[str, ...]:
        """There is no book whose rows could be set from features."""
        return ()

    def codes_in_effect(self) -> dict[str, jax.Array]:
        """No book is kept; there may be more codes than memory."""
        return {}

    def assigned(self, z: jax.Array, ids: jax.Array) -> dict[str, tuple]:
        """No book, no features."""
        del z, ids
        return {}
