"""Slices of batches: how large they are, and threads that make them ahead."""

from collections.abc import Iterator, Sequence
from typing import Any

import grain

from movq_jax.errors import UserError


def slice_size(batch_size: int, process_count: int) -> int:
    """Return how many rows of a global batch each process has.

    Raises:
        UserError: the batch cannot be cut into equal parts.
    """
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"a batch of {batch_size} cannot be cut into {process_count} equal parts: "
            f"choose a multiple of the number of processes"
        )
    return batch_size // process_count


class Threads(Iterator[Any]):
    """Slices made ahead by threads of this process; close it when done."""

    process_seconds = 0.0  # of other processes than this one

    def __init__(
        self, slices: Sequence[Any], of: slice, *, num_threads: int, ahead: int
    ):
        """Iterate over the `slices` that `of` selects, `ahead` of them at a time."""
        options = grain.ReadOptions(
            num_threads=num_threads, prefetch_buffer_size=ahead if num_threads else 0
        )
        selected = grain.MapDataset.source(slices)[of]
        self._iterator = iter(selected.to_iter_dataset(options))

    def __next__(self) -> Any:
        return next(self._iterator)

    def close(self) -> None:
        """Stop the threads; the iterator cannot be used after that."""
        self._iterator.close()

    def __enter__(self) -> "Threads":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
