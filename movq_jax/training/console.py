"""What a person sees while training runs: one live line, or plain lines in a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TextIO

from movq_jax.progress import duration

# Of a prior's loss: there are too many for a line.
_PARTS = ("loss_channel_", "loss_masked_")


class Console:
    """Prints messages and the state of training to stderr.

    On a terminal the newest numbers stand in one line that is renewed; elsewhere
    each is a line of its own. As a context manager it ends that line also when an
    error ends the work.
    """

    def __init__(
        self, num_steps: int, *, stream: TextIO | None = None, silent: bool = False
    ) -> None:
        """`silent`: print nothing, as all processes of a run do but one."""
        self._num_steps = num_steps
        self._stream = sys.stderr if stream is None else stream
        self._silent = silent
        self._live = self._stream.isatty()
        self._line_open = False

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *exception: object) -> None:
        self._end_line()
        self._stream.flush()

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._silent:
            return
        self._end_line()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def show(
        self, step: int, values: dict[str, float], step_seconds: float | None
    ) -> None:
        """Where training is: losses, and speed and time left where they are known."""
        if self._silent:
            return
        shown = [f"step {step}/{self._num_steps}"]
        for key, value in values.items():
            name = key.rpartition("/")[2]
            if name.startswith("loss") and not name.startswith(_PARTS):
                shown.append(f"{name} {value:.4f}")
        if step_seconds is not None:
            shown.append(f"{values['train/images_per_second']:.1f} images/s")
            shown.append(f"{duration((self._num_steps - step) * step_seconds)} left")
        text = " · ".join(shown)
        if self._live:
            self._stream.write(f"\r{text}\x1b[K")
            self._stream.flush()
            self._line_open = True
        else:
            self.say(text)

    def report(self, step: int, values: dict[str, float]) -> None:
        """The metrics of an evaluation."""
        shown = (f"{name} {value:.4g}" for name, value in values.items())
        self.say(f"step {step} evaluated: {' · '.join(shown)}")

    def _end_line(self) -> None:
        if self._line_open:
            self._stream.write("\n")
            self._line_open = False


class Pace(NamedTuple):
    """How training went since it was last asked."""

    step_seconds: float
    waiting: float  # share of the time spent waiting for data


class Stopwatch:
    """Times training steps, without what happens between them."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Starts; `clock` counts seconds."""
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Forgets what was measured, and starts from now."""
        self._start = self._clock()
        self._waited = 0.0
        self._steps = 0

    def count(self) -> None:
        """One more step was made."""
        self._steps += 1

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what counts as waiting for data."""
        start = self._clock()
        yield
        self._waited += self._clock() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Around what does not count."""
        start = self._clock()
        yield
        self._start += self._clock() - start

    def read(self) -> Pace | None:
        """The pace since the last reading or restart; None if no step was counted."""
        seconds, waited, steps = self._clock() - self._start, self._waited, self._steps
        self.restart()
        if not steps:
            return None
        return Pace(seconds / steps, waited / max(seconds, 1e-9))
