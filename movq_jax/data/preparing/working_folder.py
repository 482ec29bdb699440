"""The hidden folder in which a dataset is made, by one process and its helpers.

It outlives a process that stops, with the shards that are finished; the dataset is
there when its content has been moved out in one step.
"""

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from movq_jax.data.preparing.shards import (
    CONTENT,
    NOTES,
    Shard,
    anything_finished,
    sync,
)
from movq_jax.errors import UserError

_PLAN = "plan.json"
_PATIENCE = 20.0  # seconds, for processes whose parent was killed


class Busy(UserError):
    """Another process is at it."""


def working_folder_of(place: Path) -> Path:
    """Return where the dataset of the folder `place` is made."""
    return place.parent / f".{place.name}.incomplete"


@contextlib.contextmanager
def working_folder(
    place: Path, plan: Mapping[str, Any], shards: Sequence[Shard]
) -> Iterator[Path]:
    """Yield the folder in which to make `place`; afterwards it is `place`.

    In it are the finished shards of an earlier run that stopped and had the same plan;
    nothing else is left of that run. When an error ends the work, the folder stays if
    there is a finished shard in it.

    Args:
        place: folder of the dataset, which is not there yet.
        plan: what is made, in types that JSON knows.
        shards: all that belongs to it.

    Raises:
        UserError: the place cannot be written, another process is writing it, or
            there are finished shards of another plan.
    """
    work = working_folder_of(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(place.parent):
            if place.exists():
                raise UserError(f"{place} was made meanwhile: start again to see it")
            _begin(work, plan)
            _tidy(work, shards)
            try:
                yield work
                sync(work / CONTENT)
                (work / CONTENT).rename(place)
                sync(place.parent)
            finally:
                if not (work / CONTENT).exists() or not anything_finished(work):
                    shutil.rmtree(work, ignore_errors=True)
                else:
                    _tidy(work, shards)
    except OSError as error:
        raise UserError(f"cannot write {place}: {error.strerror or error}") from error
    finally:
        _remove_empty(place.parent, place.parent.parent)


def _remove_empty(*folders: Path) -> None:
    """Delete folders that were made for nothing, the inner one first."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


@contextlib.contextmanager
def locked(folder: Path, *, shared: bool = False, wait: float = 0.0) -> Iterator[None]:
    """Hold a lock; the system lets go of it when this process ends, however it does.

    Args:
        folder: what to lock.
        shared: with others that hold a shared lock, too.
        wait: how many seconds to wait for those who hold it.

    Raises:
        BlockingIOError: somebody holds it.
    """
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    until = time.monotonic() + wait
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        while True:
            try:
                fcntl.flock(descriptor, how)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise
                time.sleep(0.05)
                continue
            except OSError:
                pass  # some network file systems lock no folders: go without
            break
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except BlockingIOError as error:
            raise Busy(f"another process is preparing {folder}") from error
        yield


def _begin(work: Path, plan: Mapping[str, Any]) -> None:
    """Go on with a folder of the same plan, else make a new one."""
    if work.is_dir():
        try:
            # Helpers of a process that was killed end by themselves, but may need a
            # moment: each holds a shared lock of the folder.
            with locked(work, wait=_PATIENCE):
                pass
        except BlockingIOError as error:
            raise Busy(f"another process is preparing {work.parent}") from error
        there = (work / CONTENT).is_dir() and (work / NOTES).is_dir()
        found = _read_plan(work)
        if there and found == plan:
            return
        # What another release wrote in another way cannot be gone on with.
        if there and _same_format(found, plan) and anything_finished(work):
            raise UserError(
                f"{work} has finished files of another source, or of other flags: give "
                f"those to go on, choose another --name, or delete that folder"
            )
    shutil.rmtree(work, ignore_errors=True)
    (work / CONTENT).mkdir(parents=True)
    (work / NOTES).mkdir()
    (work / _PLAN).write_text(json.dumps(plan), encoding="utf-8")


def _same_format(found: Any, plan: Mapping[str, Any]) -> bool:
    return isinstance(found, Mapping) and found.get("format") == plan["format"]


def _read_plan(work: Path) -> Any:
    try:
        return json.loads((work / _PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _tidy(work: Path, shards: Sequence[Shard]) -> None:
    """Delete what is half written: shards, notes, metadata."""
    names = {shard.file_name for shard in shards}
    folders = [work / CONTENT, work / NOTES]
    keep = {work / _PLAN, *folders}
    keep |= {folder / name for folder in folders for name in names}
    for folder in (work, *folders):
        for path in folder.iterdir():
            if path in keep:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
