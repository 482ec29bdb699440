"""The transformer that updates a whole codebook at once (Dual Codebook VQ)."""

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from movq_jax.errors import UserError
from movq_jax.fields import check_share, check_size
from movq_jax.models.layers import symmetric_uniform
from movq_jax.models.quantizers.base import WHERE

LAYER_NORM_EPSILON = 1e-5  # torch's default; Flax's is 1e-6

# torch's default for the kernels of linear layers: U(±1/sqrt(fan_in)).
_kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


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
        fused = nn.Dense(
            3 * dim, kernel_init=nn.initializers.xavier_uniform(), name="in_proj"
        )(x)
        q, k, v = rearrange(fused, "n (t h c) -> t h n c", t=3, h=self.heads)
        scores = jnp.einsum("hic,hjc->hij", q, k) * q.shape[-1] ** -0.5
        weights = drop(nn.softmax(scores, axis=-1))
        mixed = rearrange(jnp.einsum("hij,hjc->hic", weights, v), "h n c -> n (h c)")
        mixed = nn.Dense(dim, kernel_init=_kernel, name="out_proj")(mixed)
        x = nn.LayerNorm(LAYER_NORM_EPSILON, name="norm1")(x + drop(mixed))

        hidden = nn.Dense(
            self.ffn,
            kernel_init=_kernel,
            bias_init=symmetric_uniform(dim**-0.5),
            name="linear1",
        )(x)
        hidden = drop(nn.relu(hidden))
        hidden = nn.Dense(
            dim,
            kernel_init=_kernel,
            bias_init=symmetric_uniform(self.ffn**-0.5),
            name="linear2",
        )(hidden)
        return nn.LayerNorm(LAYER_NORM_EPSILON, name="norm2")(x + drop(hidden))


class TransformerCodebook(nn.Module):
    """K rows, and a transformer over them as one sequence: all codes move together.

    Dual Codebook VQ (arXiv 2503.10832), the global codebook: rows start as N(0, 1);
    no positions, no norm at the end. Its dropout is drawn from the stream 'codebook',
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
        check_share(f"{WHERE}.dropout", self.dropout)
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
