"""Files that are whole or not there: written beside their place, then moved into it."""

import contextlib
import os
import platform
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from movq_jax.errors import UserError

# Without dots, which part the name from what stands before and behind it.
_HOST = re.sub(r"[^0-9A-Za-z_]", "_", platform.node())
_OWN_NAME = re.compile(r"(?:^|\.)([0-9A-Za-z_]*)-([0-9]+)-[0-9a-f]{8}$")
_PATIENCE = 3600.0


@contextlib.contextmanager
def replacing(path: epath.PathLike) -> Iterator[epath.Path]:
    """Yields a name beside `path` to write to, and moves it to `path` at the end.

    A reader never meets half a file, and a writer that is killed leaves the old one
    as it was. Folders are made.

    Raises:
      UserError: the place cannot be written.
    """
    path = epath.Path(path)
    temporary = path.parent / f".{own_name()}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def own_name() -> str:
    """A name that no other process uses, and by which `is_left_over` knows whose."""
    return f"{_HOST}-{os.getpid()}-{secrets.token_hex(4)}"


def is_left_over(path: Path) -> bool:
    """Whether a file with an `own_name` before its suffix is of a process that is gone.

    Of a process on another machine, which cannot be asked: whether nothing has been
    written for an hour.
    """
    match = _OWN_NAME.search(path.stem)
    if match is None:
        return False
    host, pid = match.groups()
    if host != _HOST:
        return time.time() - path.stat().st_mtime > _PATIENCE
    if int(pid) == os.getpid():
        return True  # the caller's, who is done with it
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's process
        return False
    return False


def check_writable(path: str | os.PathLike) -> None:
    """Finds out, before long work, whether a local file could be written to `path`.

    Nothing is left behind: where folders are missing, the nearest that is there is
    tried.

    Raises:
      UserError: it could not.
    """
    path = Path(os.path.expanduser(path))  # of a user who is not known: as it is
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    try:
        folder = next(place for place in path.absolute().parents if place.exists())
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}") from error


def check_folder_to_replace(folder: str | os.PathLike) -> None:
    """Finds out, before long work, whether a local folder could take another's place.

    Raises:
      UserError: it could not, or it is where the program was started.
    """
    folder = Path(os.path.realpath(os.path.expanduser(folder)))
    if folder.exists() and not folder.is_dir():
        raise UserError(f"cannot write {folder}: it is a file; name a folder")
    if folder == Path.cwd():
        raise UserError(
            f"cannot write {folder}: it is the folder that you are in, and would be "
            "replaced; name another one"
        )
    check_writable(folder.parent / own_name())


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes a text file in one move. Raises UserError where that is not possible."""
    with replacing(path) as temporary:
        temporary.write_text(text)
