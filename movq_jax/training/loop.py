"""The training loop, the same for every stage.

A stage is a module with `check`, `init_state`, `phase`, `make_train_step`,
`make_eval_step`, `preview`, `fits_to_data` and `fit_to_data`, `save_bundle` and
`BEST_METRIC`; the loop knows nothing else about it.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from clu import parameter_overview
from etils import epath
from ml_collections import ConfigDict

from movq_jax.atomic import replacing
from movq_jax.data import pipeline
from movq_jax.errors import NonFiniteError, Preempted, UserError
from movq_jax.training import metrics as metrics_lib
from movq_jax.training import sharding, tokenizer_task
from movq_jax.training import workdir as workdirs
from movq_jax.training.checkpoints import Checkpoints, abstract_state
from movq_jax.training.console import Console, Stopwatch
from movq_jax.training.log_writers import LogWriters
from movq_jax.training.optimizers import make_schedule
from movq_jax.training.preemption import StopNotice
from movq_jax.training.state import TrainState


def train(config: ConfigDict, workdir: str, *, devices=None) -> dict[str, float]:
    """Trains from scratch, or from where the run in `workdir` stopped.

    Args:
      config: see `movq_jax.config.schema`.
      workdir: folder of the run; made if it is not there.
      devices: to train on; all by default.

    Returns:
      the metrics of the last evaluation.

    Raises:
      UserError: wrong config, data or workdir.
      NonFiniteError: too many bad steps in a row.
      Preempted: asked to stop; the state is saved.
    """
    return Trainer(config, workdir, devices=devices).run()


def evaluate(config: ConfigDict, workdir: str, *, devices=None) -> dict[str, float]:
    """Evaluates the averaged weights of the newest checkpoint of a run.

    Returns and prints the metrics; writes nothing.

    Raises:
      UserError: there is no run, no checkpoint, or the model is another.
    """
    workdirs.check_same_model(workdir, config)
    trainer = Trainer(config, workdir, devices=devices)
    with trainer.open_checkpoints(read_only=True) as checkpoints:
        state = checkpoints.restore_latest(trainer.abstract)
    if state is None:
        raise UserError(f"the run in {workdir} has no checkpoint yet")
    values = trainer.evaluate(state)
    trainer.console.report(int(state.step), values)
    return values


class Trainer:
    """One run on one mesh: what does not change from step to step."""

    def __init__(
        self, config: ConfigDict, workdir: str, *, task=tokenizer_task, devices=None
    ) -> None:
        self.config = config
        self.workdir = epath.Path(workdir)
        self.task = task
        self.mesh = sharding.make_mesh(devices)
        for part in ("train", "eval"):
            sharding.check_batch_size(
                config[part].batch_size, self.mesh, f"config.{part}.batch_size"
            )
        for key in ("num_steps", "max_bad_steps"):
            if config.train[key] < 1:
                raise UserError(
                    f"config.train.{key} is {config.train[key]}; 1 is the least"
                )
        task.check(config)
        self.console = Console(config.train.num_steps)
        self.replicated = sharding.replicated(self.mesh)
        self.init = functools.partial(task.init_state, config)
        self.abstract = abstract_state(jax.eval_shape(self.init), self.replicated)
        self.train_steps = {}
        self.eval_step = jax.jit(task.make_eval_step(config))
        self.preview = task.preview(config)
        self.learning_rate = make_schedule(config.optim, "gen")

    def run(self) -> dict[str, float]:
        """Trains until the last step, a notice, or too many bad steps."""
        workdirs.claim(self.workdir, self.config)
        with self.open_checkpoints() as checkpoints:
            state = checkpoints.restore_latest(self.abstract)
            if state is None:
                state = self.fresh_state()
            else:
                self.console.say(f"resuming at step {int(state.step)}")
            with (
                LogWriters(self.workdir, resumed_at=int(state.step)) as writers,
                StopNotice() as notice,
            ):
                return Run(self, checkpoints, writers, notice).steps(state)

    def open_checkpoints(self, *, read_only: bool = False) -> Checkpoints:
        """The run's checkpoints."""
        return Checkpoints(
            self.workdir,
            best_metric=self.task.BEST_METRIC,
            keep=self.config.checkpoint.keep,
            read_only=read_only,
        )

    def fresh_state(self) -> TrainState:
        """The state before the first step, on the mesh."""
        state = jax.jit(self.init, out_shardings=self.replicated)()
        overview = parameter_overview.get_parameter_overview(state.gen_params)
        logging.info("generator:\n%s", overview)
        count = sum(x.size for x in jax.tree.leaves(state.gen_params))
        self.console.say(f"{count:,} parameters on {self.mesh.size} device(s)")
        return state

    def fit_to_data(self, state: TrainState, step: int) -> TrainState:
        """What of the state is computed from many batches at once, before `step`."""
        with self.train_batches(step) as batches:
            sharded = (sharding.shard_local_batch(b, self.mesh) for b in batches)
            return self.task.fit_to_data(self.config, state, sharded)

    def train_step(self, phase: str):
        """The jitted step of a phase; the state's memory is reused."""
        if phase not in self.train_steps:
            self.train_steps[phase] = jax.jit(
                self.task.make_train_step(self.config, phase),
                donate_argnums=0,
                out_shardings=(self.replicated, self.replicated),
            )
        return self.train_steps[phase]

    def train_batches(self, start: int) -> pipeline.Batches:
        """This host's slices of the training batches from number `start` on."""
        return pipeline.train_batches(
            self.config.data,
            seed=self.config.seed,
            batch_size=self.config.train.batch_size,
            start=start,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def eval_batches(self, num_examples: int) -> Iterator[dict[str, jax.Array]]:
        """The first `num_examples` (0: all) of the evaluation split, sharded."""
        with pipeline.eval_batches(
            self.config.data,
            batch_size=self.config.eval.batch_size,
            num_examples=num_examples or None,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ) as batches:
            for batch in batches:
                yield sharding.shard_local_batch(batch, self.mesh)

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Metrics of the averaged weights on the evaluation split."""
        parts = [
            jax.device_get(self.eval_step(state, batch))
            for batch in self.eval_batches(self.config.eval.num_examples)
        ]
        if not parts:
            raise UserError(
                f"the split {self.config.data.split_eval!r} of "
                f"{self.config.data.dataset!r} is empty: nothing to evaluate on"
            )
        return metrics_lib.compute(metrics_lib.merge(parts), "val")


class Run:
    """The steps of a run, and what happens between them."""

    def __init__(
        self,
        trainer: Trainer,
        checkpoints: Checkpoints,
        writers: LogWriters,
        notice: StopNotice,
    ) -> None:
        self.trainer = trainer
        self.config = trainer.config
        self.checkpoints = checkpoints
        self.writers = writers
        self.notice = notice
        self.stopwatch = Stopwatch()
        self.window: list[metrics_lib.Metrics] = []  # since the last log line
        self.values: dict[str, float] = {}  # of the last evaluation

    def steps(self, state: TrainState) -> dict[str, float]:
        """Trains `state` to the end; returns the last evaluation's metrics."""
        trainer, last = self.trainer, self.config.train.num_steps
        step = int(state.step)
        pending = None  # what the step before says of bad steps, fetched one late
        with trainer.train_batches(step) as batches:
            while step < last:
                if trainer.task.fits_to_data(self.config, step):
                    state = trainer.fit_to_data(state, step)
                with self.stopwatch.waiting():
                    batch = sharding.shard_local_batch(next(batches), trainer.mesh)
                phase = trainer.task.phase(self.config, step)
                state, metrics = trainer.train_step(phase)(state, batch)
                step += 1
                self.window.append(metrics)
                self.give_up_if_bad(pending, step - 1)
                pending = jnp.copy(state.skipped_in_row)
                self.between_steps(state, step)
                if self.notice.reached(step) and step < last:
                    self.save_and_leave(state, step)
        self.give_up_if_bad(pending, step)
        return self.finish(state, step)

    def between_steps(self, state: TrainState, step: int) -> None:
        """Logs, pictures, evaluations and checkpoints that are due after `step`."""
        log, last = self.config.log, self.config.train.num_steps
        if due(step, log.every, last):
            self.log(state, step)
        if due(step, log.images_every, last):
            self.log_images(state, step)
        evaluated = due(step, self.config.eval.every, last)
        if evaluated:
            self.evaluate(state, step)
        if evaluated or due(step, self.config.checkpoint.every, last):
            self.checkpoints.save(state, self.values if evaluated else None)

    def log(self, state: TrainState, step: int) -> None:
        """Training metrics since the last time, and how fast it went."""
        merged = metrics_lib.merge(jax.device_get(self.window))
        values = metrics_lib.compute(merged, "train")
        seconds, waiting = self.stopwatch.read()
        step_seconds = seconds / len(self.window)
        values |= {
            "train/learning_rate": float(self.trainer.learning_rate(step - 1)),
            "train/skipped_steps": float(state.skipped_steps),
            "train/images_per_second": self.config.train.batch_size / step_seconds,
            "train/data_wait_share": waiting,
        }
        self.window = []
        self.writers.scalars(step, values)
        self.trainer.console.show(step, values, step_seconds)

    def log_images(self, state: TrainState, step: int) -> None:
        """The same few evaluation pictures each time, as the model sees them now."""
        batch = next(self.trainer.eval_batches(self.config.log.num_images))
        self.writers.images(step, self.trainer.preview(state, batch))

    def evaluate(self, state: TrainState, step: int) -> None:
        """Evaluates, logs, and writes the model bundle."""
        self.values = self.trainer.evaluate(state)
        self.writers.scalars(step, self.values)
        self.trainer.console.report(step, self.values)
        if jax.process_index() == 0:
            self.trainer.task.save_bundle(
                self.config, self.trainer.workdir, state, self.values
            )

    def give_up_if_bad(self, skipped_in_row: jax.Array | None, step: int) -> None:
        """Raises NonFiniteError when too many steps in a row were bad."""
        limit = self.config.train.max_bad_steps
        if skipped_in_row is None or int(skipped_in_row) < limit:
            return
        path = self.save_batch(step - 1)
        raise NonFiniteError(
            f"{int(skipped_in_row)} steps in a row, up to step {step}, had a "
            f"non-finite loss or gradient; the last batch is in {path}. Lower the "
            "learning rate, clip gradients, or look at that batch; the last checkpoint "
            "is kept"
        )

    def save_batch(self, n: int) -> epath.Path:
        """Writes training batch n, as the model got it, beside the run."""
        batch = pipeline.batch_at(
            self.config.data,
            n,
            seed=self.config.seed,
            batch_size=self.config.train.batch_size,
        )
        path = self.trainer.workdir / f"bad_batch_{n}.npz"
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **batch)
        return path

    def save_and_leave(self, state: TrainState, step: int) -> None:
        """Saves at once and raises Preempted."""
        self.checkpoints.save(state)
        self.checkpoints.wait()
        raise Preempted(f"stopped at step {step}, saved: the same command continues")

    def finish(self, state: TrainState, step: int) -> dict[str, float]:
        """Evaluates a run that was complete already; says where the model is."""
        self.checkpoints.wait()
        if not self.values:
            self.values = self.trainer.evaluate(state)
            self.trainer.console.report(step, self.values)
        self.trainer.console.say(f"the model is in {self.trainer.workdir / 'model'}")
        return self.values


def due(step: int, every: int, last: int) -> bool:
    """Whether it is time: every so many steps, 0: only after the last one."""
    return step == last or (every > 0 and step % every == 0)
