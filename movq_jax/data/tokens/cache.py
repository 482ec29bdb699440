"""A token cache to train from: its records by number, and batches of them.

    cache = TokenCache.open("tokens/")
    cache[0]                  # {"ids": int32 [h, w, M], "label": 3}

    batches = token_batches(
        "tokens/", fingerprint=tok.fingerprint, seed=0, batch_size=64, start=0
    )

`eval_token_batches` yields each record once, in order. For training, batch n depends on
(cache, seed, batch_size, n) alone, as that of images does: see
`movq_jax.data.pipeline`. What a cache is: see `movq_jax.data.tokens.manifest`.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from jaxtyping import Bool, Int32

from movq_jax.data.checksums import file_sha256
from movq_jax.data.order import Order, fold
from movq_jax.data.slices import Threads, slice_size
from movq_jax.data.tokens.manifest import MANIFEST, Manifest, read_manifest
from movq_jax.data.tokens.plan import PLAN, read_plan
from movq_jax.data.tokens.shards import is_whole, missing_shards
from movq_jax.errors import UserError

Batch = dict[str, np.ndarray]
_AT_ONCE = 1024  # records, where all are read


class TokenCache:
    """The records of a finished cache, by number; several threads may read at once.

    Attributes:
        folder: where it lies.
        manifest: what it says of itself.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Use `open`."""
        self.folder, self.manifest = folder, manifest
        self._plan = manifest.plan
        self._sizes = np.array(manifest.plan.codebook_sizes)
        files = [folder / shard.file for shard in manifest.shards if shard.records]
        self._records = ArrayRecordDataSource([os.fspath(path) for path in files])

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "TokenCache":
        """Open a cache whose shards have the sizes and counts that it tells.

        Raises:
            UserError: there is none, it is not finished, or it is damaged.
        """
        if "://" in os.fspath(folder):
            raise UserError(f"{folder} is a bucket: copy the cache to a local folder")
        folder = Path(folder).expanduser()
        manifest = read_manifest(_find_manifest(folder))
        for shard in manifest.shards:
            path = folder / shard.file
            if not is_whole(path, shard):
                raise UserError(
                    f"{path} is not the file of {shard.bytes:,} bytes with "
                    f"{shard.records:,} records that the manifest tells of: run the "
                    f"command that made the cache again, it makes that shard anew"
                )
        return cls(folder, manifest)

    def __len__(self) -> int:
        return self.manifest.count

    def __getitem__(self, number: int) -> dict[str, np.ndarray | int]:
        """Return {"ids": int32 [h, w, M], "label": int} of an image, not mirrored."""
        if not 0 <= number < len(self):
            raise IndexError(f"{self.folder} has no record {number}")
        ids, labels = self.read([int(number)])
        return {"ids": ids[0], "label": int(labels[0])}

    def read(
        self, numbers: Sequence[int], mirrored: Bool[np.ndarray, " b"] | None = None
    ) -> tuple[Int32[np.ndarray, "b h w m"], Int32[np.ndarray, " b"]]:
        """Return ids and labels of several images.

        Args:
            numbers: of the images, each in 0 .. len - 1.
            mirrored: whether to take an image's mirror image; None: of none.

        Raises:
            UserError: a record is damaged.
        """
        plan = self._plan
        ids = np.empty((len(numbers), *plan.grid, plan.num_channels), np.int32)
        labels = np.empty(len(numbers), np.int32)
        for row, record in enumerate(self._read_bytes(numbers)):
            if len(record) != plan.record_bytes:
                raise self._damaged(
                    numbers[row],
                    f"it has {len(record)} bytes, not {plan.record_bytes}",
                )
            labels[row], variants = plan.unpack(record)
            ids[row] = variants[0 if mirrored is None else int(mirrored[row])]
        outside = (ids < 0) | (ids >= self._sizes)
        if outside.any():
            row, *_, channel = map(int, np.argwhere(outside)[0])
            raise self._damaged(
                numbers[row],
                f"channel {channel} has an index outside of 0 .. "
                f"{self._sizes[channel] - 1}",
            )
        return ids, labels

    def check_fits(
        self, fingerprint: str, *, grid: tuple[int, int] | None = None
    ) -> None:
        """See that a prior for a certain tokenizer may train on this cache.

        Args:
            fingerprint: of the tokenizer.
            grid: (h, w) that the prior is made for; None: any.

        Raises:
            UserError: another tokenizer made it, or for other sizes of images.
        """
        plan = self._plan
        if fingerprint != plan.fingerprint:
            raise UserError(
                f"the token cache {self.folder} was made by the tokenizer "
                f"{plan.fingerprint}, not by {fingerprint}: make one with `movq "
                f"tokenize`, or name the tokenizer that made it"
            )
        if grid is not None and tuple(grid) != plan.grid:
            raise UserError(
                f"the token cache {self.folder} has {_by(plan.grid)} positions an "
                f"image ({plan.image_size} pixels a side), not {_by(grid)}: make one "
                f"with `movq tokenize --image-size={grid[0] * plan.factor}`"
            )

    def problems(self) -> Iterator[str]:
        """Read the cache to its last byte and yield what is wrong with its shards."""
        classes = len(self._plan.classes) or sys.maxsize
        start = 0
        for shard in self.manifest.shards:
            stop = start + shard.records
            if file_sha256(self.folder / shard.file) != shard.sha256:
                yield f"{shard.file}: its bytes are not those that were written"
            for first in range(start, stop, _AT_ONCE):
                try:
                    _, labels = self.read(range(first, min(first + _AT_ONCE, stop)))
                except UserError as error:
                    yield f"{shard.file}: {error}"
                    break
                if labels.min() < -1 or labels.max() >= classes:
                    yield f"{shard.file}: a label from record {first} on has no class"
                    break
            start = stop

    def _read_bytes(self, numbers: Sequence[int]) -> Sequence[bytes]:
        try:
            return self._records.__getitems__(list(numbers))
        # ArrayRecord raises several kinds on damaged files.
        except Exception as error:
            raise self._damaged(numbers[0], f"or one after it ({error})") from error

    def _damaged(self, number: int, why: str) -> UserError:
        return UserError(
            f"the token cache {self.folder} is damaged in record {number}: {why}; "
            f"`movq tokenize --verify --out={self.folder}` says which shards to "
            f"delete, and the command that made it makes them anew"
        )


def token_batches(
    folder: str | os.PathLike,
    *,
    fingerprint: str,
    seed: int,
    batch_size: int,
    start: int,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 1,
) -> Threads:
    """Yield the training batches of a cache from number `start` on, without end.

    Each epoch has each image once, in an order of its own; where the cache has the
    mirrored images, too, one of both is chosen at random.

    Args:
        folder: of the cache.
        fingerprint: of the tokenizer that must have made it.
        seed: of the order and of the mirroring.
        batch_size: of the global batch, a multiple of `process_count`.
        start: number of the first batch.
        process_index: which slice of each batch to yield.
        process_count: how many slices there are.
        num_threads: that read ahead; 0: none besides the caller's.

    Returns:
        An iterator over {"ids": int32 [b, h, w, M], "label": int32 [b]} with
        b = batch_size / process_count; a label of -1 is none.

    Raises:
        UserError: the cache cannot be used, or is another tokenizer's.
    """
    size = slice_size(batch_size, process_count)
    cache = TokenCache.open(folder)
    cache.check_fits(fingerprint)
    slices = _Slices(cache, seed, size)
    first = start * process_count + process_index
    of = slice(first, None, process_count)
    return Threads(slices, of, num_threads=num_threads, ahead=4 * num_threads)


def eval_token_batches(
    folder: str | os.PathLike,
    *,
    fingerprint: str,
    batch_size: int,
    num_examples: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 1,
) -> Threads:
    """Yield a cache once, in its order and not mirrored, as batches of one size.

    The last batch is filled up with rows whose mask is False; all processes yield the
    same number of batches.

    Args:
        folder: of the cache.
        fingerprint: of the tokenizer that must have made it.
        batch_size: of the global batch, a multiple of `process_count`.
        num_examples: stop after so many (None: all).
        process_index: which slice of each batch to yield.
        process_count: how many slices there are.
        num_threads: that read ahead; 0: none besides the caller's.

    Returns:
        An iterator over {"ids": int32 [b, h, w, M], "label": int32 [b], "mask": bool
        [b]} with b = batch_size / process_count; a label of -1 is none.

    Raises:
        UserError: as `token_batches`.
    """
    size = slice_size(batch_size, process_count)
    cache = TokenCache.open(folder)
    cache.check_fits(fingerprint)
    count = len(cache) if num_examples is None else min(num_examples, len(cache))
    # Whole global batches: a process whose slice is all padding yields it too.
    end = -(-count // batch_size) * process_count
    of = slice(process_index, end, process_count)
    slices = _Ordered(cache, count, size)
    return Threads(slices, of, num_threads=num_threads, ahead=4 * num_threads)


class _Ordered(Sequence[Batch]):
    """The first `count` examples in slices of `size`, padded without end."""

    def __init__(self, cache: TokenCache, count: int, size: int) -> None:
        self._cache, self._count, self._size = cache, count, size

    def __len__(self) -> int:
        return sys.maxsize // self._size

    def __getitem__(self, number: int) -> Batch:
        plan = self._cache.manifest.plan
        numbers = np.arange(self._size) + number * self._size
        mask = numbers < self._count
        ids = np.zeros((self._size, *plan.grid, plan.num_channels), np.int32)
        labels = np.full(self._size, -1, np.int32)
        if mask.any():
            ids[mask], labels[mask] = self._cache.read(numbers[mask].tolist())
        return {"ids": ids, "label": labels, "mask": mask}


class _Slices(Sequence[Batch]):
    """An endless row of training examples, in slices of `size` one after the other."""

    def __init__(self, cache: TokenCache, seed: int, size: int) -> None:
        self._cache, self._size = cache, size
        self._order = Order(len(cache), fold(seed, "order"))
        self._flip_key = fold(seed, "flip")

    def __len__(self) -> int:
        return sys.maxsize // self._size

    def __getitem__(self, number: int) -> Batch:
        first = number * self._size
        numbers = [self._order[first + row] for row in range(self._size)]
        mirrored = None
        if self._cache.manifest.plan.flip:
            mirrored = _coins(self._flip_key, first, self._size)
        ids, labels = self._cache.read(numbers, mirrored)
        return {"ids": ids, "label": labels}


def _coins(key: int, first: int, count: int) -> Bool[np.ndarray, " count"]:
    """Return one of two for each position from `first` on, whatever is before it."""
    # A step of the counter makes four numbers: those of four positions.
    block, skipped = divmod(first, 4)
    bits = np.random.Philox(key=key, counter=block).random_raw(skipped + count)
    return (bits[skipped:] & np.uint64(1)).astype(bool)


def _find_manifest(folder: Path) -> Path:
    """Return the path of the manifest of a finished cache."""
    if folder.is_file():
        raise UserError(
            f"{folder} is a file, and a token cache a folder: `movq tokenize` makes "
            f"one of a dataset (the npz of `movq encode` is for `movq decode`)"
        )
    path = folder / MANIFEST
    if path.is_file():
        return path
    if not (folder / PLAN).is_file():
        raise UserError(
            f"there is no token cache in {folder}: `movq tokenize --out={folder}` "
            f"makes one"
        )
    plan = read_plan(folder / PLAN)
    missing = len(missing_shards(folder, plan))
    raise UserError(
        f"the token cache {folder} is not finished: {missing} of {plan.num_shards} "
        f"shards are missing; run the command that makes it again"
    )


def _by(grid: tuple[int, int]) -> str:
    return f"{grid[0]} x {grid[1]}"
