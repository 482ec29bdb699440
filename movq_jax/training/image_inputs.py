"""Batches of a run's images, by the names that the loop asks a stage for."""

from typing import Any

from ml_collections import ConfigDict

from movq_jax.data import pipeline


def train_batches(
    config: ConfigDict,
    start: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
    **changes: Any,
) -> pipeline.Batches:
    """A process's slices of the training batches from number `start` on.

    `changes` are fields of `config.data`. See `pipeline.train_batches`.
    """
    return pipeline.train_batches(
        {**config.data, **changes},
        seed=config.seed,
        batch_size=config.train.batch_size,
        start=start,
        process_index=process_index,
        process_count=process_count,
    )


def batch_at(config: ConfigDict, n: int) -> pipeline.Batch:
    """The global training batch n."""
    return pipeline.batch_at(
        config.data, n, seed=config.seed, batch_size=config.train.batch_size
    )


def eval_batches(
    config: ConfigDict,
    *,
    batch_size: int,
    num_examples: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> pipeline.Batches:
    """A process's slices of the evaluation split, see `pipeline.eval_batches`."""
    return pipeline.eval_batches(
        config.data,
        batch_size=batch_size,
        num_examples=num_examples,
        process_index=process_index,
        process_count=process_count,
    )
