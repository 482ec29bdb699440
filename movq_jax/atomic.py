"""Files that are whole or not there: written beside their place, then moved into it."""

import contextlib
import os
import secrets
from collections.abc import Iterator

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


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes a text file in one move. Raises UserError where that is not possible."""
    with replacing(path) as temporary:
        temporary.write_text(text)
