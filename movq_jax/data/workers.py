"""Batches made by several processes: in order, and gone when their parent is.

    parent ── job, slot ──> worker      over a socket each
    parent <── slot, answer ── worker   the pixels lie in memory that all of them share

Not `multiprocessing`, nor Grain's use of it: there the main script is imported again
in each worker (which breaks scripts without `if __name__ == "__main__"`, and imports
jax for nothing), a worker outlives a parent that was killed, Ctrl-C and SIGTERM, which
ask a run to save itself, end its workers at once, and memory is left in /dev/shm.
A worker here is `python -c` with a socket. Its parent may end however it likes: the
system closes the socket then, and the worker leaves.
"""

import collections
import contextlib
import json
import math
import mmap
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from socket import socketpair
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import UInt8

from movq_jax.errors import UserError

_START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from movq_jax.data.workers import work
work(int(sys.argv[2]), int(sys.argv[3]))
"""
_LEAVE_SECONDS = 5  # then a worker is killed


class Maker(Protocol):
    """Makes one batch of a job; it is pickled to get to the workers."""

    def __call__(self, rows: np.ndarray, *job: Any) -> Any:
        """Write uint8 [b, S, S, 3] to `rows`, and return what else the batch has."""


class Workers(Iterator[tuple[np.ndarray, Any]]):
    """An iterator over (rows, answer) of each job, in the order of the jobs.

    The processes start with the first batch. An error in one of them is raised where
    its batch would be.
    """

    def __init__(
        self,
        maker: Maker,
        jobs: Iterator[tuple],
        shape: tuple[int, ...],
        *,
        num_workers: int,
        num_threads: int,
        ahead: int,
    ):
        """Prepare to work on `jobs`, which may have no end.

        Args:
            maker: called in the workers, by several threads.
            jobs: the arguments of each call.
            shape: of the rows of a batch.
            num_workers: how many processes.
            num_threads: of all of them together; one each at least.
            ahead: batches made ahead; two a worker at least, so that none of them
                waits while its last batch does.
        """
        self._workers: list[_Worker] = []
        self._maker, self._jobs, self._shape = maker, jobs, shape
        self._num_workers = num_workers
        self._threads = max(1, num_threads // num_workers)
        self._free = list(range(max(ahead, 2 * num_workers)))
        self._due: collections.deque[int] = collections.deque()  # slots, in order
        self._answers: dict[int, _Answer] = {}  # by slot
        self._closed = False

    def __next__(self) -> tuple[np.ndarray, Any]:
        if self._closed:
            raise ValueError("the iterator is closed")
        if not self._workers:
            self._start()
        self._hand_out()
        if not self._due:
            raise StopIteration
        while self._due[0] not in self._answers:
            self._receive()
        slot = self._due.popleft()
        answer = self._answers.pop(slot)
        self._free.append(slot)
        if answer.error is not None:
            self.close()
            raise answer.error
        # A copy: whoever has a batch may keep it, and the slot is written to again.
        return self._slots[slot].copy(), answer.result

    @property
    def process_seconds(self) -> float:
        """Processor time of the workers up to the last batch of each."""
        return sum(worker.process_seconds for worker in self._workers)

    @property
    def process_ids(self) -> list[int]:
        """Of the workers that were started and not closed."""
        return [worker.process.pid for worker in self._workers]

    def close(self) -> None:
        """End the processes; the iterator cannot be used after that."""
        self._closed = True
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.connection.close()
        deadline = time.monotonic() + _LEAVE_SECONDS
        for worker in workers:
            try:
                worker.process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()

    def __del__(self) -> None:
        self.close()

    def _start(self) -> None:
        order = _Order(self._maker, self._shape, self._threads)
        size = len(self._free) * math.prod(self._shape)
        try:
            with _shared_memory(size) as memory:
                self._slots = _as_slots(memory, self._shape)
                for _ in range(self._num_workers):
                    self._workers.append(_start_worker(memory))
        except OSError as error:
            self.close()
            raise UserError(
                f"config.data.num_workers={self._num_workers}: the processes cannot be "
                f"started ({error.strerror or error}), give a smaller number"
            ) from error
        for worker in self._workers:
            worker.send(order)

    def _hand_out(self) -> None:
        while self._free and (job := next(self._jobs, None)) is not None:
            slot = self._free.pop()
            self._due.append(slot)
            least = min(self._workers, key=lambda worker: worker.at_work)
            least.at_work += 1
            least.send((slot, job))

    def _receive(self) -> None:
        """Wait for an answer, or several."""
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection)):
            worker = by_connection[connection]
            try:
                answer = connection.recv()
            except (EOFError, OSError):
                self._lament(worker)
            worker.at_work -= 1
            worker.process_seconds = answer.process_seconds
            self._answers[answer.slot] = answer

    def _lament(self, worker: "_Worker") -> None:
        code = worker.process.wait()
        self.close()
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        hint = ": its own words are above" if code > 0 else ""
        if code == -signal.SIGKILL:
            hint = ", as when memory is short: lower their number, or data.prefetch"
        raise UserError(f"one of config.data.num_workers processes ended {how}{hint}")


class _Order(NamedTuple):
    """What a worker is told first."""

    maker: Maker
    shape: tuple[int, ...]
    num_threads: int


class _Answer(NamedTuple):
    """What a worker says of a job."""

    slot: int
    result: Any
    error: Exception | None
    process_seconds: float


# What launchers and terminals send to say that a run should end.
_NOTICES = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


class _Worker:
    """A process as its parent sees it."""

    def __init__(self, process: subprocess.Popen, connection: Connection):
        self.process, self.connection = process, connection
        self.at_work = 0  # jobs that it was given and has not answered
        self.process_seconds = 0.0

    def send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except BrokenPipeError:
            pass  # it ended: that is noticed, and told, where its answer is awaited


def _start_worker(memory: int) -> _Worker:
    ours, theirs = (Connection(end.detach()) for end in socketpair())
    with contextlib.ExitStack() as stack, theirs:
        stack.enter_context(ours)
        numbers = [str(theirs.fileno()), str(memory)]
        with _not_for_children(_NOTICES):
            process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(sys.path), *numbers],
                pass_fds=[theirs.fileno(), memory],
                stdin=subprocess.DEVNULL,
                process_group=0,  # so that Ctrl-C is for the parent alone
            )
        stack.pop_all()  # ours stays open
    return _Worker(process, ours)


@contextlib.contextmanager
def _not_for_children(numbers: Collection[signal.Signals]) -> Iterator[None]:
    """Processes started within never get these signals, from their first moment on.

    A launcher may send them to all processes of a run. The parent needs batches until
    its state is saved.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _shared_memory(size: int) -> Iterator[int]:
    """Yield a descriptor of `size` bytes that processes can share, without a name.

    Not in /dev/shm, which containers often keep small.
    """
    if hasattr(os, "memfd_create"):
        memory = os.memfd_create("batches")
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            memory = os.dup(file.fileno())
    try:
        os.ftruncate(memory, size)
        yield memory
    finally:
        os.close(memory)


