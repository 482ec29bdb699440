"""The tokenizer: encoder + quantizer + decoder. VQGAN and MoVQ are compositions."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.core
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.fields import (
    are_whole,
    check_choice,
    check_members,
    check_share,
    check_size,
)
from movq_jax.models.autoencoder import Decoder, Encoder
from movq_jax.models.layers import DECODER_NORMS, NORM_GROUPS
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
      quantizer: {name, ...fields}, see `movq_jax.models.quantizers`.
      decoder_norm: {name: 'group'} (VQGAN) or {name: 'spatial', init: ...} (MoVQ). Its
        field `groups`, which may be left out, is the number of groups of the decoder's
        norms, where that is not `norm_groups`.
      width, multipliers, res_blocks, attention_factors, z_channels: see `Encoder`.
      norm_groups: groups of a norm, at most. 32 in all papers, whose levels have 128
        channels and more. A net of 32 channels with 32 groups would have an instance
        norm instead, which takes the mean of each channel, the colour of an image,
        away.
      dropout: in the residual blocks, in training.
      dtype: of convolutions and matrix products, 'float32' or 'bfloat16'. Search,
        losses and the result are float32.
      remat_levels: levels of encoder and decoder whose blocks are computed again for
        the gradient, see `movq_jax.models.autoencoder`. How a model is trained, not
        what it is: no part of the config's `model` section.
    """

    quantizer: Mapping[str, Any]
    decoder_norm: Mapping[str, Any]
    width: int = 128
    multipliers: Sequence[int] = (1, 1, 2, 2, 4)
    res_blocks: int = 2
    attention_factors: Sequence[int] = (16,)
    z_channels: int = 256
    norm_groups: int = NORM_GROUPS
    dropout: float = 0.0
    dtype: str = "float32"
    remat_levels: Sequence[int] = ()

    @property
    def factor(self) -> int:
        """Side of the image patch that one position of the grid stands for."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The number of values that each channel's index can take, M numbers."""
        return self.make_quantizer(parent=None).codebook_sizes

    @property
    def codebook_size(self) -> int:
        """K, the number of values an index can take, in the channel with the most."""
        return max(self.codebook_sizes)

    @property
    def num_channels(self) -> int:
        """M, the number of indices a position has."""
        return len(self.codebook_sizes)

    @property
    def channel_books(self) -> tuple[str, ...]:
        """Which codebook each channel's index points into, M names."""
        return self.make_quantizer(parent=None).channel_books

    @property
    def bits_per_position(self) -> float:
        """log2 of the number of different positions."""
        return sum(map(math.log2, self.codebook_sizes))

    def make_quantizer(self, **extra) -> nn.Module:
        where = "config.model.quantizer"
        return families.make(QUANTIZERS, self.quantizer, where, **extra)

    def make_decoder(self, **extra) -> Decoder:
        where = "config.model.decoder_norm"
        fields = self.decoder_norm
        if hasattr(fields, "items"):  # else `make` has the words for it
            fields = {"groups": self.norm_groups, **fields}
            check_size(f"{where}.groups", fields["groups"])
        dtype = jnp.dtype(self.dtype)
        norm = families.make(DECODER_NORMS, fields, where, dtype=dtype)
        return Decoder(norm=norm, **self._backbone(), **extra)

    def _backbone(self) -> dict[str, Any]:
        return dict(
            width=self.width,
            multipliers=tuple(self.multipliers),
            res_blocks=self.res_blocks,
            attention_factors=tuple(self.attention_factors),
            dropout=self.dropout,
            dtype=jnp.dtype(self.dtype),
            remat_levels=tuple(self.remat_levels),
        )

    def setup(self):
        dtype = jnp.dtype(self.dtype)
        self.encoder = Encoder(
            z_channels=self.z_channels,
            norm_groups=self.norm_groups,
            **self._backbone(),
        )
        self.quantize = self.make_quantizer()
        self.quant_conv = nn.Conv(self.quantize.latent_channels, (1, 1), dtype=dtype)
        self.post_quant_conv = nn.Conv(self.z_channels, (1, 1), dtype=dtype)
        self.decoder = self.make_decoder()

    def __call__(self, x: jax.Array, *, train: bool = False) -> TokenizerOutput:
        """Images [B, H, W, 3] in [-1, 1] -> reconstruction, latents, codes."""
        z = self.encode_latents(x, train=train)
        with jax.named_scope("quantizer"):
            quantized = self.quantize(z, train=train)
        x_hat = self.decode_latents(quantized.z_q, train=train)
        return TokenizerOutput(x_hat=x_hat, z=z, quantized=quantized)

    def encode_latents(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Images [B, H, W, 3] in [-1, 1] -> latents [B, h, w, D], not quantised."""
        with jax.named_scope("encoder"):
            return self.quant_conv(self.encoder(x, train=train))

    def encode(self, x: jax.Array) -> jax.Array:
        """Images [B, H, W, 3] in [-1, 1] -> ids [B, h, w, M] int32."""
        z = self.encode_latents(x)
        with jax.named_scope("quantizer"):
            return self.quantize(z).ids

    def decode_latents(self, z_q: jax.Array, *, train: bool = False) -> jax.Array:
        """Quantised latents [B, h, w, D] -> images [B, H, W, 3], not clipped.

        The map that modulates the decoder is z_q before `post_quant_conv`.
        """
        with jax.named_scope("decoder"):
            return self.decoder(self.post_quant_conv(z_q), z_q, train=train)

    def decode_ids(self, ids: jax.Array) -> jax.Array:
        """ids [B, h, w, M] -> images [B, H, W, 3], not clipped."""
        with jax.named_scope("quantizer"):
            z_q = self.quantize.codes(ids)
        return self.decode_latents(z_q)

    def codes_in_effect(self) -> dict[str, jax.Array]:
        """The codes of each book, [K, d] float32, as evaluation sees them."""
        return self.quantize.codes_in_effect()

    def assigned(
        self, z: jax.Array, ids: jax.Array
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
        """By book: the features [N, d] of z [B, h, w, D], and their ids [N]."""
        return self.quantize.assigned(z, ids)


def build_tokenizer(
    model: Mapping[str, Any], *, remat_levels: Sequence[int] = ()
) -> Tokenizer:
    """The tokenizer of a config's `model` section.

    Args:
      model: the section. What is in it makes the model's fingerprint. `architecture`
        'maskgit' means `movq_jax.models.maskgit_tokenizer`; without it, `Tokenizer`.
      remat_levels: see `Tokenizer.remat_levels`.

    Raises:
      UserError: for an unknown or missing key or family name, or a bad value.
    """
    if not hasattr(model, "items"):
        raise UserError(f"config.model is {model!r}; it must be a section with keys")
    fields = {key: _frozen(value) for key, value in model.items()}
    remat = {"remat_levels": _frozen(remat_levels)}
    make = _architecture(fields)
    tokenizer = families.call(make, fields, "config.model", **remat)
    _check_backbone(tokenizer)
    tokenizer.make_quantizer(parent=None)
    tokenizer.make_decoder(parent=None)
    return tokenizer


def _architecture(fields: dict[str, Any]) -> Callable[..., Tokenizer]:
    """What makes the tokenizer of those fields, of which `architecture` is taken out.

    VQGAN's networks, the default, have no name: sections from before there were others
    keep their fingerprints.
    """
    if "architecture" not in fields:
        return Tokenizer
    # Only here: it builds on this file.
    from movq_jax.models.maskgit_tokenizer import maskgit_tokenizer

    name, known = fields.pop("architecture"), {"maskgit": maskgit_tokenizer}
    if name not in known:
        raise UserError(
            f"config.model.architecture is {name!r}; use {' or '.join(known)}, or "
            "leave it out for VQGAN's"
        )
    return known[name]


def _check_backbone(tokenizer: Tokenizer) -> None:
    where = "config.model"
    check_choice(f"{where}.dtype", tokenizer.dtype, DTYPES)
    for name in ("width", "res_blocks", "z_channels", "norm_groups"):
        check_size(f"{where}.{name}", getattr(tokenizer, name))
    multipliers = tokenizer.multipliers
    if not are_whole(multipliers) or not multipliers or min(multipliers) < 1:
        raise UserError(
            f"{where}.multipliers is {multipliers!r}; give a whole number from 1 for "
            "each level"
        )
    levels = range(len(multipliers))
    check_members(
        f"{where}.attention_factors",
        tokenizer.attention_factors,
        [2**level for level in levels],
        "the factors of its levels",
    )
    check_members(
        "config.train.remat_levels",
        tokenizer.remat_levels,
        levels,
        "the model's levels",
    )
    check_share(f"{where}.dropout", tokenizer.dropout)


def _frozen(value: Any) -> Any:
    """What a config holds, as a hashable value: so the module is one, too."""
    if hasattr(value, "items"):  # of a ConfigDict, which is no Mapping, too
        return flax.core.FrozenDict({key: _frozen(v) for key, v in value.items()})
    return tuple(value) if isinstance(value, list) else value
