"""The transformer that updates a whole codebook at once (Dual Codebook VQ)."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from movq_jax.errors import UserError
from movq_jax.fields import check_share, check_size
from movq_jax.models.layers import symmetric_uniform, torch_kernel
from movq_jax.models.quantizers.base import WHERE

LAYER_NORM_EPSILON = 1e-5  # torch's default; Flax's is 1e-6

# Codes are looked up by their distances: float32, on accelerators, too.
_product = partial(jnp.einsum, precision="highest")
_Linear = partial(nn.Dense, kernel_init=torch_kernel, precision="highest")


class CodeLayer(nn.Module):
    """A post-norm transformer encoder layer, as torch's TransformerEncoderLayer.

    `y = norm1(x + attention(x)); norm2(y + linear2(relu(linear1(y))))`, dropout on the
    attention weights, on both branches and after the ReLU.

    Attributes:
      heads, ffn, dropout: see `DualQuantizer`.
    """

    heads: int
    ffn: int
    dropout: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "K d"], *, train: bool = False
    ) -> Float[Array, "K d"]:
        """One sequence of K tokens, float32."""

        def drop(value):
            layer = nn.Dropout(self.dropout, rng_collection="codebook")
            return layer(value, deterministic=not train)

        dim = x.shape[-1]
        # One kernel for q, k and v, drawn as a whole, as torch has it.
        xavier = nn.initializers.xavier_uniform()
        fused = _Linear(3 * dim, kernel_init=xavier, name="in_proj")(x)
        q, k, v = rearrange(fused, "n (t h c) -> t h n c", t=3, h=self.heads)
        scores = _product("hic,hjc->hij", q, k) * q.shape[-1] ** -0.5
        weights = drop(nn.softmax(scores, axis=-1))
        mixed = rearrange(_product("hij,hjc->hic", weights, v), "h n c -> n (h c)")
        mixed = _Linear(dim, name="out_proj")(mixed)
        x = nn.LayerNorm(LAYER_NORM_EPSILON, name="norm1")(x + drop(mixed))

        starts = [symmetric_uniform(width**-0.5) for width in (dim, self.ffn)]
        hidden = _Linear(self.ffn, bias_init=starts[0], name="linear1")(x)
        hidden = drop(nn.relu(hidden))
        hidden = _Linear(dim, bias_init=starts[1], name="linear2")(hidden)
        return nn.LayerNorm(LAYER_NORM_EPSILON, name="norm2")(x + drop(hidden))


def check_dropout(dropout: float) -> None:
    """It is from 0 to below 1: with 1 no layer would ever learn.

    Raises:
      UserError: it is not.
    """
    check_share(f"{WHERE}.dropout", dropout)
    if dropout == 1:
        raise UserError(f"{WHERE}.dropout is 1, which drops everything: use 0.1")


class TransformerCodebook(nn.Module):
    """K rows, and a transformer over them as one sequence: all codes move together.

    Dual Codebook VQ (arXiv 2503.10832), the global codebook: rows start as N(0, 1);
    no positions, no norm at the end. Each head compares all codes with all: its K²
    scores are 1 MB of 512 codes, but 1 GB of 16384, in training several times. Its
    dropout is drawn from the stream 'codebook',
    once a training step: all images and devices see the same codes.

    Attributes:
      size: K.
      dim: d, a multiple of `heads`.
      depth: layers, from 1.
      heads, ffn, dropout: see `DualQuantizer`.
    """

    size: int
    dim: int
    depth: int
    heads: int
    ffn: int
    dropout: float

    def __post_init__(self):
        check_size(f"{WHERE}.codebook_size", self.size, least=2)
        check_size(f"{WHERE}.dim", self.dim)
        check_size(f"{WHERE}.depth", self.depth)
        check_size(f"{WHERE}.heads", self.heads)
        check_size(f"{WHERE}.ffn", self.ffn)
        check_dropout(self.dropout)
        if self.dim % self.heads:
            raise UserError(
                f"{WHERE}.heads is {self.heads}, which does not divide {self.dim}, the "
                "width of the global half: give a divisor of it"
            )
        super().__post_init__()

    def setup(self):
        start = nn.initializers.normal(1.0)
        self.rows = self.param("rows", start, (self.size, self.dim))
        self.layers = [
            CodeLayer(self.heads, self.ffn, self.dropout) for _ in range(self.depth)
        ]

    def __call__(self, *, train: bool = False) -> Float[Array, "K d"]:
        """The codes in effect, float32."""
        if not train and self.has_variable("cache", "codes"):
            return self.get_variable("cache", "codes")
        codes = self.rows
        for layer in self.layers:
            codes = layer(codes, train=train)
        return codes

    def features(self, z: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
        """What is compared with the codes, float32."""
        return z.astype(jnp.float32)
