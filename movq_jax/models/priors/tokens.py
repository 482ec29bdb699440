"""What a prior must know of the indices that it models."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from movq_jax.errors import UserError
from movq_jax.fields import is_whole

WHERE = "config.tokens"


@dataclass(frozen=True)
class Tokens:
    """A grid of positions, and M indices at each of them.

    Attributes:
      grid: (h, w).
      codebook_sizes: how many values the index of each channel takes, M numbers.
      books: the codebook that each channel's index points into, M names. Channels of
        one book share its embeddings.
    """

    grid: tuple[int, int]
    codebook_sizes: tuple[int, ...]
    books: tuple[str, ...]

    def __post_init__(self):
        _check_sizes("grid", self.grid, 2)
        _check_sizes("codebook_sizes", self.codebook_sizes)
        if len(self.books) != self.num_channels:
            raise UserError(
                f"{WHERE}.books has {len(self.books)} names and codebook_sizes "
                f"{self.num_channels} numbers; give one of each a channel"
            )
        for name, size in zip(self.books, self.codebook_sizes, strict=True):
            if size != self.book_sizes[self.book_names.index(name)]:
                raise UserError(
                    f"{WHERE}.codebook_sizes has several sizes for the book {name!r}; "
                    "give channels of different sizes books of different names"
                )

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> "Tokens":
        """From a config's `tokens` section, of which more than these is no error.

        Raises:
          UserError: one of the fields is missing, or makes no sense.
        """
        if not hasattr(section, "items"):
            raise UserError(f"{WHERE} is {section!r}; it must be a section with keys")
        fields = {}
        for name in ("grid", "codebook_sizes", "books"):
            if name not in section:
                raise UserError(f"{WHERE} has no {name}; give it")
            value = section[name]
            if not isinstance(value, (tuple, list)):
                raise UserError(f"{WHERE}.{name} is {value!r}; give a tuple")
            fields[name] = tuple(value)
        return cls(**fields)

    @property
    def num_positions(self) -> int:
        """N = h * w."""
        return self.grid[0] * self.grid[1]

    @property
    def num_channels(self) -> int:
        """M."""
        return len(self.codebook_sizes)

    @property
    def units(self) -> int:
        """N * M, the number of indices."""
        return self.num_positions * self.num_channels

    @property
    def size(self) -> int:
        """K, the number of values an index can take, in the channel with the most."""
        return max(self.codebook_sizes)

    @property
    def book_names(self) -> tuple[str, ...]:
        """The different books, in the order in which channels name them."""
        return tuple(dict.fromkeys(self.books))

    @property
    def book_sizes(self) -> tuple[int, ...]:
        """The number of codes of each of the different books."""
        sizes = dict(zip(self.books[::-1], self.codebook_sizes[::-1], strict=True))
        return tuple(sizes[name] for name in self.book_names)

    @property
    def channel_book(self) -> tuple[int, ...]:
        """For each channel the number of its book among the different ones."""
        return tuple(self.book_names.index(name) for name in self.books)


def _check_sizes(name: str, sizes: Any, number: int | None = None) -> None:
    fits = isinstance(sizes, tuple) and len(sizes) == (number or len(sizes)) > 0
    if not fits or not all(is_whole(size) and size >= 1 for size in sizes):
        raise UserError(
            f"{WHERE}.{name} is {sizes!r}; give {number or 'one or more'} whole "
            "numbers from 1"
        )
