"""The training loop, the same for every stage.

A stage is a module with `resolve`, `check`, `init_state`, `with_params`, `load_frozen`,
`phase`, `train_batches`, `batch_at` and `eval_batches`, `make_train_step`,
`make_eval_step`, `make_judged`, `preview`, `fits_to_data` and `fit_to_data`, `score`
and `save_bundle`; the loop knows nothing else about it.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from movq_jax.atomic import replacing
from movq_jax.errors import NonFiniteError, Preempted, UserError
from movq_jax.training import metrics as metrics_lib
from movq_jax.training import sharding, stages
from movq_jax.training import workdir as workdirs
from movq_jax.training.alarms import Alarms
from movq_jax.training.broken_images import BrokenImages
from movq_jax.training.checkpoints import Checkpoints
from movq_jax.training.console import Console, Stopwatch
from movq_jax.training.log_writers import LogWriters, read_log
from movq_jax.training.preemption import StopNotice
from movq_jax.training.state import TrainState
from movq_jax.training.trainer import Trainer


def train(
    config: ConfigDict,
    workdir: str,
    *,
    task=None,
    devices=None,
    profile: range | None = None,
) -> dict[str, float]:
    """Trains from scratch, or from where the run in `workdir` stopped.

    Args:
      config: see `movq_jax.config.schema` and `prior_schema`.
      workdir: folder of the run; made if it is not there.
      task: the stage; that of `config` by default.
      devices: to train on; all by default.
      profile: steps to write a trace of, see `movq_jax.training.profiler`.

    Returns:
      the metrics of the last evaluation.

    Raises:
      UserError: wrong config, data or workdir.
      NonFiniteError: too many bad steps in a row.
      Preempted: asked to stop; the state is saved.
    """
    workdirs.check_place(workdir)
    task = task or stages.task_of(config)
    first = functools.partial(_train_first, devices=devices)
    config = task.resolve(config, workdir, first)
    trainer = Trainer(config, workdir, task=task, devices=devices, profile=profile)
    trainer.check_and_load()
    with trainer.console, workdirs.locked(workdir):
        workdirs.claim(workdir, config)
        with trainer.open_checkpoints() as checkpoints:
            state = checkpoints.restore_latest(trainer.abstract)
            if state is None:
                state = trainer.fresh_state()
            else:
                trainer.console.say(f"resuming at step {int(state.step)}")
            with (
                LogWriters(workdir, resumed_at=int(state.step)) as writers,
                StopNotice() as notice,
                trainer.profiler,
            ):
                return Run(trainer, checkpoints, writers, notice).steps(state)


def _train_first(config: ConfigDict, workdir: epath.PathLike, *, devices) -> None:
    """Trains, or goes on training, what another stage needs."""
    console = Console(config.train.num_steps, silent=jax.process_index() != 0)
    console.say(f"first the tokenizer, into {workdir}")
    train(config, workdir, devices=devices)


def evaluate(
    config: ConfigDict, workdir: str, *, task=None, devices=None
) -> dict[str, float]:
    """Evaluates the averaged weights of the newest checkpoint of a run.

    Only the model has to be that of the run; data and losses are those of `config`.
    Returns and prints the metrics; writes nothing.

    Raises:
      UserError: there is no run, no checkpoint, or the model is another.
    """
    workdirs.check_place(workdir)
    task = task or stages.task_of(config)
    workdirs.check_is_run(workdir)
    config = task.resolve(config, workdir, None)
    stored = workdirs.config_to_evaluate(workdir, config)
    trainer = Trainer(config, workdir, task=task, devices=devices)
    with trainer.open_checkpoints(read_only=True) as checkpoints:
        state = checkpoints.restore_latest(trainer.abstract_of(stored))
    if state is None:
        raise UserError(f"the run in {workdir} has no checkpoint yet")
    values = trainer.evaluate(state)
    trainer.console.report(int(state.step), values)
    return values


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
        self.alarms = Alarms(trainer.config)
        self.broken = BrokenImages(trainer.config, trainer.console)
        self.stopwatch = Stopwatch()
        self.window = metrics_lib.Window()  # since the last log line
        self.compiled: set[str] = set()  # phases
        self.values: dict[str, float] = {}  # of the last evaluation

    def steps(self, state: TrainState) -> dict[str, float]:
        """Trains `state` to the end; returns the last evaluation's metrics."""
        trainer, last = self.trainer, self.config.train.num_steps
        step = int(state.step)
        pending = None  # what the step before says of bad steps, fetched one late
        self.catch_up(state, step)
        with trainer.train_batches(step) as batches:
            self.broken.watch(batches.refused)
            while step < last:
                if trainer.task.fits_to_data(self.config, step):
                    with self.aside(state):
                        state = trainer.fit_to_data(state, step)
                with self.stopwatch.waiting(), self.saved_if_data_fail(state):
                    batch = sharding.shard_local_batch(next(batches), trainer.mesh)
                state, metrics = self.take_step(state, batch, step)
                step += 1
                self.window.append(metrics)
                self.give_up_if_bad(pending, step - 1)
                pending = jnp.copy(state.skipped_in_row)
                self.between_steps(state, step)
        self.give_up_if_bad(pending, step)
        return self.finish(state, step)

    def take_step(
        self, state: TrainState, batch: dict[str, jax.Array], step: int
    ) -> tuple[TrainState, metrics_lib.Metrics]:
        """The training step `step`, counted from 0, which is the next one's number."""
        trainer, profiler, number = self.trainer, self.trainer.profiler, step + 1
        phase = trainer.task.phase(self.config, step)
        if profiler.start_due(number):
            with self.aside(state):
                profiler.start()
        with profiler.step(number):
            result = trainer.train_step(phase)(state, batch, trainer.frozen)
        if phase in self.compiled:
            self.stopwatch.count()
        else:
            # It took as long as its compilation; and steps of another phase say
            # nothing of the speed from now on.
            self.compiled.add(phase)
            jax.block_until_ready(result)
            self.stopwatch.restart()
        if profiler.stop_due(number):
            with self.aside(result):
                trainer.console.say(profiler.stop(result))
        return result

    @contextlib.contextmanager
    def aside(self, running: Any) -> Iterator[None]:
        """Around what is no training and must not slow its measured pace."""
        jax.block_until_ready(running)  # what was begun before still counts
        with self.stopwatch.paused():
            yield

    def catch_up(self, state: TrainState, step: int) -> None:
        """On resuming: alarms as they stood, and the evaluation that a notice left out.

        The checkpoint of that step was saved without metrics, so it cannot become the
        best one.
        """
        if step == 0:
            return
        missed = self.trainer.profiler.missed(step)
        if missed:
            self.trainer.console.say(missed)
        names = set()
        for record in read_log(self.trainer.workdir, step):
            self.alarms.check(record["step"], record)
            if record["step"] == step:
                names |= set(record)
        evaluated = any(name.startswith("val/") for name in names)
        last = self.config.train.num_steps
        if due(step, self.config.eval.every, last) and not evaluated:
            self.pictures_if_due(state, step)
            self.evaluate(state, step)

    def between_steps(self, state: TrainState, step: int) -> None:
        """Logs, pictures, evaluations and checkpoints that are due after `step`."""
        last = self.config.train.num_steps
        logs = due(step, self.config.log.every, last)
        evaluates = due(step, self.config.eval.every, last)
        saves = evaluates or due(step, self.config.checkpoint.every, last)
        if logs or saves:
            self.stop_if_broken(state)
        if logs:
            self.log(state, step)
        # Before what takes long: who asks to stop does not wait for minutes.
        if step < last and self.notice.reached(step):
            self.save_and_leave(state, step)
        if saves or due(step, self.config.log.images_every, last):
            with self.aside(state):
                self.pictures_if_due(state, step)
                if evaluates:
                    with self.saved_if_data_fail(state):
                        self.evaluate(state, step)
                if saves:
                    self.checkpoints.save(state, self.values if evaluates else None)

    def log(self, state: TrainState, step: int) -> None:
        """Training metrics since the last time, how fast it went, and alarms."""
        values = metrics_lib.compute(self.window.take(), "train")
        pace = self.stopwatch.read()
        values |= {
            "train/learning_rate": float(self.trainer.learning_rate(step - 1)),
            "train/skipped_steps": float(state.skipped_steps),
            "data/broken": float(self.broken.take()),
        }
        if pace is not None:
            rate = self.config.train.batch_size / pace.step_seconds
            values["train/images_per_second"] = rate
            values["train/data_wait_share"] = pace.waiting
        console = self.trainer.console
        self.writers.scalars(step, values)
        console.show(step, values, pace and pace.step_seconds)
        for alarm in self.alarms.check(step, values):
            self.writers.alarm(step, alarm)
            kind = "" if alarm.over else f"ALARM {alarm.name}: "
            console.say(f"step {step}: {kind}{alarm.message}")

    def pictures_if_due(self, state: TrainState, step: int) -> None:
        """The same few evaluation pictures each time, as the model sees them now."""
        if due(step, self.config.log.images_every, self.config.train.num_steps):
            self.writers.images(step, self.trainer.pictures(state))

    def evaluate(self, state: TrainState, step: int) -> None:
        """Evaluates, logs, and writes the model bundle; a notice breaks it off."""
        values = self.trainer.evaluate(state, self.notice.received)
        if values is None:
            self.save_and_leave(state, step)
        self.values = values
        self.writers.scalars(step, values)
        self.trainer.console.report(step, values)
        if jax.process_index() == 0:
            self.trainer.task.save_bundle(
                self.config, self.trainer.workdir, state, values
            )

    def give_up_if_bad(self, skipped_in_row: jax.Array | None, step: int) -> None:
        """Raises NonFiniteError when too many steps in a row were bad."""
        limit = self.config.train.max_bad_steps
        if skipped_in_row is None or int(skipped_in_row) < limit:
            return
        path = self.trainer.workdir / f"bad_batch_{step - 1}.npz"
        if jax.process_index() == 0:
            self.save_batch(step - 1, path)
        raise NonFiniteError(
            f"{int(skipped_in_row)} steps in a row, up to step {step}, had a "
            f"non-finite loss or gradient; the last batch is in {path}. Lower the "
            "learning rate, clip gradients, or look at that batch; the last checkpoint "
            "is kept"
        )

    def stop_if_broken(self, state: TrainState) -> None:
        """Tells of images that could not be read; saves and stops if they are many."""
        try:
            self.broken.look()
        except UserError:
            self.checkpoints.save(state)
            self.checkpoints.wait()
            raise

    @contextlib.contextmanager
    def saved_if_data_fail(self, state: TrainState) -> Iterator[None]:
        """Data that cannot be read end a run, but not what it has learned.

        Of several processes one alone may have met them, and saving takes all: there
        the last checkpoint has to do.
        """
        try:
            yield
        except UserError:
            if jax.process_count() == 1:
                self.checkpoints.save(state)
                self.checkpoints.wait()
            raise

    def save_batch(self, n: int, path: epath.Path) -> None:
        """Writes training batch n, as the model got it."""
        batch = self.trainer.task.batch_at(self.config, n)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **batch)

    def save_and_leave(self, state: TrainState, step: int) -> NoReturn:
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
