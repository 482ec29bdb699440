"""What a tokenizer's codes look like alone, and what quantisation costs."""

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from movq_jax.evaluation.codebooks.tally import CodeTally
from movq_jax.models.pixels import from_uint8, to_uint8
from movq_jax.pretrained.tokenizer import PretrainedTokenizer

MAX_TILES = 4096
TILES_A_CALL = 64


class Mosaic(NamedTuple):
    """Which codes are decoded alone, each to a tile.

    Attributes:
      name: for a file, `global_codebook` for example.
      title: for people.
      note: what stands at the other channels, and which codes are left out.
      codes: int64 [n], the indices that are shown, rising.
      dead: bool [n], those that were never chosen.
      ids: int32 [n, M], what is decoded; -1: nothing is added at this step.
    """

    name: str
    title: str
    note: str
    codes: np.ndarray
    dead: np.ndarray
    ids: np.ndarray


class Probe:
    """Compiled calls into a tokenizer, for what its public methods do not give."""

    def __init__(self, tok: PretrainedTokenizer) -> None:
        self._tok = tok

    def quantise(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images to indices, and what quantisation changed.

        Args:
          images: uint8 [B, H, W, 3], B at most the tokenizer's micro-batch.

        Returns:
          int32 [B, h, w, M], and float32 [B]: the mean over an image's latent of the
          squared difference between features and codes.
        """
        ids, error = self._quantise(_filled(images, self._tok.micro_batch))
        return np.asarray(ids)[: len(images)], np.asarray(error)[: len(images)]

    def tiles(self, ids: np.ndarray) -> Iterator[np.ndarray]:
        """Decodes each code alone, as the latent of one position.

        Args:
          ids: int32 [N, M], see `Mosaic.ids`.

        Yields:
          uint8 [n, f, f, 3], in the order of the ids, N altogether.
        """
        partial = bool((ids < 0).any())
        decode = self._decode_steps if partial else self._decode_ids
        for start in range(0, len(ids), TILES_A_CALL):
            part = ids[start : start + TILES_A_CALL, None, None, :]
            padded = _filled(part, min(TILES_A_CALL, len(ids)))
            yield np.asarray(decode(padded))[: len(part)]

    @cached_property
    def _quantise(self):
        def quantise(tokenizer, images):
            quantized = tokenizer.quantize(tokenizer.encode_latents(from_uint8(images)))
            return quantized.ids, quantized.stats["quantisation_mse"]

        return self._tok.compiled(quantise)

    @cached_property
    def _decode_ids(self):
        def decode(tokenizer, ids):
            return to_uint8(jnp.clip(tokenizer.decode_ids(ids), -1.0, 1.0))

        return self._tok.compiled(decode)

    @cached_property
    def _decode_steps(self):
        """Of a residual quantizer, whose latent is the sum over the steps."""

        def decode(tokenizer, ids):
            (book,) = tokenizer.codes_in_effect().values()
            chosen = jnp.where((ids >= 0)[..., None], book[ids], 0.0)
            z_q = jnp.sum(chosen, axis=-2)
            return to_uint8(jnp.clip(tokenizer.decode_latents(z_q), -1.0, 1.0))

        return self._tok.compiled(decode)


def mosaics(tok: PretrainedTokenizer, tally: CodeTally) -> list[Mosaic]:
    """What to show of each book, by the kind of quantizer.

    - one channel: index i.
    - several that share a book: i in all of them, as no channel has codes of its own.
    - residual: i at the first step and nothing at the others, which is what the image
      looks like when the first step chose i and the others have not spoken yet.
    - several books: of each i, with the most used codes in the others'; and, for
      two books, the pairs (i, i). That two books number their codes alike means
      nothing: it is one sample of the pairs.
    """
    residual = tok.config["quantizer"]["name"] == "residual"
    favourites = np.array([_favourite(counts) for counts in tally.channels])
    found = []
    for book in tally.book_names:
        codes, dead, left_out = _chosen(tally.book(book))
        channels = tally.channels_of(book)
        ids = np.tile(favourites, (len(codes), 1))
        ids[:, channels] = codes[:, None]
        if residual:
            ids[:, channels[1:]] = -1
        note = _note(tok, tally, book, residual, favourites)
        found.append(
            Mosaic(
                book, _title(book), note + left_out, codes, dead, ids.astype(np.int32)
            )
        )
    if len(found) == 2 and tok.num_channels == 2:
        pairs = _pairs(found)
        found += [pairs] if len(pairs.codes) else []
    return found


def _chosen(counts) -> tuple[np.ndarray, np.ndarray, str]:
    """Which codes of a book are shown, which of these are dead, and what is not."""
    seen, times = counts.seen()
    if counts.size <= MAX_TILES:
        codes = np.arange(counts.size)
        return codes, ~np.isin(codes, seen), ""
    # Stable: of codes that are used alike those with lower indices.
    order = np.argsort(-times, kind="stable")[:MAX_TILES]
    codes = np.sort(seen[order])
    which = "all" if len(seen) <= MAX_TILES else f"the {MAX_TILES:,} most used"
    text = f" Shown are {which} of the {len(seen):,} used ones among {counts.size:,}."
    return codes, np.zeros(len(codes), bool), text


def _favourite(counts) -> int:
    values, times = counts.seen()
    return int(values[np.argmax(times)]) if len(values) else 0


def _note(tok, tally, book: str, residual: bool, favourites: np.ndarray) -> str:
    channels = tally.channels_of(book)
    if residual:
        return (
            "Code i alone, as if the residual steps ended after the first: the sum of "
            "the others is left out."
        )
    if len(channels) == tok.num_channels:
        if len(channels) == 1:
            return "Code i at a single position."
        return f"Code i in all {len(channels)} channels of a single position."
    others = {
        tok.channel_books[channel]: int(favourites[channel])
        for channel in range(tok.num_channels)
        if channel not in channels
    }
    fixed = " and ".join(
        f"code {code} of {_title(name)}" for name, code in others.items()
    )
    return f"Code i of this book, with {fixed}, which is used most."


def _pairs(books: list[Mosaic]) -> Mosaic:
    first, second = books
    codes, at, beside = np.intersect1d(
        first.codes, second.codes, assume_unique=True, return_indices=True
    )
    note = (
        "Code i of the first book with code i of the second: the numbering of the two "
        "is not related, so this is a sample of the pairs. Marked are the pairs of "
        "which either code was never chosen."
    )
    return Mosaic(
        name="pairs",
        title="pairs (i, i)",
        note=note,
        codes=codes,
        dead=first.dead[at] | second.dead[beside],
        ids=np.stack([codes, codes], axis=-1).astype(np.int32),
    )


def _title(book: str) -> str:
    return book.replace("_", " ")


def _filled(array: np.ndarray, count: int) -> np.ndarray:
    """`array` with its last entry repeated to `count` entries: one compiled size."""
    missing = max(0, count - len(array))
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
