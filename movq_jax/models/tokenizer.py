"""The tokenizer: encoder + quantizer + decoder. VQGAN and MoVQ are compositions."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.core
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.models.autoencoder import Decoder, Encoder
from movq_jax.models.layers import DECODER_NORMS
from movq_jax.models.quantizers import QUANTIZERS, QuantizerOutput

DTYPES = ("float32", "bfloat16")


@flax.struct.dataclass
class TokenizerOutput:
    """A reconstruction and what it was decoded from."""

    x_hat: jax.Array  # [B, H, W, 3] float32
    z: jax.Array  # [B, h, w, D] latents, before quantisation
    quantized: QuantizerOutput


class Tokenizer(nn.Module):
    """Images to a grid of indices, and back.

    Attributes:
      quantizer: {name, ...fields}, see `movq_jax.models.quantizers.QUANTIZERS`.
      decoder_norm: {name: 'group'} (VQGAN) or {name: 'spatial', init: ...} (MoVQ).
      width, multipliers, res_blocks, attention_factors, z_channels: see `Encoder`.
      dropout: in the residual blocks, in training.
      dtype: of convolutions and matrix products, 'float32' or 'bfloat16'. Search,
        losses and the result are float32.
    """

    quantizer: Mapping[str, Any]
    decoder_norm: Mapping[str, Any]
    width: int = 128
    multipliers: Sequence[int] = (1, 1, 2, 2, 4)
    res_blocks: int = 2
    attention_factors: Sequence[int] = (16,)
    z_channels: int = 256
    dropout: float = 0.0
    dtype: str = "float32"

    @property
    def factor(self) -> int:
        """Side of the image patch that one position of the grid stands for."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def codebook_size(self) -> int:
        """K, the number of values an index can take."""
        return self.make_quantizer(parent=None).codebook_size

    @property
    def num_channels(self) -> int:
        """M, the number of indices a position has."""
        return self.make_quantizer(parent=None).num_channels

    def make_quantizer(self, **extra) -> nn.Module:
        where = "config.model.quantizer"
        return families.make(QUANTIZERS, self.quantizer, where, **extra)

    def make_decoder(self, **extra) -> Decoder:
        where = "config.model.decoder_norm"
        norm = families.make(
            DECODER_NORMS, self.decoder_norm, where, dtype=jnp.dtype(self.dtype)
        )
        return Decoder(norm=norm, **self._backbone(), **extra)

    def _backbone(self) -> dict[str, Any]:
        return dict(
            width=self.width,
            multipliers=tuple(self.multipliers),
            res_blocks=self.res_blocks,
            attention_factors=tuple(self.attention_factors),
            dropout=self.dropout,
            dtype=jnp.dtype(self.dtype),
        )

    def setup(self):
        dtype = jnp.dtype(self.dtype)
        self.encoder = Encoder(z_channels=self.z_channels, **self._backbone())
        self.quantize = self.make_quantizer()
        self.quant_conv = nn.Conv(self.quantize.depth, (1, 1), dtype=dtype)
        self.post_quant_conv = nn.Conv(self.z_channels, (1, 1), dtype=dtype)
        self.decoder = self.make_decoder()

    def __call__(self, x: jax.Array, *, train: bool = False) -> TokenizerOutput:
        """Images [B, H, W, 3] in [-1, 1] -> reconstruction, latents, codes."""
        z = self.encode_latents(x, train=train)
        quantized = self.quantize(z, train=train)
        x_hat = self.decode_latents(quantized.z_q, train=train)
        return TokenizerOutput(x_hat=x_hat, z=z, quantized=quantized)

    def encode_latents(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Images [B, H, W, 3] in [-1, 1] -> latents [B, h, w, D], not quantised."""
        return self.quant_conv(self.encoder(x, train=train))

    def encode(self, x: jax.Array) -> jax.Array:
        """Images [B, H, W, 3] in [-1, 1] -> ids [B, h, w, M] int32."""
        return self.quantize(self.encode_latents(x)).ids

    def decode_latents(self, z_q: jax.Array, *, train: bool = False) -> jax.Array:
        """Quantised latents [B, h, w, D] -> images [B, H, W, 3], not clipped.

        The map that modulates the decoder is z_q before `post_quant_conv`.
        """
        return self.decoder(self.post_quant_conv(z_q), z_q, train=train)

    def decode_ids(self, ids: jax.Array) -> jax.Array:
        """ids [B, h, w, M] -> images [B, H, W, 3], not clipped."""
        return self.decode_latents(self.quantize.codes(ids))


def build_tokenizer(model: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a config's `model` section.

    Raises:
      UserError: for an unknown or missing key or family name, or a bad value.
    """
    fields = {key: _frozen(value) for key, value in model.items()}
    tokenizer = families.call(Tokenizer, fields, "config.model")
    if tokenizer.dtype not in DTYPES:
        raise UserError(
            f"config.model.dtype is {tokenizer.dtype!r}; use {' or '.join(DTYPES)}"
        )
    quantizer = tokenizer.make_quantizer(parent=None)
    tokenizer.make_decoder(parent=None)
    _check_sizes(tokenizer, "config.model", "width", "res_blocks", "z_channels")
    fields = ("codebook_size", "dim", "num_channels")
    _check_sizes(quantizer, "config.model.quantizer", *fields)
    if not tokenizer.multipliers or min(tokenizer.multipliers) < 1:
        raise UserError(
            f"config.model.multipliers is {tokenizer.multipliers}; give a whole number "
            "from 1 for each level"
        )
    return tokenizer


def _check_sizes(module: nn.Module, where: str, *names: str) -> None:
    for name in names:
        if getattr(module, name) < 1:
            raise UserError(
                f"{where}.{name} is {getattr(module, name)}; 1 is the least"
            )


def _frozen(value: Any) -> Any:
    """What a config holds, as a hashable value: so the module is one, too."""
    if hasattr(value, "items"):  # of a ConfigDict, which is no Mapping, too
        return flax.core.FrozenDict({key: _frozen(v) for key, v in value.items()})
    return tuple(value) if isinstance(value, list) else value
