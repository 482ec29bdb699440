"""Tasks for several processes: errors as in one, and nobody is left behind."""

import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from movq_jax.data.preparing.working_folder import locked
from movq_jax.errors import UserError

_ITEM, _RESULT, _ERROR = "item", "result", "error"


def run_tasks(
    function: Callable[[Any, Callable[[Any], None]], Any],
    tasks: Sequence[Any],
    *,
    jobs: int,
    on_item: Callable[[Any], None],
    folder: Path,
) -> list[Any]:
    """Return `function(task, report)` of each task, in their order.

    With one job all happens in this process. With more, processes of their own do it,
    which end when this one does, even if it is killed. Ctrl-C and SIGTERM are this
    process's business alone.

    Args:
        function: what to do; it can be pickled, as must be tasks, items and results.
        tasks: what to do it with.
        jobs: number of processes.
        on_item: called here with all that `function` passes to `report`.
        folder: existing; each process holds a shared lock of it until it ends.

    Raises:
        UserError: a process was killed.
        Exception: what `function` raises.
    """
    jobs = min(jobs, len(tasks))
    if jobs <= 1:
        return [function(task, on_item) for task in tasks]
    with _team(jobs, function, folder) as team:
        return _share_out(tasks, team, on_item)


_Team = dict[multiprocessing.connection.Connection, multiprocessing.Process]


@contextlib.contextmanager
def _team(jobs: int, function: Callable, folder: Path) -> Iterator[_Team]:
    """Yield processes that wait for tasks, by the connections to them."""
    # Not by fork: threads of this process, as of JAX, may hold locks.
    context = multiprocessing.get_context("spawn")
    team: _Team = {}
    try:
        with _signals_blocked():
            for _ in range(jobs):
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_work, args=(theirs, function, folder), daemon=True
                )
                process.start()
                theirs.close()
                team[ours] = process
        yield team
    finally:
        for process in team.values():
            process.kill()
        for connection, process in team.items():
            process.join()
            connection.close()


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Keep Ctrl-C and SIGTERM back; processes started now never get them."""
    both = {signal.SIGINT, signal.SIGTERM}
    # It comes with the first process, and would let the signals through again.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, both)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _share_out(
    tasks: Sequence[Any], team: _Team, on_item: Callable[[Any], None]
) -> list[Any]:
    waiting = collections.deque(enumerate(tasks))
    doing: dict[multiprocessing.connection.Connection, int] = {}
    results: dict[int, Any] = {}

    def give_next(connection: multiprocessing.connection.Connection) -> None:
        if waiting:
            doing[connection], task = waiting.popleft()
            connection.send(task)

    for connection in team:
        with _explained(team[connection]):
            give_next(connection)
    while len(results) < len(tasks):
        for connection in multiprocessing.connection.wait(list(doing)):
            with _explained(team[connection]):
                kind, value = connection.recv()
            if kind == _ITEM:
                on_item(value)
            elif kind == _RESULT:
                results[doing.pop(connection)] = value
                with _explained(team[connection]):
                    give_next(connection)
            else:
                raise value
    return [results[number] for number in range(len(tasks))]


@contextlib.contextmanager
def _explained(process: multiprocessing.Process) -> Iterator[None]:
    """Turn a connection that is gone into what happened to its process."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        process.join()
        code = process.exitcode
        how = (
            f"was killed (signal {-code}): where memory is short, use fewer --jobs"
            if code < 0
            else f"ended too early (exit code {code})"
        )
        raise UserError(f"one of the processes of --jobs {how}") from error


def _work(
    connection: multiprocessing.connection.Connection, function: Callable, folder: Path
) -> None:
    """Do the tasks that come through `connection`, until there is nobody behind it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gone = (EOFError, ConnectionError)
    # The folder is locked where another run has taken over, or is gone.
    with contextlib.suppress(*gone, BlockingIOError, FileNotFoundError):
        with locked(folder, shared=True):
            # A process that was late must not touch what belongs to the next run.
            while multiprocessing.parent_process().is_alive():
                task = connection.recv()
                connection.send(_outcome(function, task, connection))


def _end_with_parent() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _outcome(
    function: Callable, task: Any, connection: multiprocessing.connection.Connection
) -> tuple[str, Any]:
    try:
        return _RESULT, function(task, lambda item: connection.send((_ITEM, item)))
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return _ERROR, RuntimeError("".join(traceback.format_exception(error)))
        # A traceback does not travel, and a bug should have one.
        error.add_note(traceback.format_exc())
        return _ERROR, error
