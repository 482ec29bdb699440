"""Processes that make batches: their order, their errors, and their end."""

import itertools
import operator
import os
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from movq_jax.data.workers import Workers
from movq_jax.errors import UserError

SHAPE = (2, 4, 4, 3)
EVERYWHERE = (slice(None),)


def make(jobs, num_workers=2, maker=operator.setitem, ahead=3):
    """Return workers whose job is (where, value): rows[where] = value."""
    return Workers(
        maker, iter(jobs), SHAPE, num_workers=num_workers, num_threads=3, ahead=ahead
    )


def fill(values):
    return ((EVERYWHERE, value) for value in values)


def alive(pid):
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids):
    deadline = time.monotonic() + 20
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, "processes were left behind"
        time.sleep(0.05)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_batches_come_in_the_order_of_the_jobs(num_workers):
    workers = make(fill(range(40)), num_workers)
    values = []
    for rows, answer in workers:
        assert rows.shape == SHAPE and rows.dtype == np.uint8 and answer is None
        assert (rows == rows[0, 0, 0, 0]).all()
        values.append(int(rows[0, 0, 0, 0]))
    assert values == list(range(40))
    workers.close()


def test_a_batch_may_be_kept():
    workers = make(fill(range(30)))
    kept = [rows for rows, _ in workers]
    workers.close()
    assert [rows[0, 0, 0, 0] for rows in kept] == list(range(30))


def test_an_error_is_raised_where_its_batch_would_be():
    jobs = [*fill([1, 2]), ((9,), 3), *fill([4, 5])]
    workers = make(jobs)
    assert [next(workers)[0][0, 0, 0, 0] for _ in range(2)] == [1, 2]
    pids = workers.process_ids
    with pytest.raises(IndexError, match="index 9 is out of bounds") as caught:
        next(workers)
    assert "In a process that makes batches" in caught.value.__notes__[0]
    wait_until_gone(pids)
    with pytest.raises(ValueError, match="closed"):
        next(workers)


def test_they_end_when_closed_or_forgotten():
    for end in (Workers.close, Workers.__del__):
        workers = make(fill(itertools.repeat(7)))
        next(workers)
        pids = workers.process_ids
        assert len(pids) == 2 and all(map(alive, pids))
        end(workers)
        wait_until_gone(pids)
        workers.close()


def test_none_is_started_before_the_first_batch():
    workers = make(fill([1]))
    assert workers.process_ids == []
    workers.close()


def test_their_processor_time_is_known():
    workers = make(fill(range(9)))
    assert workers.process_seconds == 0
    for _ in workers:
        pass
    assert workers.process_seconds > 0
    workers.close()


def test_a_worker_that_was_killed():
    workers = make(fill(itertools.repeat(7)))
    next(workers)
    pids = workers.process_ids
    os.kill(pids[0], signal.SIGKILL)
    words = "data.num_workers processes ended by signal 9, as when memory is short"
    with pytest.raises(UserError, match=words):
        for _ in range(100):
            next(workers)
    wait_until_gone(pids)


@pytest.mark.parametrize("notice", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_a_notice_to_stop_does_not_end_them(notice):
    """A launcher may send it to all processes of a run that has yet to save itself."""
    workers = make(fill(itertools.repeat(7)))
    next(workers)  # the other one is still starting
    for pid in workers.process_ids:
        os.kill(pid, getattr(signal, notice))
    for _ in range(20):
        next(workers)
    workers.close()


def test_what_cannot_be_started(monkeypatch):
    def fail(*arguments, **options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", fail)
    workers = make(fill([1]), num_workers=400)
    with pytest.raises(UserError, match=r"num_workers=400: .*\(Resource temporarily"):
        next(workers)


def test_what_a_worker_cannot_read_is_told(capfd, monkeypatch):
    module = types.ModuleType("only_here")
    exec("def maker(rows): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    workers = make([()], maker=module.maker)
    with pytest.raises(UserError, match="ended with exit code 1: its own words"):
        next(workers)
    assert "No module named 'only_here'" in capfd.readouterr().err


# Tests that were started in the background inherit a SIGINT that is ignored.
SCRIPT = """
import itertools, operator, signal, sys, time
from movq_jax.data.workers import Workers
signal.signal(signal.SIGINT, signal.default_int_handler)
jobs = (((slice(None),), 7) for _ in itertools.count())
workers = Workers(
    operator.setitem, jobs, (1, 2, 2, 3), num_workers=2, num_threads=2, ahead=2
)
next(workers)
print(*workers.process_ids, flush=True)
"""


def start(more):
    """Start a script without a guard of `__main__`; return it and its workers' ids."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT + more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    return process, [int(word) for word in process.stdout.readline().split()]


def test_a_parent_that_is_killed_leaves_none_behind():
    process, pids = start("time.sleep(100)")
    assert len(pids) == 2 and all(map(alive, pids))
    process.kill()
    process.communicate()
    wait_until_gone(pids)


def test_ctrl_c_is_for_the_parent():
    process, pids = start("while True: next(workers)")
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    wait_until_gone(pids)
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1 and "KeyboardInterrupt" in errors


def test_a_script_that_ends_without_closing():
    process, pids = start("")
    _, errors = process.communicate()
    wait_until_gone(pids)
    assert (process.returncode, errors) == (0, "")


def test_workers_import_no_jax():
    """It would cost each of them seconds and 200 MB, and it might take the device."""
    script = (
        "import sys; import movq_jax.data.workers, movq_jax.data.rows; "
        "print(sorted({'jax', 'grain', 'tensorflow'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"
