"""Noticing that the process should stop: Ctrl-C, SIGTERM, a notice to any host."""

import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils


class StopNotice:
    """A context manager that turns SIGINT and SIGTERM into a question to ask.

    A single process uses Python's signal handlers; a second Ctrl-C stops at once.
    Several processes rely on `jax.distributed`, whose sync point makes all of them
    see the notice at the same step.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopNotice":
        if jax.process_count() == 1:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = number

    def received(self) -> bool:
        """Whether the notice of a single process is there. To be asked at any time.

        Of several processes none may act on its own: False, until `reached`.
        """
        return self._received is not None

    def reached(self, step: int) -> bool:
        """Whether to save and leave now. To be asked once a step by every process."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.received()
