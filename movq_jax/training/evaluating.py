"""The evaluation split, as the averaged weights of a state see it."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from movq_jax.errors import UserError
from movq_jax.training import metrics as metrics_lib
from movq_jax.training import sharding
from movq_jax.training.set_distance import make_set_distance
from movq_jax.training.state import TrainState


class Evaluator:
    """Metrics and pictures of a stage's evaluation split, on one mesh."""

    def __init__(self, config: ConfigDict, task, mesh: Mesh) -> None:
        """`config.eval.batch_size` is rounded up to what the devices share evenly."""
        self._config = config
        self._task = task
        self._mesh = mesh
        self._replicated = sharding.replicated(mesh)
        self._batch_size = sharding.even_batch_size(config.eval.batch_size, mesh)
        self._step = jax.jit(
            task.make_eval_step(config), out_shardings=self._replicated
        )
        self._judged = jax.jit(task.make_judged(config), out_shardings=self._replicated)
        self._distance = make_set_distance(config.eval.distance)
        self._preview = task.preview(config)

    def load(self) -> None:
        """Loads the network that the distance of sets looks through, if there is one.

        Raises:
          UserError: its weights are not there, or are others.
        """
        if self._distance is not None:
            self._distance.load()

    def check_data(self) -> None:
        """Makes one batch, so that wrong settings fail before the first step.

        Raises:
          UserError: the split is not there, or its images cannot be made ready.
        """
        for _ in self._batches(self._batch_size):
            return
        raise UserError(
            f"the split {self._config.data.split_eval!r} of "
            f"{self._config.data.dataset!r} is empty: nothing to evaluate on"
        )

    def evaluate(
        self,
        state: TrainState,
        frozen: Any,
        stopped: Callable[[], bool] = lambda: False,
    ) -> dict[str, float] | None:
        """Metrics on `config.eval.num_examples` images.

        Args:
          state: on the mesh.
          frozen: what the stage's losses look through, on the mesh.
          stopped: asked before each batch.

        Returns:
          name -> value; None if `stopped` said so.

        Raises:
          UserError: data cannot be read, or the weights of the distance of sets.
        """
        parts = []
        for batch in self._batches(self._config.eval.num_examples):
            if stopped():
                return None
            batch = sharding.shard_local_batch(batch, self._mesh)
            parts.append(jax.device_get(self._step(state, batch, frozen)))
        values = metrics_lib.compute(metrics_lib.merge(parts), "val")
        distance = self._set_distance(state, frozen, stopped)
        return None if distance is None else values | distance

    def _set_distance(
        self, state: TrainState, frozen: Any, stopped: Callable[[], bool]
    ) -> dict[str, float] | None:
        """The distance of sets, {} where there is none; None if `stopped` said so.

        Its name ends in `_decoded` where the split is a token cache, and the reference
        what the tokenizer makes of it.
        """
        distance = self._distance
        if distance is None:
            return {}
        distance.begin()
        for batch in self._batches(distance.num_examples):
            if stopped():
                return None
            kept = np.flatnonzero(batch["mask"])
            kept += jax.process_index() * len(batch["mask"])
            batch = sharding.shard_local_batch(batch, self._mesh)
            judged = jax.device_get(self._judged(state, batch, frozen))
            distance.add(*(images[kept] for images in judged))
        ending = "" if "image" in batch else "_decoded"
        return {
            f"val/{name}{ending}": value for name, value in distance.compute().items()
        }

    def pictures(self, state: TrainState, frozen: Any) -> dict[str, np.ndarray]:
        """Of the first images, always the same: name -> uint8 [H, W, 3].

        Every device computes all of them: they are few, and of several processes each
        holds the result.
        """
        count = self._config.log.num_images
        with self._task.eval_batches(
            self._config, batch_size=count, num_examples=count
        ) as batches:
            batch = jax.device_put(next(batches), self._replicated)
        return self._preview(state, batch, frozen)

    def _batches(self, num_examples: int) -> Iterator[dict[str, np.ndarray]]:
        """This host's slices of the first `num_examples` (0: all)."""
        with self._task.eval_batches(
            self._config,
            batch_size=self._batch_size,
            num_examples=num_examples or None,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ) as batches:
            yield from batches
