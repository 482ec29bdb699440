"""Files that are whole or not there: written beside their place, then moved into it."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from movq_jax.errors import UserError


@contextlib.contextmanager
def replacing(path: epath.PathLike) -> Iterator[epath.Path]:
    """Yields a name beside `path` to write to, and moves it to `path` at the end.

    A reader never meets half a file, and a writer that is killed leaves the old one
    as it was. Folders are made.

    Raises:
      UserError: the place cannot be written.
    """
    path = epath.Path(path)
    temporary = path.parent / f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
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


def check_writable(path: str | os.PathLike) -> None:
    """Finds out, before long work, whether a local file could be written to `path`.

    Nothing is left behind: where folders are missing, the nearest that is there is
    tried.

    Raises:
      UserError: it could not.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    try:
        folder = next(place for place in path.absolute().parents if place.exists())
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}") from error


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes a text file in one move. Raises UserError where that is not possible."""
    with replacing(path) as temporary:
        temporary.write_text(text)
