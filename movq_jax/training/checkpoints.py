"""The training state on disk, through Orbax: the latest two and the best one."""

from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    BestN,
    LatestN,
)

from movq_jax.errors import UserError
from movq_jax.training.state import TrainState


class Checkpoints:
    """The numbered checkpoints of a run, under `<workdir>/checkpoints`.

    Saving runs in the background; what is not complete is never read.
    """

    def __init__(
        self, workdir: str, *, best_metric: str, keep: int = 2, read_only: bool = False
    ) -> None:
        """Keeps the latest `keep` and the one with the largest `best_metric`."""
        self._folder = epath.Path(workdir).resolve() / "checkpoints"
        self._read_only = read_only
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy(
                    [
                        LatestN(keep),
                        BestN(
                            n=1,
                            get_metric_fn=lambda metrics: metrics[best_metric],
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                # Decides nothing beside the policy, but without it no metric is
                # written, and the best one is forgotten on resuming.
                best_fn=lambda metrics: metrics[best_metric],
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
        self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)

    def wait(self) -> None:
        """Until what was started is on disk."""
        self._manager.wait_until_finished()

    def restore_latest(self, abstract: TrainState) -> TrainState | None:
        """The newest complete and readable state, or None where there is none yet.

        A damaged checkpoint is reported, moved out of the way, and the one before it
        is tried: the run will come to that step again and save it anew.

        Args:
          abstract: shapes, dtypes and shardings, as `jax.ShapeDtypeStruct`s.

        Raises:
          UserError: there are checkpoints, and none of them can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return self._manager.restore(
                    step, args=ocp.args.StandardRestore(abstract)
                )
            except Exception as error:  # Orbax raises a dozen kinds for damaged files
                reason = (
                    str(error).strip().splitlines()[0] if str(error) else repr(error)
                )
                logging.warning(
                    "checkpoint %d in %s is damaged: %s", step, self._folder, reason
                )
                self._set_aside(step)
        if steps:
            raise UserError(
                f"none of the checkpoints {steps} in {self._folder} can be read; "
                "choose another --workdir to start anew"
            )
        return None

    def _set_aside(self, step: int) -> None:
        if self._read_only:
            return
        aside = self._folder.parent / f"damaged_checkpoint_{step}"
        if not aside.exists():
            (self._folder / str(step)).rename(aside)
        self._manager.reload()


def abstract_state(state: Any, sharding: jax.sharding.Sharding) -> Any:
    """Shapes and dtypes of `state` (arrays or `eval_shape`'s), with one sharding."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state
    )
