"""The training state on disk, through Orbax: the latest two and the best one."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    BestN,
    LatestN,
)

from movq_jax.errors import UserError
from movq_jax.training.state import TrainState

FOLDER = "checkpoints"  # within a workdir
DAMAGED = "damaged_checkpoint_"  # and the step: beside `checkpoints`


class Checkpoints:
    """The numbered checkpoints of a run, under `<workdir>/checkpoints`.

    Saving runs in the background; what is not complete is never read.
    """

    def __init__(
        self,
        workdir: str,
        *,
        score: Callable[[dict[str, float]], float],
        keep: int = 2,
        read_only: bool = False,
    ) -> None:
        """Keeps the latest `keep`, and the one of the largest `score` of metrics."""
        self._folder = epath.Path(workdir).resolve() / FOLDER
        self._read_only = read_only
        self._manager = ocp.CheckpointManager(
            self._folder,
            # Named, so that a checkpoint's shapes can be asked before it is read.
            item_handlers=ocp.StandardCheckpointHandler(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy(
                    [
                        LatestN(keep),
                        BestN(
                            n=1,
                            get_metric_fn=score,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                # Decides nothing beside the policy, but without it no metric is
                # written, and the best one is forgotten on resuming.
                best_fn=score,
                create=not read_only,
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.close()

    def save(self, state: TrainState, metrics: dict[str, float] | None = None) -> None:
        """Starts to save; `metrics` are those of an evaluation at this very step."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        with _unevaluated_is_no_accident():
            self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)

    def wait(self) -> None:
        """Until what was started is on disk."""
        self._manager.wait_until_finished()

    def restore_latest(self, abstract: TrainState) -> TrainState | None:
        """The newest complete and readable state, or None where there is none yet.

        A damaged checkpoint is reported, and the one before it is tried; if that can
        be read, the damaged ones are moved out of the way: the run will come to those
        steps again and save them anew.

        Args:
          abstract: shapes, dtypes and shardings, as `jax.ShapeDtypeStruct`s.

        Raises:
          UserError: there are checkpoints, and none of them can be read, or they hold
            another state.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for number, step in enumerate(steps):
            self._refuse_other_state(step, abstract)
            try:
                state = self._manager.restore(
                    step, args=ocp.args.StandardRestore(abstract)
                )
            except Exception as error:  # Orbax raises a dozen kinds for damaged files
                self._warn(step, error)
                continue
            self._set_aside(steps[:number])
            return state
        damaged = steps or sorted(
            int(path.name.removeprefix(DAMAGED))
            for path in self._folder.parent.glob(f"{DAMAGED}*")
            if path.name.removeprefix(DAMAGED).isdecimal()
        )
        if damaged:
            raise UserError(
                f"none of the checkpoints {damaged} in {self._folder} can be read; "
                "choose another --workdir to start anew"
            )
        return None

    def _refuse_other_state(self, step: int, abstract: TrainState) -> None:
        """Raises UserError if a whole checkpoint holds arrays of other names or shapes.

        That is no damage: it must not be moved away as if it were.
        """
        try:
            there = _layout(self._manager.item_metadata(step).tree)
        except Exception:  # damaged: the same dozen kinds
            return
        wanted = _layout(abstract)
        if there != wanted:
            differing = sorted(there.items() ^ wanted.items())
            raise UserError(
                f"checkpoint {step} in {self._folder} holds another state than this "
                f"config trains ({differing[0][0]} differs, and {len(differing) - 1} "
                "more): go on with the version of movq_jax that wrote it, or choose "
                "another --workdir"
            )

    def _warn(self, step: int, error: Exception) -> None:
        reason = str(error).strip().splitlines()[0] if str(error) else repr(error)
        logging.warning(
            "checkpoint %d in %s is damaged: %s", step, self._folder, reason
        )

    def _set_aside(self, steps: list[int]) -> None:
        """Moves damaged checkpoints out of the way, by the first process alone."""
        if self._read_only or not steps:
            return
        if jax.process_index() == 0:
            for step in steps:
                aside = self._folder.parent / f"{DAMAGED}{step}"
                while aside.exists():  # that step was damaged before
                    aside = aside.with_name(f"{aside.name}_again")
                (self._folder / str(step)).rename(aside)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints set aside")
        self._manager.reload()


def abstract_state(state: Any, sharding: jax.sharding.Sharding) -> Any:
    """Shapes and dtypes of `state` (arrays or `eval_shape`'s), with one sharding."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state
    )


@contextlib.contextmanager
def _unevaluated_is_no_accident() -> Iterator[None]:
    """Silences what Orbax says of each save without metrics while the best is kept.

    Empty metrics would silence it, too, but are one file more to be damaged.
    """

    def is_of_use(record) -> bool:
        return "did not provide metrics" not in record.getMessage()

    logger = logging.get_absl_logger()
    logger.addFilter(is_of_use)
    try:
        yield
    finally:
        logger.removeFilter(is_of_use)


def _layout(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each array, by its path in a state or in Orbax' metadata of one."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
        for path, leaf in leaves
    }
