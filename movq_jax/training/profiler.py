"""A trace of some training steps, to see what the time goes into."""

import contextlib
import re
import tempfile
from typing import Any

from etils import epath

from movq_jax.errors import UserError

# jax is imported where it is used: the command line is read before, and a typing
# mistake should be answered at once.

FOLDER = "profile"
_STEPS = re.compile(r"(\d+)(?::(\d+))?")


def read_steps(text: str | None) -> range | None:
    """`10:15` -> the steps 10 to 15, `10` -> step 10; counted from 1, as in the log.

    Raises:
      UserError: it is neither.
    """
    if text is None:
        return None
    match = _STEPS.fullmatch(text.strip())
    first, last = (
        (int(n) for n in (match[1], match[2] or match[1])) if match else (0, 0)
    )
    if not 1 <= first <= last:
        raise UserError(
            f"--profile is {text!r}, but must be a step or two, such as 10 or 10:15 "
            "for the steps 10 to 15, the first of them at least 1"
        )
    return range(first, last + 1)


class Profiler:
    """Traces the steps that were asked for, once.

    Example:
        >>> with Profiler(range(10, 16), workdir, num_steps=100) as profiler:
        ...     if profiler.start_due(step):
        ...         profiler.start()
        ...     with profiler.step(step):
        ...         state = train_step(state)
        ...     if profiler.stop_due(step):
        ...         print(profiler.stop(state))
    """

    def __init__(self, steps: range | None, workdir: str, num_steps: int) -> None:
        """`steps` count from 1; None: no trace.

        Raises:
          UserError: they lie beyond the run's end, or the workdir is no local folder.
        """
        self._steps = steps
        self._folder = epath.Path(workdir) / FOLDER
        self._running = False
        if steps is None:
            return
        if steps[-1] > num_steps:
            raise UserError(
                f"--profile asks for step {steps[-1]}, but the run ends at step "
                f"{num_steps} (config.train.num_steps)"
            )
        if "://" in str(workdir):
            raise UserError(
                f"--profile needs a local --workdir, and {workdir} is none: traces are "
                "not written to buckets"
            )

    def __enter__(self) -> "Profiler":
        """Makes the folder; raises UserError where no file can be written there.

        Now: a trace is written when its last step is done, perhaps hours later.
        """
        if self._steps is not None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=self._folder):
                    pass
            except OSError as error:
                raise UserError(
                    f"--profile cannot write to {self._folder}: "
                    f"{error.strerror or error}; move what is in the way, choose "
                    "another --workdir, or train without --profile"
                ) from error
        return self

    def __exit__(self, *exception: object) -> None:
        if self._running:  # what there is of it, as an error ended the steps
            self._stop()

    def missed(self, resumed_at: int) -> str:
        """A sentence if the run is past those steps already, else nothing.

        No error: a launcher that starts the same command again wants it to go on.
        """
        if self._steps is None or self._steps[-1] > resumed_at:
            return ""
        return (
            f"no trace: the run is at step {resumed_at} already, past the steps of "
            "--profile"
        )

    def start_due(self, step: int) -> bool:
        """Whether the trace begins with `step`: `start` it then."""
        return self._steps is not None and not self._running and step in self._steps

    def start(self) -> None:
        """Begins the trace. What was dispatched before should be finished."""
        import jax

        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # each Python call: large, and slows the steps
        jax.profiler.start_trace(
            self._folder, create_perfetto_trace=True, profiler_options=options
        )
        self._running = True

    def step(self, step: int) -> contextlib.AbstractContextManager:
        """Around a step: its name in the trace."""
        import jax

        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def stop_due(self, step: int) -> bool:
        """Whether the trace ends after `step`: `stop` it then."""
        return self._running and step == self._steps[-1]

    def stop(self, state: Any) -> str:
        """Writes the trace once `state` is there; says where it is."""
        import jax

        jax.block_until_ready(state)
        self._stop()
        first, last = self._steps[0], self._steps[-1]
        steps = f"step {first}" if first == last else f"steps {first} to {last}"
        return (
            f"the trace of {steps} is in {self._folder}: open the newest "
            "perfetto_trace.json.gz in it at https://ui.perfetto.dev, or "
            f"`pip install xprof` and `xprof --logdir={self._folder}`"
        )

    def _stop(self) -> None:
        import jax

        jax.profiler.stop_trace()
        self._running = False
