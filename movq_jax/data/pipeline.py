"""Batches for training and evaluation, as functions of their number.

Training batch n depends on (config, seed, n) alone: there is no iterator state to
save, a run continues anywhere, and any number of processes cut the same global batch
into contiguous slices. Images are shuffled anew in every epoch; epochs follow each
other without a gap, so a batch may hold the end of one and the start of the next.
Nor does it matter how many threads or workers make the batches.
"""

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from movq_jax.data.order import Order, fold
from movq_jax.data.refused import Refused
from movq_jax.data.rows import EvalRows, Images, TrainRows
from movq_jax.data.settings import Settings, read_settings
from movq_jax.data.slices import Threads, slice_size
from movq_jax.data.sources import open_split
from movq_jax.data.workers import Workers

Batch = dict[str, np.ndarray]
# The images of a slice of a batch, and what else `TrainRows` or `EvalRows` tell.
Slice = tuple[np.ndarray, dict[str, np.ndarray]]


class Batches(Iterator[Batch]):
    """An iterator over batches that are made ahead; close it when done.

    Attributes:
        refused: the training images that could not be read so far; None in evaluation,
            where such an image is an error.

    Example:
        >>> with train_batches(config, seed=0, batch_size=8, start=0) as batches:
        ...     batch = next(batches)
    """

    def __init__(self, slices: Workers | Threads, refused: Refused | None = None):
        """Make batches of `slices`."""
        self._slices = slices
        self.refused = refused

    def __next__(self) -> Batch:
        image, rest = next(self._slices)
        if self.refused is not None:
            self.refused.add(rest["broken"])
        return {"image": image} | {k: v for k, v in rest.items() if k != "broken"}

    @property
    def process_seconds(self) -> float:
        """Processor time of other processes than this one, as far as it is known."""
        return self._slices.process_seconds

    def close(self) -> None:
        """Stop threads and processes; the iterator cannot be used after that."""
        self._slices.close()

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
        An iterator over {'image': uint8 [b, S, S, 3], 'label': int32 [b]} with
        b = batch_size / process_count; a label of -1 is none.

    Raises:
        UserError: the config is wrong, the dataset is not there, or (while iterating)
            an image cannot be used.
    """
    settings = read_settings(data_config)
    slices = _TrainSlices(settings, seed, slice_size(batch_size, process_count))
    first = start * process_count + process_index
    if settings.num_workers:
        made = Workers(
            slices.rows.fill,
            map(slices.job, itertools.count(first, process_count)),
            slices.shape,
            num_workers=settings.num_workers,
            num_threads=settings.num_threads,
            ahead=settings.prefetch,
        )
    else:
        made = _threads(slices, slice(first, None, process_count), settings)
    return Batches(made, Refused(slices.images))


def batch_at(
    data_config: Mapping[str, Any], n: int, *, seed: int, batch_size: int
) -> Batch:
    """Return the global training batch n, see `train_batches`."""
    settings = read_settings(data_config)
    image, rest = _TrainSlices(settings, seed, slice_size(batch_size, 1))[n]
    return {"image": image, "label": rest["label"]}


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
        An iterator over {'image': uint8 [b, S, S, 3], 'label': int32 [b], 'mask':
        bool [b]} with b = batch_size / process_count.

    Raises:
        UserError: as `train_batches`.
    """
    settings = read_settings(data_config)
    source = open_split(settings, split or settings.split_eval)
    images = Images(source, keep=settings.decode_once)
    count = len(images) if num_examples is None else min(num_examples, len(images))
    rows = EvalRows(images, settings.eval, count)
    slices = _EvalSlices(rows, slice_size(batch_size, process_count))
    # Whole global batches: a process whose slice is all padding yields it too.
    end = -(-count // batch_size) * process_count
    return Batches(_threads(slices, slice(process_index, end, process_count), settings))


class _TrainSlices:
    """An endless row of training images, in slices of `size` one after the other."""

    def __init__(self, settings: Settings, seed: int, size: int):
        self.images = Images(
            open_split(settings, settings.split_train),
            keep=settings.decode_once,
            least_side=settings.train.least_side if settings.reduced_decoding else None,
        )
        self.rows = TrainRows(
            self.images,
            settings.train,
            crop_key=fold(seed, "transform"),
            other_key=fold(seed, "replacement"),
        )
        self.shape = (size, self.rows.side, self.rows.side, 3)
        self._order = Order(len(self.images), fold(seed, "order"))

    def __len__(self) -> int:
        return sys.maxsize // self.shape[0]

    def __getitem__(self, number: int) -> Slice:
        image = np.empty(self.shape, np.uint8)
        return image, self.rows.fill(image, *self.job(number))

    def job(self, number: int) -> tuple[int, list[int]]:
        """Return the position of the first row, and which image is in each."""
        size = self.shape[0]
        positions = range(number * size, (number + 1) * size)
        return positions.start, [self._order[position] for position in positions]


class _EvalSlices:
    """The images of a split in slices of `size`, padded without end."""

    def __init__(self, rows: EvalRows, size: int):
        self._rows, self._shape = rows, (size, rows.side, rows.side, 3)

    def __len__(self) -> int:
        return sys.maxsize // self._shape[0]

    def __getitem__(self, number: int) -> Slice:
        image = np.zeros(self._shape, np.uint8)
        return image, self._rows.fill(image, number * self._shape[0])


def _threads(slices: Sequence[Slice], of: slice, settings: Settings) -> Threads:
    return Threads(
        slices, of, num_threads=settings.num_threads, ahead=settings.prefetch
    )
