"""Batches for training and evaluation, as functions of their number.

Training batch n depends on (config, seed, n) alone: there is no iterator state to
save, a run continues anywhere, and any number of processes cut the same global batch
into contiguous slices. Images are shuffled anew in every epoch; epochs follow each
other without a gap, so a batch may hold the end of one and the start of the next.
"""

import functools
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from jaxtyping import UInt8

from movq_jax.data.images import decode_image
from movq_jax.data.settings import Settings, read_settings
from movq_jax.data.sources import open_split
from movq_jax.data.transforms import Transform
from movq_jax.errors import UserError

Batch = dict[str, np.ndarray]


class Batches(Iterator[Batch]):
    """An iterator over batches that threads make ahead; close it when done.

    Example:
        >>> with train_batches(config, seed=0, batch_size=8, start=0) as batches:
        ...     batch = next(batches)
    """

    def __init__(self, batches: Sequence[Batch], of: slice, settings: Settings):
        """Iterate over the batches that `of` selects."""
        options = grain.ReadOptions(
            num_threads=settings.num_threads,
            prefetch_buffer_size=settings.prefetch if settings.num_threads else 0,
        )
        selected = grain.MapDataset.source(batches)[of]
        self._iterator = iter(selected.to_iter_dataset(options))

    def __next__(self) -> Batch:
        return next(self._iterator)

    def close(self) -> None:
        """Stop the threads; the iterator cannot be used after that."""
        self._iterator.close()

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def train_batches(
    data_config: Mapping[str, Any],
    *,
    seed: int,
    batch_size: int,
    start: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Yield the training batches from number `start` on, without end.

    Args:
        data_config: the `data` section of a config, see `settings`.
        seed: of the order and of the random transforms.
        batch_size: of the global batch, a multiple of `process_count`.
        start: number of the first batch.
        process_index: which slice of each batch to yield.
        process_count: how many slices there are.

    Returns:
        An iterator over {'image': uint8 [batch_size / process_count, S, S, 3]}.

    Raises:
        UserError: the config is wrong, the dataset is not there, or (while iterating)
            an image cannot be used.
    """
    settings = read_settings(data_config)
    slices = _TrainSlices(settings, seed, _slice_size(batch_size, process_count))
    first = start * process_count + process_index
    return Batches(slices, slice(first, None, process_count), settings)


def batch_at(
    data_config: Mapping[str, Any], n: int, *, seed: int, batch_size: int
) -> Batch:
    """Return the global training batch n: {'image': uint8 [batch_size, S, S, 3]}."""
    settings = read_settings(data_config)
    return _TrainSlices(settings, seed, _slice_size(batch_size, 1))[n]


def eval_batches(
    data_config: Mapping[str, Any],
    *,
    batch_size: int,
    split: str | None = None,
    num_examples: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Yield a split once, in its stored order, as batches of one size.

    The last batch is filled up with black images whose mask is False; all processes
    yield the same number of batches.

    Args:
        data_config: the `data` section of a config, see `settings`.
        batch_size: of the global batch, a multiple of `process_count`.
        split: default `data_config.split_eval`.
        num_examples: stop after so many images (None: all).
        process_index: which slice of each batch to yield.
        process_count: how many slices there are.

    Returns:
        An iterator over {'image': uint8 [b, S, S, 3], 'mask': bool [b]} with
        b = batch_size / process_count.

    Raises:
        UserError: as `train_batches`.
    """
    settings = read_settings(data_config)
    images = _Images(settings, split or settings.split_eval)
    count = len(images) if num_examples is None else min(num_examples, len(images))
    slices = _EvalSlices(
        images, settings.eval, count, _slice_size(batch_size, process_count)
    )
    # Whole global batches: a process whose slice is all padding yields it too.
    end = -(-count // batch_size) * process_count
    return Batches(slices, slice(process_index, end, process_count), settings)


class _TrainSlices:
    """An endless row of training images, in slices of `size` one after the other."""

    def __init__(self, settings: Settings, seed: int, size: int):
        self._images = _Images(settings, settings.split_train)
        self._transform = settings.train
        self._size = size
        self._order = _Order(len(self._images), _fold(seed, "order"))
        self._key = _fold(seed, "transform")

    def __len__(self) -> int:
        return sys.maxsize // self._size

    def __getitem__(self, number: int) -> Batch:
        batch = np.empty(_batch_shape(self._size, self._transform), np.uint8)
        for row in range(self._size):
            # Straight into the batch: fresh memory for each image, and stacking
            # them, would cost as much as half of their decoding.
            batch[row] = self._image(number * self._size + row)
        return {"image": batch}

    def _image(self, position: int) -> UInt8[np.ndarray, "size size 3"]:
        # Each position of the row has a stream of its own, so each epoch too.
        bits = np.random.Philox(key=self._key, counter=position << 64)
        rng = np.random.Generator(bits)
        return self._images.transformed(self._order[position], self._transform, rng)


class _Order:
    """Which image stands at each position of the row: in each epoch a permutation.

    Grain computes a permutation element by element and stores nothing, which suits a
    large one. But the cost grows as the set shrinks: 8 us an element of 100,000, 4 ms
    of 6. So a small one is drawn as a whole.
    """

    _DRAWN_BELOW = 2**16

    def __init__(self, count: int, seed: int):
        self._count, self._seed = count, seed
        self._computed = grain.MapDataset.range(count).shuffle(seed=seed).repeat()
        # Threads at the end of an epoch ask for two of them.
        self._drawn = functools.lru_cache(maxsize=2)(self._draw)

    def __getitem__(self, position: int) -> int:
        if self._count >= self._DRAWN_BELOW:
            return self._computed[position]
        epoch, place = divmod(position, self._count)
        return int(self._drawn(epoch)[place])

    def _draw(self, epoch: int) -> np.ndarray:
        # Raw bits, because NumPy may change how it makes permutations of them.
        bits = np.random.Philox(key=self._seed, counter=epoch << 64)
        return np.argsort(bits.random_raw(self._count), kind="stable")


class _EvalSlices:
    """The first `count` images of a split in slices of `size`, padded without end."""

    def __init__(self, images: "_Images", transform: Transform, count: int, size: int):
        self._images, self._transform = images, transform
        self._count, self._size = count, size

    def __len__(self) -> int:
        return sys.maxsize // self._size

    def __getitem__(self, number: int) -> Batch:
        indices = np.arange(self._size) + number * self._size
        mask = indices < self._count
        batch = np.zeros(_batch_shape(self._size, self._transform), np.uint8)
        for row, index in enumerate(indices[mask]):
            # A generator all the same: one may evaluate on random crops.
            rng = np.random.default_rng(index)
            batch[row] = self._images.transformed(int(index), self._transform, rng)
        return {"image": batch, "mask": mask}


class _Images:
    """The images of a split by number, decoded at each reading or only once."""

    def __init__(self, settings: Settings, split: str):
        self._source = open_split(settings, split)
        self._keep = settings.decode_once
        self._kept: dict[int, tuple[np.ndarray, str]] = {}

    def __len__(self) -> int:
        return len(self._source)

    def transformed(
        self, index: int, transform: Transform, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "size size 3"]:
        """Return the image with this number as the model sees it."""
        image, name = self._kept.get(index) or self._decode(index)
        try:
            return transform(image, rng)
        except UserError as error:
            raise UserError(f"{name} {error}") from error

    def _decode(self, index: int) -> tuple[np.ndarray, str]:
        record = self._source[index]
        name = f"{record['filename']} of {self._source.name}"
        decoded = decode_image(record["image"], name), name
        if self._keep:
            # Two threads may get here with one image: they store the same.
            self._kept[index] = decoded
        return decoded


def _batch_shape(size: int, transform: Transform) -> tuple[int, int, int, int]:
    return size, transform.image_size, transform.image_size, 3


def _fold(seed: int, name: str) -> int:
    """Return the 32-bit seed of one purpose."""
    entropy = [seed % 2**64, zlib.crc32(name.encode())]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _slice_size(batch_size: int, process_count: int) -> int:
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"a batch of {batch_size} cannot be cut into {process_count} equal parts: "
            f"choose a multiple of the number of processes"
        )
    return batch_size // process_count
