"""Timing compiled programs by turns, so that whatever slows one slows all alike."""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from movq_jax.measuring.memory import Compiled
from movq_jax.measuring.programs import Program, random_arguments
from movq_jax.progress import Progress


class Turn(Protocol):
    """Something that is timed."""

    def run(self) -> Any:
        """Start one step; return what is ready when the step is done."""


class Runner:
    """A compiled program with its arguments. What it carries goes from step to step."""

    def __init__(self, program: Program, compiled: Compiled, feed=None) -> None:
        """Give the program random arguments.

        Args:
          feed: returns the second argument anew for each step (a batch of real
            images); None: it stays the same.
        """
        self._call, self._carries = compiled.call, program.carries
        self._arguments = random_arguments(program)
        self._feed = feed

    def run(self) -> Any:
        """Starts one step. See `Turn`."""
        first, *rest = self._arguments
        if self._feed is not None:
            rest[0] = self._feed()
        results = self._call(first, *rest)
        if not self._carries:
            return results
        self._arguments = (results[0], *rest)
        return results[1]  # the state will be given up, the metrics will not


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a turn lasts: a number of steps, or seconds.

    It ends with a whole period of steps: one at least.
    """

    seconds: float
    steps: int | None = None
    period: int = 1

    def reached(self, steps: int, seconds: float) -> bool:
        """Whether that is enough."""
        if steps == 0 or steps % self.period:
            return False
        if self.steps is not None:
            return steps >= self.steps
        return seconds >= self.seconds


def time_by_turns(
    turns: Mapping[str, Turn], *, rounds: int, limits: Mapping[str, Limits]
) -> dict[str, list[list[float]]]:
    """Seconds of the steps of each, [rounds][steps]; progress goes to stderr.

    Each turn begins with a step that does not count: it fills the queue.
    """
    times: dict[str, list[list[float]]] = {name: [] for name in turns}
    with Progress(rounds * len(turns), "turns") as progress:
        for _ in range(rounds):
            for name, turn in turns.items():
                times[name].append(time_steps(turn.run, limits[name]))
                progress.advance()
    return times


def time_steps(
    run: Callable[[], Any],
    limits: Limits,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Seconds from the end of one step to the end of the next.

    As in training, a step is started before the one before it is done, so that the
    device never waits for the host to start one. Not so on a CPU, which would compute
    both at once.
    """
    jax.block_until_ready(run())
    times: list[float] = []
    start = last = clock()
    running = [run()] if jax.default_backend() != "cpu" else []

    def finish_one() -> float:
        jax.block_until_ready(running.pop(0))
        now = clock()
        times.append(now - last)
        return now

    while not limits.reached(len(times) + len(running), last - start):
        running.append(run())
        last = finish_one()
    while running:
        last = finish_one()
    return times


def of_timed_steps(
    values: Sequence[float], rounds: Sequence[Sequence[float]]
) -> list[float]:
    """Of one value for each step that was started, those of the steps in `rounds`."""
    timed, place = [], 0
    for times in rounds:
        place += 1  # the step that does not count
        timed.extend(values[place : place + len(times)])
        place += len(times)
    return timed


def summary(rounds: Sequence[Sequence[float]], period: int = 1) -> dict[str, Any]:
    """Seconds of a step over all rounds, and the median of each round.

    Where one step in `period` does more than the others, the median does not show it.
    So `of_period` is the median over whole periods of their mean, which leaves out what
    disturbed some of them, as a median does; with a period of 1 it is the median.
    """
    times = np.concatenate([np.asarray(times) for times in rounds])
    p10, median, p90, p99 = np.percentile(times, [10, 50, 90, 99])
    return {
        "median": float(median),
        "mean": float(times.mean()),
        "of_period": float(np.median(times.reshape(-1, period).mean(axis=1))),
        "min": float(times.min()),
        "p10": float(p10),
        "p90": float(p90),
        "p99": float(p99),
        "max": float(times.max()),
        "steps": len(times),
        "rounds": [statistics.median(times) for times in rounds],
    }


@contextlib.contextmanager
def device_peak(device: jax.Device) -> Iterator[Callable[[], int | None]]:
    """Within it: what reads how many bytes more were in use at once than at its start.

    None where the device does not say (the CPU), or where more was in use at some time
    before: the peak is that of the whole process.
    """
    before = device.memory_stats()

    def read() -> int | None:
        after = device.memory_stats()
        known = before and after and "peak_bytes_in_use" in after
        if not known or after["peak_bytes_in_use"] <= before["peak_bytes_in_use"]:
            return None
        return after["peak_bytes_in_use"] - before["bytes_in_use"]

    yield read
