"""Arrays from npz files of weights, without trust."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from movq_jax.errors import UserError

# What NumPy and zipfile raise for damaged and for pickled parts of an npz file.
DAMAGED = (
    EOFError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(path: Path | str) -> dict[str, np.ndarray]:
    """All arrays of an npz file by name. Nothing in it is unpickled.

    Raises:
      UserError: there is no such file, it is no npz or damaged, or it holds something
        else than arrays.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise UserError(f"{path} is not an npz file, or it is cut off")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
    except DAMAGED as error:
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        raise UserError(f"{path} is damaged or cannot be read: {error}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # NumPy gives the bytes of other members
            raise UserError(
                f"{path} is no npz file of arrays: its member {name!r} is not in the "
                "npy format; write it with numpy.savez"
            )
    return arrays
