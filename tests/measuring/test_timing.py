import types

import jax
import jax.numpy as jnp
import pytest

from movq_jax.measuring import timing
from movq_jax.measuring.memory import compile_program
from movq_jax.measuring.programs import Program
from movq_jax.measuring.timing import Limits
from movq_jax.training.sharding import make_mesh, replicated


class Clock:
    """Tells its own time, which the steps let pass."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_steps_are_counted(monkeypatch, backend):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    started = []
    for steps in (1, 2, 5):
        started.clear()
        times = timing.time_steps(
            lambda: started.append(0), Limits(seconds=99, steps=steps)
        )
        assert len(times) == steps and len(started) == steps + 1


def test_steps_go_on_for_some_seconds():
    clock = Clock()

    def run():
        clock.now += 0.25

    assert timing.time_steps(run, Limits(seconds=1.0), clock) == [0.25] * 4
    assert timing.time_steps(run, Limits(seconds=0.1), clock) == [0.25]


def test_a_device_is_never_idle(monkeypatch):
    """A step is waited for only when the next one has started."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    events = []

    def run():
        events.append("start")
        return len(events)

    monkeypatch.setattr(jax, "block_until_ready", lambda _: events.append("done"))
    timing.time_steps(run, Limits(seconds=9, steps=3))
    assert " ".join(events) == "start done start start done start done done"


def test_turns_alternate():
    seen = []
    turns = {
        name: types.SimpleNamespace(run=lambda name=name: seen.append(name))
        for name in "ab"
    }
    limits = {"a": Limits(seconds=9, steps=1), "b": Limits(seconds=9, steps=2)}
    times = timing.time_by_turns(turns, rounds=2, limits=limits)
    assert seen == ["a", "a", "b", "b", "b"] * 2
    assert {name: [len(part) for part in parts] for name, parts in times.items()} == {
        "a": [1, 1],
        "b": [2, 2],
    }


def test_turns_end_with_a_whole_period():
    clock = Clock()

    def run():
        clock.now += 0.25

    for limits, steps in (
        (Limits(seconds=1.0, period=3), 6),
        (Limits(seconds=0.1, period=3), 3),
        (Limits(seconds=9, steps=4, period=3), 6),
        (Limits(seconds=9, steps=6, period=3), 6),
    ):
        assert len(timing.time_steps(run, limits, clock)) == steps


def test_values_of_the_steps_that_are_timed():
    seen = []
    run = lambda: seen.append(len(seen))  # noqa: E731
    turns = {"a": types.SimpleNamespace(run=run)}
    limits = {"a": Limits(seconds=9, steps=2)}
    times = timing.time_by_turns(turns, rounds=3, limits=limits)
    assert len(seen) == 9  # 0, 3 and 6 fill the queue
    assert timing.of_timed_steps(seen, times["a"]) == [1, 2, 4, 5, 7, 8]


def test_a_summary():
    record = timing.summary([[1.0, 2.0, 3.0], [4.0, 100.0]])
    assert (record["median"], record["min"], record["max"]) == (3.0, 1.0, 100.0)
    assert record["rounds"] == [2.0, 52.0] and record["steps"] == 5
    assert record["p10"] < record["median"] < record["p90"] < record["p99"]
    assert record["mean"] == 22 and record["of_period"] == record["median"]


def test_one_step_in_several_that_does_more():
    """The median does not show it, and the mean shows each disturbance."""
    record = timing.summary([[1, 1, 4, 1, 1, 4], [4, 1, 1], [1, 4, 901]], period=3)
    assert record["median"] == 1 and record["of_period"] == 2
    assert record["mean"] == pytest.approx(924 / 12)


def test_a_runner_carries_its_state():
    place = replicated(make_mesh())
    number = jax.ShapeDtypeStruct((), jnp.int32, sharding=place)

    def count(state, x):
        return state + 1, state + x

    program = Program("count", count, (number, number), carries=True)
    runner = timing.Runner(program, compile_program(program))
    assert [int(runner.run()) for _ in range(3)] == [0, 1, 2]
    fed = iter([10, 20])
    feed = lambda: jax.device_put(jnp.int32(next(fed)), place)  # noqa: E731
    runner = timing.Runner(program, compile_program(program), feed)
    assert [int(runner.run()) for _ in range(2)] == [10, 21]


def test_the_peak_of_a_device():
    stats = {"bytes_in_use": 100, "peak_bytes_in_use": 500}
    device = types.SimpleNamespace(memory_stats=lambda: dict(stats))
    with timing.device_peak(device) as peak:
        stats["peak_bytes_in_use"] = 700
        assert peak() == 600
    with timing.device_peak(device) as peak:
        assert peak() is None  # more was in use before
    silent = types.SimpleNamespace(memory_stats=lambda: None)
    with timing.device_peak(silent) as peak:
        assert peak() is None
