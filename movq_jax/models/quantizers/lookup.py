"""What quantizers that look codes up in a book have in common."""

import flax.linen as nn
import jax

from movq_jax.fields import check_choice, check_flag, check_number, check_size
from movq_jax.models.quantizers.base import ESTIMATORS, WHERE, vq_loss
from movq_jax.models.quantizers.codebook import Codebook


class LookupQuantizer(nn.Module):
    """The fields of all of them, and their terms of the loss.

    Attributes:
      codebook_size: K.
      dim: d, dimension of a code.
      beta: weight of the commitment term, see `vq_loss`.
      legacy: beta on the codebook term instead, see `vq_loss`.
      form: how rows of the book become codes, see `Codebook`.
      estimator: how gradients pass: 'straight_through' or 'rotation', see `base`.
    """

    codebook_size: int
    dim: int
    beta: float = 0.25
    legacy: bool = False
    form: str = "plain"
    estimator: str = "straight_through"

    def __post_init__(self):
        check_number(f"{WHERE}.beta", self.beta)
        check_flag(f"{WHERE}.legacy", self.legacy)
        check_choice(f"{WHERE}.estimator", self.estimator, ESTIMATORS)
        super().__post_init__()

    def estimate(self, z: jax.Array, z_q: jax.Array) -> jax.Array:
        """The codes z_q [..., d], with the estimator's gradient to z [..., d]."""
        return ESTIMATORS[self.estimator](z, z_q)

    def vq_loss(self, z: jax.Array, z_q: jax.Array) -> jax.Array:
        """Codebook and commitment loss of features and their codes, a scalar."""
        return vq_loss(z, z_q, beta=self.beta, legacy=self.legacy)


class SharedBookQuantizer(LookupQuantizer):
    """Those whose channels all point into one book, `codebook`.

    Attributes:
      num_channels: M, indices a position.
    """

    num_channels: int = 4

    def __post_init__(self):
        check_size(f"{WHERE}.num_channels", self.num_channels)
        Codebook(self.codebook_size, self.dim, self.form, parent=None)  # refuses
        super().__post_init__()

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The number of values of each channel's index."""
        return (self.codebook_size,) * self.num_channels

    @property
    def channel_books(self) -> tuple[str, ...]:
        """The book that each channel's index points into."""
        return ("codebook",) * self.num_channels

    @property
    def ruled_books(self) -> tuple[str, ...]:
        """Books whose rows may be set from features."""
        return ("codebook",) if trainable_by_rule(self.form) else ()

    def setup(self):
        self.codebook = Codebook(self.codebook_size, self.dim, self.form)

    def codes_in_effect(self) -> dict[str, jax.Array]:
        """The codes of each book, [K, d] float32, as evaluation sees them."""
        return {"codebook": self.codebook()}


def trainable_by_rule(form: str) -> bool:
    """Whether rows of that form may be set from features: k-means, EMA, revival."""
    return form != "linear"