def _as_slots(
    memory: int, shape: tuple[int, ...]
) -> UInt8[np.ndarray, "slots b size size 3"]:
    # The mapping lives as long as arrays of it do.
    return np.frombuffer(mmap.mmap(memory, 0), np.uint8).reshape(-1, *shape)


def work(socket: int, memory: int) -> None:
    """Work on what comes from `socket` until it is closed: the life of a worker.

    Args:
        socket: a descriptor, whose other end the parent has.
        memory: a descriptor of the slots.
    """
    connection = Connection(socket)
    order = _received(connection)
    slots = _as_slots(memory, order.shape)
    sending = threading.Lock()

    def answer(slot: int, job: tuple) -> None:
        message = _answer(order.maker, slots[slot], slot, job)
        with sending:
            connection.send(message)

    # Never shut down, because that would wait for its jobs.
    pool = ThreadPoolExecutor(order.num_threads)
    while True:
        pool.submit(answer, *_received(connection))


def _received(connection: Connection) -> Any:
    try:
        message = connection.recv_bytes()
    except (EOFError, OSError):  # the parent closed it, or is gone
        os._exit(0)  # without finishing the batches that are being made
    return pickle.loads(message)


def _answer(maker: Maker, rows: np.ndarray, slot: int, job: tuple) -> _Answer:
    result = error = None
    try:
        result = maker(rows, *job)
    except BaseException as caught:  # the parent waits for an answer
        error = _as_sent(caught)
    return _Answer(slot, result, error, time.process_time())


def _as_sent(error: BaseException) -> Exception:
    """Return `error`, or what can be said of it where it cannot be pickled."""
    story = traceback.format_exc()
    if not isinstance(error, Exception):
        return RuntimeError(story)
    try:
        error.add_note(f"In a process that makes batches:\n{story}")
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(story)
    return error
