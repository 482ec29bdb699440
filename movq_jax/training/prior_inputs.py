"""What a prior learns from: a tokenizer, and batches of images or of its indices.

A batch has `image` (encoded within the step) or `ids`, `label` (0 without classes), and
in evaluation `mask` and `index`, the number of each example in the split.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from movq_jax.data import pipeline
from movq_jax.data.refused import Refused
from movq_jax.data.tokens.cache import TokenCache, eval_token_batches, token_batches
from movq_jax.errors import UserError
from movq_jax.training import image_inputs

Batch = dict[str, np.ndarray]
_CACHE_THREADS = 2  # reading indices costs next to nothing


class Labelled(Iterator[Batch]):
    """Batches whose labels are classes of the prior; close it when done.

    Attributes:
      refused: as of `pipeline.Batches`; None where no images are read.
    """

    def __init__(
        self,
        batches: Any,
        num_classes: int,
        *,
        source: str,
        refused: Refused | None = None,
        first: int | None = None,
        stride: int = 0,
    ) -> None:
        """Checks the labels of `batches`.

        Args:
          source: what the batches are from, for error messages.
          first: in evaluation, the number of the first row.
          stride: rows from a batch to the next, in evaluation.
        """
        self._batches, self._num_classes, self._source = batches, num_classes, source
        self._next, self._stride = first, stride
        self.refused = refused

    def __next__(self) -> Batch:
        batch = dict(next(self._batches))
        batch["label"] = self._labels(batch)
        if self._next is not None:
            rows = np.arange(len(batch["label"]), dtype=np.int32)
            batch["index"] = rows + np.int32(self._next)
            self._next += self._stride
        return batch

    def _labels(self, batch: Batch) -> np.ndarray:
        labels = batch["label"]
        if not self._num_classes:
            return np.zeros_like(labels)
        there = batch["mask"] if "mask" in batch else np.full(len(labels), True)
        wrong = labels[there & ((labels < 0) | (labels >= self._num_classes))]
        if wrong.size and wrong[0] < 0:
            raise UserError(
                f"{self._source} has an example without a label, but "
                f"config.model.num_classes is {self._num_classes}: label the data, or "
                "set it to 0"
            )
        if wrong.size:
            raise UserError(
                f"{self._source} has the label {wrong[0]}, but "
                f"config.model.num_classes is {self._num_classes}: labels are 0 to "
                f"{self._num_classes - 1}"
            )
        return np.where(there, labels, 0)

    def close(self) -> None:
        """Stops threads and processes; the iterator cannot be used after that."""
        self._batches.close()

    def __enter__(self) -> "Labelled":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def train_batches(
    config: ConfigDict,
    start: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
    **changes: Any,
) -> Labelled:
    """A process's slices of the training batches from number `start` on.

    Raises:
      UserError: the data are not there, or (while iterating) a label is no class.
    """
    slices = {"process_index": process_index, "process_count": process_count}
    num_classes = config.model.num_classes
    if not config.cache.train:
        images = image_inputs.train_batches(config, start, **slices, **changes)
        refused, source = images.refused, config.data.dataset
        return Labelled(images, num_classes, source=source, refused=refused)
    ids = token_batches(
        open_cache(config, "train").folder,
        fingerprint=config.tokens.fingerprint,
        seed=config.seed,
        batch_size=config.train.batch_size,
        start=start,
        num_threads=_CACHE_THREADS,
        **slices,
    )
    return Labelled(ids, num_classes, source=config.cache.train)


def batch_at(config: ConfigDict, n: int) -> Batch:
    """The global training batch n."""
    if not config.cache.train:
        return pipeline.batch_at(
            config.data, n, seed=config.seed, batch_size=config.train.batch_size
        )
    with train_batches(config, n) as batches:
        return next(batches)


def eval_batches(
    config: ConfigDict,
    *,
    batch_size: int,
    num_examples: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Labelled:
    """A process's slices of the evaluation split, once and in its order.

    Raises:
      UserError: as `train_batches`.
    """
    options = {
        "batch_size": batch_size,
        "num_examples": num_examples,
        "process_index": process_index,
        "process_count": process_count,
    }
    if config.cache.eval:
        source = config.cache.eval
        batches = eval_token_batches(
            open_cache(config, "eval").folder,
            fingerprint=config.tokens.fingerprint,
            num_threads=_CACHE_THREADS,
            **options,
        )
    else:
        source = f"{config.data.dataset} {config.data.split_eval}"
        batches = image_inputs.eval_batches(config, **options)
    first = process_index * (batch_size // process_count)
    return Labelled(
        batches,
        config.model.num_classes,
        source=source,
        first=first,
        stride=batch_size,
    )


def open_cache(config: ConfigDict, part: str) -> TokenCache:
    """The cache to train from ('train') or to evaluate on ('eval').

    Raises:
      UserError: there is none, or it is of another tokenizer, grid or other classes.
    """
    cache = TokenCache.open(config.cache[part])
    tokens = config.tokens
    cache.check_fits(tokens.fingerprint, grid=tuple(tokens.grid))
    classes = cache.manifest.plan.classes
    if config.model.num_classes and classes != tuple(tokens.classes):
        raise UserError(
            f"the token cache {cache.folder} has {len(classes)} classes, which are not "
            f"the {len(tokens.classes)} that the prior learns: make both caches, or "
            "the cache and the images, of one dataset"
        )
    return cache
