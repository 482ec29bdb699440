"""The images of an npz file, one after the other: it may be larger than the memory.

ADM's format: `arr_0` is uint8 [N, H, W, 3]. NumPy would read all of it at once; here
the member of the archive is opened as a stream, whether it is compressed or not.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from movq_jax.errors import UserError
from movq_jax.pretrained.npz_files import DAMAGED
from movq_jax.regular_files import check_regular

IMAGES = "arr_0"


def members(path: Path) -> list[str]:
    """Return the names of an npz file's arrays.

    Raises:
        UserError: it is not there, no file, or no npz file.
    """
    check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except DAMAGED as error:
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        raise UserError(f"{path} is not an npz file, or it is cut off") from error


def image_shape(path: Path) -> tuple[int, int, int, int]:
    """Return [N, H, W, 3] of the images in an npz file.

    Raises:
        UserError: it holds none, or not as uint8.
    """
    if IMAGES not in members(path):
        raise UserError(
            f"{path} has no array {IMAGES!r} of images, only "
            f"{', '.join(members(path)) or 'nothing'}"
        )
    with zipfile.ZipFile(path) as archive, _opened(path, archive) as file:
        shape, fortran, dtype = _read_header(path, file)
        size = archive.getinfo(f"{IMAGES}.npy").file_size - file.tell()
    if dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
        raise UserError(
            f"{path}: {IMAGES!r} must be images, uint8 [N, H, W, 3], not {dtype} "
            f"{list(shape)}"
        )
    if fortran or size != np.prod(shape, dtype=np.int64):
        raise UserError(
            f"{path}: {IMAGES!r} is not stored image after image, or is cut off: write "
            "it again with numpy.savez"
        )
    return shape


def read_images(path: Path) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yield the images of an npz file, of which one is in memory at a time.

    Raises:
        UserError: see `image_shape`, or (while iterating) the file is damaged.
    """
    _, *shape = image_shape(path)
    size = int(np.prod(shape))
    with zipfile.ZipFile(path) as archive, _opened(path, archive) as file:
        count, *_ = _read_header(path, file)[0]
        for number in range(count):
            try:
                data = file.read(size)
            except DAMAGED as error:
                raise _damaged(path, number) from error
            if len(data) != size:
                raise _damaged(path, number)
            yield np.frombuffer(data, np.uint8).reshape(shape)


def _opened(path: Path, archive: zipfile.ZipFile) -> Any:
    try:
        return archive.open(f"{IMAGES}.npy")
    except (*DAMAGED, KeyError) as error:
        raise UserError(f"{path}: {IMAGES!r} cannot be read: {error}") from error


def _read_header(path: Path, file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        version = np.lib.format.read_magic(file)
        # What NumPy writes for anything but names of fields beyond Latin-1.
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            header = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"npy format {version}")
    except DAMAGED as error:
        raise UserError(f"{path}: {IMAGES!r} cannot be read: {error}") from error
    return header


def _damaged(path: Path, number: int) -> UserError:
    return UserError(
        f"{path} is damaged at image {number}, or cut off: copy or write it again"
    )
