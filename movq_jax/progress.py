"""How far a command is: one live line on a terminal, a line now and then elsewhere."""

import io
import sys
import time
from collections.abc import Callable


class Progress:
    """Count finished items and say on stderr how fast it goes and what is left.

    Quick jobs stay silent. Use as a context manager: the line is finished also when
    an error ends the work.

    Example:
        >>> with Progress(3, "images") as progress:
        ...     for _ in range(3):
        ...         progress.advance()
    """

    def __init__(
        self,
        total: int,
        unit: str,
        *,
        stream: io.TextIOBase | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start counting to `total`; `stream` is stderr, `clock` counts seconds."""
        self._total, self._unit = total, unit
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._live = self._stream.isatty()
        # A terminal's line may change twice a second; a log wants one in ten.
        self._interval = 0.5 if self._live else 10.0
        self._start = self._shown_at = clock()
        self._done = 0
        self._line_open = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self._end_line()

    def advance(self, count: int = 1) -> None:
        """Count `count` more items as finished."""
        self._done += count
        now = self._clock()
        if now - self._shown_at < self._interval:
            return
        self._shown_at = now
        self._show(now - self._start)

    def note(self, text: str) -> None:
        """Print a line of its own, such as a file that is refused."""
        self._end_line()
        print(text, file=self._stream, flush=True)

    def _show(self, seconds: float) -> None:
        rate = self._done / seconds
        left = (self._total - self._done) / rate if rate else float("inf")
        text = (
            f"{self._done}/{self._total} {self._unit}, "
            f"{rate:.3g} a second, {duration(left)} left"
        )
        if self._live:
            # To the start of the line, and clear what the last one left over.
            self._stream.write(f"\r{text}\x1b[K")
            self._line_open = True
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def _end_line(self) -> None:
        if self._line_open:
            self._stream.write("\n")
            self._stream.flush()
            self._line_open = False


def duration(seconds: float) -> str:
    """Return seconds as people say them: `42 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds == float("inf"):
        return "unknown time"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
