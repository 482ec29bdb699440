"""Dual codebooks: one half of a latent by a global book, the other by a local one."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from movq_jax.errors import UserError
from movq_jax.fields import are_whole, check_choice, check_size, is_whole
from movq_jax.models.quantizers.base import WHERE, QuantizerOutput, error_per_image
from movq_jax.models.quantizers.code_transformer import (
    TransformerCodebook,
    check_dropout,
)
from movq_jax.models.quantizers.codebook import Codebook, look_up
from movq_jax.models.quantizers.lookup import LookupQuantizer, trainable_by_rule

BOOKS = ("global_codebook", "local_codebook")
HALVES = ("first", "last")


class DualQuantizer(LookupQuantizer):
    """Two halves along the channels, each with a codebook of its own.

    Dual Codebook VQ (arXiv 2503.10832): the codes of the global book are the output of
    a transformer over its rows, see `TransformerCodebook`; the local book is a plain
    one. The losses of the halves are added. Channel 0 of the indices is the global
    one, channel 1 the local one, whichever half comes first.

    With `depth` 0 it is plain product quantisation with two books.

    Deviation from the authors' code: the transformer's layers start different from
    each other; there they are copies, as torch makes them.

    Attributes:
      codebook_size: rows of each book, or (global, local).
      dim: channels of the latent, cut in equal halves, or (global, local).
      form: of the local book; of both with depth 0.
      global_half: 'first' or 'last' channels of the latent.
      depth: layers of the transformer.
      heads: its attention heads.
      ffn: its hidden width.
      dropout: in training, see `CodeLayer`. 0 makes training and evaluation see the
        same codes.
    """

    codebook_size: int | Sequence[int]
    dim: int | Sequence[int]
    global_half: str = "first"
    depth: int = 6
    heads: int = 8
    ffn: int = 2048
    dropout: float = 0.1

    def __post_init__(self):
        check_choice(f"{WHERE}.global_half", self.global_half, HALVES)
        check_size(f"{WHERE}.depth", self.depth, least=0)
        # Also where depth 0 does not need them: one may raise it later.
        check_size(f"{WHERE}.heads", self.heads)
        check_size(f"{WHERE}.ffn", self.ffn)
        check_dropout(self.dropout)
        if self.depth and self.form == "l2":
            raise UserError(
                f"{WHERE}.form is 'l2', which has no place with a transformer: use "
                f"plain or linear, or {WHERE}.depth=0"
            )
        self.codebook_sizes, self.dims  # noqa: B018 - they refuse bad values
        self._global_book(parent=None)
        self._local_book(parent=None)
        super().__post_init__()

    @property
    def codebook_sizes(self) -> tuple[int, int]:
        """Rows of the global and of the local book."""
        return _pair(f"{WHERE}.codebook_size", self.codebook_size)

    @property
    def dims(self) -> tuple[int, int]:
        """Channels of the global and of the local half."""
        if is_whole(self.dim):
            if self.dim < 2 or self.dim % 2:
                raise UserError(
                    f"{WHERE}.dim is {self.dim}, which has no two equal halves: give "
                    "an even number, or the widths (global, local)"
                )
            return (self.dim // 2,) * 2
        return _pair(f"{WHERE}.dim", self.dim)

    @property
    def num_channels(self) -> int:
        """M, indices a position."""
        return len(BOOKS)

    @property
    def latent_channels(self) -> int:
        """Channels of the latent."""
        return sum(self.dims)

    @property
    def channel_books(self) -> tuple[str, ...]:
        """The book that each channel's index points into."""
        return BOOKS

    @property
    def ruled_books(self) -> tuple[str, ...]:
        """Books whose rows may be set from features: not those under a transformer."""
        if not trainable_by_rule(self.form):
            return ()
        return BOOKS[1:] if self.depth else BOOKS

    def setup(self):
        self.global_codebook = self._global_book()
        self.local_codebook = self._local_book()

    def _global_book(self, **extra) -> nn.Module:
        size, dim = self.codebook_sizes[0], self.dims[0]
        if not self.depth:
            return Codebook(size, dim, self.form, **extra)
        return TransformerCodebook(
            size, dim, self.depth, self.heads, self.ffn, self.dropout, **extra
        )

    def _local_book(self, **extra) -> nn.Module:
        return Codebook(self.codebook_sizes[1], self.dims[1], self.form, **extra)

    def __call__(self, z: jax.Array, *, train: bool = False) -> QuantizerOutput:
        """z [B, h, w, D], any float dtype -> QuantizerOutput."""
        halves, ids, loss, error = [], [], 0.0, 0.0
        for features, book in zip(self._features(z), self._books(), strict=True):
            chosen, z_q = look_up(features, book(train=train))
            halves.append(self.estimate(features, z_q))
            ids.append(chosen)
            loss += self.vq_loss(features, z_q)
            share = features.shape[-1] / z.shape[-1]
            error += share * error_per_image(features, z_q)
        return QuantizerOutput(
            z_q=self._join(halves),
            ids=jnp.stack(ids, axis=-1),
            loss=loss,
            stats={"quantisation_mse": error},
        )

    def codes(self, ids: jax.Array) -> jax.Array:
        """ids [B, h, w, 2] -> z_q [B, h, w, D] float32."""
        books = enumerate(self._books())
        return self._join([book()[ids[..., channel]] for channel, book in books])

    def codes_in_effect(self) -> dict[str, jax.Array]:
        """The codes of each book, [K, d] float32, as evaluation sees them."""
        return {name: book() for name, book in zip(BOOKS, self._books(), strict=True)}

    def assigned(
        self, z: jax.Array, ids: jax.Array
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
        """By book: the features [N, d] of z, and which code [N] each one has."""
        return {
            name: (features.reshape(-1, dim), ids[..., channel].reshape(-1))
            for channel, (name, features, dim) in enumerate(
                zip(BOOKS, self._features(z), self.dims, strict=True)
            )
        }

    def _books(self) -> tuple[nn.Module, nn.Module]:
        return self.global_codebook, self.local_codebook

    def _features(self, z: jax.Array) -> list[jax.Array]:
        """What the books compare: of the global and of the local half, [B, h, w, d]."""
        widths = self.dims
        if self.global_half == "first":
            halves = z[..., : widths[0]], z[..., widths[0] :]
        else:
            halves = z[..., widths[1] :], z[..., : widths[1]]
        return [
            book.features(half)
            for book, half in zip(self._books(), halves, strict=True)
        ]

    def _join(self, halves: list[jax.Array]) -> jax.Array:
        """(global, local) -> the latent."""
        ordered = halves if self.global_half == "first" else halves[::-1]
        return jnp.concatenate(ordered, axis=-1)


def _pair(where: str, value: int | Sequence[int]) -> tuple[int, int]:
    """One whole number for both books, or one for each: (global, local)."""
    if is_whole(value):
        return value, value
    value = tuple(value) if isinstance(value, list) else value
    if not are_whole(value) or len(value) != 2:
        raise UserError(
            f"{where} is {value!r}; give a whole number for both books, or two: "
            "(global, local)"
        )
    return value
