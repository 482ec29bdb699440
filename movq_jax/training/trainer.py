"""What a run is made of and what does not change from step to step."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from absl import logging
from clu import parameter_overview
from etils import epath
from ml_collections import ConfigDict

from movq_jax.training import init_from, sharding
from movq_jax.training import workdir as workdirs
from movq_jax.training.checkpoints import Checkpoints, abstract_state
from movq_jax.training.console import Console
from movq_jax.training.evaluating import Evaluator
from movq_jax.training.optimizers import make_schedule
from movq_jax.training.profiler import Profiler
from movq_jax.training.ranges import check_ranges
from movq_jax.training.state import TrainState


class Trainer:
    """One run on one mesh."""

    def __init__(
        self,
        config: ConfigDict,
        workdir: str,
        *,
        task,
        devices=None,
        profile: range | None = None,
    ) -> None:
        """Checks what of the config needs neither data nor files of weights.

        Raises:
          UserError: the key, its value, and what it could be.
        """
        self.config = config
        self.workdir = epath.Path(workdir)
        self.task = task
        self.mesh = sharding.make_mesh(devices)
        check_ranges(config)
        task.check(config)
        self.profiler = Profiler(profile, workdir, config.train.num_steps)
        self.console = Console(config.train.num_steps, silent=jax.process_index() != 0)
        self.replicated = sharding.replicated(self.mesh)
        self.abstract = self.abstract_of(config)
        self.evaluator = Evaluator(config, task, self.mesh)
        self.train_steps = {}
        self.beginning: tuple[Any, Any] | None = None  # read before the first step
        self.learning_rate = make_schedule(config.optim, "gen")

    def check_and_load(self) -> None:
        """All that can be wrong before a step is made, without touching the workdir.

        Raises:
          UserError: batch size, data, or a file of weights.
        """
        size, key = self.config.train.batch_size, "config.train.batch_size"
        parts = self.config.train.accumulation
        sharding.check_batch_size(size, self.mesh, key, parts)
        self.train_batches(0).close()
        self.evaluator.check_data()
        self.evaluator.load()
        if self.config.init_from and not workdirs.has_begun(self.workdir):
            self.beginning = self.read_beginning()
        _ = self.frozen

    @functools.cached_property
    def frozen(self) -> Any:
        """Weights that are never trained, loaded once, on the mesh."""
        return jax.device_put(self.task.load_frozen(self.config), self.replicated)

    def abstract_of(self, config: ConfigDict) -> TrainState:
        """What a state of `config` looks like on the mesh."""
        init = functools.partial(self.task.init_state, config)
        return abstract_state(jax.eval_shape(init), self.replicated)

    def open_checkpoints(self, *, read_only: bool = False) -> Checkpoints:
        """The run's checkpoints."""
        return Checkpoints(
            self.workdir,
            score=self.task.score,
            keep=self.config.checkpoint.keep,
            read_only=read_only,
        )

    def fresh_state(self) -> TrainState:
        """The state before the first step, on the mesh."""
        init = functools.partial(self.task.init_state, self.config)
        state = jax.jit(init, out_shardings=self.replicated)()
        if self.config.init_from:
            state = self.begin_with(state)
        overview = parameter_overview.get_parameter_overview(state.gen_params)
        logging.info("generator:\n%s", overview)
        count = sum(x.size for x in jax.tree.leaves(state.gen_params))
        self.console.say(f"{count:,} parameters on {self.mesh.size} device(s)")
        return state

    def read_beginning(self) -> tuple[Any, Any]:
        """What `config.init_from` has: parameters, and the discriminator or None.

        Raises:
          UserError: see `movq_jax.training.init_from`.
        """
        config, discriminator = self.config, None
        params = init_from.read_params(config, self.abstract)
        if config.init_discriminator:
            discriminator = init_from.read_discriminator(
                config,
                self.abstract,
                abstract_of=self.abstract_of,
                score=self.task.score,
            )
        return params, discriminator

    def begin_with(self, state: TrainState) -> TrainState:
        """`state` with what `config.init_from` has, on the mesh."""
        params, discriminator = self.beginning or self.read_beginning()
        self.beginning = None  # it is large, and of no more use
        params = jax.device_put(params, self.replicated)
        state = self.task.with_params(self.config, state, params)
        if discriminator is not None:
            params, variables = discriminator
            state = state.replace(
                disc_params=params, variables={**state.variables, "disc": variables}
            )
        self.console.say(f"begins with the weights of {self.config.init_from}")
        return jax.device_put(state, self.replicated)

    def fit_to_data(self, state: TrainState, step: int) -> TrainState:
        """What of the state is computed from many batches at once, before `step`."""
        # By threads, though training may have workers: theirs would be started twice.
        with self.train_batches(step, num_workers=0) as batches:
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

    def train_batches(self, start: int, **changes: Any):
        """This host's slices of the training batches from number `start` on.

        `changes` are fields of `config.data`.
        """
        return self.task.train_batches(
            self.config,
            start,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            **changes,
        )

    def evaluate(
        self, state: TrainState, stopped: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """See `Evaluator.evaluate`."""
        return self.evaluator.evaluate(state, self.frozen, stopped)

    def pictures(self, state: TrainState) -> dict[str, Any]:
        """See `Evaluator.pictures`."""
        return self.evaluator.pictures(state, self.frozen)
