"""What a person sees while training runs: one live line, or plain lines in a log."""

import sys
import time
from typing import TextIO

from movq_jax.progress import duration


class Console:
    """Prints messages and the state of training to stderr.

    On a terminal the newest numbers stand in one line that is renewed; elsewhere
    each is a line of its own.
    """

    def __init__(self, num_steps: int, *, stream: TextIO | None = None) -> None:
        self._num_steps = num_steps
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._line_open = False

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._line_open:
            self._stream.write("\n")
            self._line_open = False
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def show(self, step: int, values: dict[str, float], step_seconds: float) -> None:
        """Where training is: losses, speed, time left."""
        shown = [f"step {step}/{self._num_steps}"]
        for key, value in values.items():
            if key.rpartition("/")[2].startswith("loss"):
                shown.append(f"{key.rpartition('/')[2]} {value:.4f}")
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


class Stopwatch:
    """Seconds since it was last read, and the share of them spent waiting for data."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0

    def waiting(self) -> "Stopwatch":
        """A context manager around what counts as waiting."""
        return self

    def __enter__(self) -> None:
        self._wait_start = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        self._waited += time.perf_counter() - self._wait_start

    def read(self) -> tuple[float, float]:
        """(seconds, share of them spent waiting) since the last reading."""
        now = time.perf_counter()
        seconds, waited = now - self._start, self._waited
        self._start, self._waited = now, 0.0
        return seconds, waited / max(seconds, 1e-9)
