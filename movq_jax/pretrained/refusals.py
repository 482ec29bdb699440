"""What the readers of others' files raise, and the sentence that a person gets."""

import contextlib
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from movq_jax.errors import UserError

DAMAGED = (  # what zipfile, pickletools, pickle, json and the readers raise
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


class Refused(Exception):
    """A whole file, but one that is not read; the message says why."""


@contextlib.contextmanager
def as_user_errors(path: Path, damaged: str) -> Iterator[None]:
    """Turns what goes wrong inside into a `UserError` that names the file.

    Args:
      path: of the file.
      damaged: the sentence's part for anything unforeseen: 'it is damaged, or ...'.
    """
    try:
        yield
    except Refused as refused:
        raise UserError(f"cannot read {path}: {refused}") from refused
    except DAMAGED as error:
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        else:
            reason = f"{damaged} ({error})" if str(error) else damaged
        raise UserError(f"cannot read {path}: {reason}") from error
