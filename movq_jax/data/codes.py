"""Pictures as indices in one npz, to keep, to send and to decode again.

The images of a file may differ in size, so their indices lie one after the other. An
image i is read with NumPy alone::

    codes = np.load("codes.npz")
    start, stop = codes["offsets"][i : i + 2]
    ids = codes["ids"][start:stop].reshape(*codes["grids"][i], -1)  # [h, w, M]

==============  ===============  ===================================================
format_version  int              1
fingerprint     str              of the model that made the indices
micro_batch     int              images a compiled call of that model, for the same
                                 bits; at most 1024
factor          int              pixels a position, both ways
codebook_size   int              every index is in 0 .. codebook_size - 1
names           str [N]          relative, without suffix, `/` between folders
sizes           int32 [N, 2]     height and width of the images
grids           int32 [N, 2]     h and w: the sizes over `factor`, rounded up
offsets         int64 [N + 1]    where an image's indices start in `ids`
ids             int32 [sum, M]   the indices of all images, row by row
==============  ===============  ===================================================

Nothing in it is pickled.
"""

import dataclasses
import zipfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from movq_jax.data.padding import padded_size
from movq_jax.errors import UserError
from movq_jax.pretrained.npz_files import DAMAGED

FORMAT_VERSION = 1
# A compiled call is filled up to it: a number without bound would ask for any memory.
MAX_MICRO_BATCH = 1024
_KINDS = {  # key -> kinds of dtype, number of dimensions
    "format_version": ("iu", 0),
    "fingerprint": ("U", 0),
    "micro_batch": ("iu", 0),
    "factor": ("iu", 0),
    "codebook_size": ("iu", 0),
    "names": ("U", 1),
    "sizes": ("iu", 2),
    "grids": ("iu", 2),
    "offsets": ("iu", 1),
    "ids": ("iu", 2),
}


@dataclasses.dataclass
class Codes:
    """The indices of N images and what is needed to decode them.

    Attributes:
        fingerprint: of the model that made the indices.
        micro_batch: images a compiled call when they were made, 1..MAX_MICRO_BATCH.
        factor: pixels a position, both ways.
        codebook_size: K; indices are in 0 .. K - 1.
        names: N unique names, relative and without suffix.
        sizes: N pairs (height, width) of the images.
        ids: N arrays int32 [h, w, M], all of one M.
    """

    fingerprint: str
    micro_batch: int
    factor: int
    codebook_size: int
    names: list[str]
    sizes: list[tuple[int, int]]
    ids: list[np.ndarray]


def write_codes(file: BinaryIO, codes: Codes) -> None:
    """Write `codes` (of at least one image) as a compressed npz."""
    lengths = [ids.shape[0] * ids.shape[1] for ids in codes.ids]
    np.savez_compressed(
        file,
        format_version=np.int32(FORMAT_VERSION),
        fingerprint=np.str_(codes.fingerprint),
        micro_batch=np.int32(codes.micro_batch),
        factor=np.int32(codes.factor),
        codebook_size=np.int32(codes.codebook_size),
        names=np.array(codes.names, dtype=np.str_),
        sizes=np.array(codes.sizes, dtype=np.int32),
        grids=np.array([ids.shape[:2] for ids in codes.ids], dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        ids=np.concatenate(
            [ids.reshape(-1, ids.shape[-1]) for ids in codes.ids]
        ).astype(np.int32),
    )


def read_codes(path: Path) -> Codes:
    """Read a file that `write_codes` wrote, and trust nothing in it.

    Raises:
        UserError: there is no such file, it is no npz, damaged, of a newer format,
            or its parts do not fit together.
    """
    parts = _load(path)
    for key, (kinds, ndim) in _KINDS.items():
        part = parts[key]
        if part.dtype.kind not in kinds or part.ndim != ndim:
            raise UserError(
                f"{path}: {key!r} is {part.dtype} with {part.ndim} dimensions, "
                f"which `movq encode` does not write"
            )
    names = parts["names"].tolist()
    _check_names(path, names)
    _check_layout(path, parts)
    sizes, grids, offsets = (parts[key] for key in ("sizes", "grids", "offsets"))
    limits = np.iinfo(np.int32)
    ids = parts["ids"]
    if ids.size and (ids.min() < limits.min or ids.max() > limits.max):
        raise UserError(f"{path}: 'ids' has numbers that no codebook has")
    ids = ids.astype(np.int32)
    return Codes(
        fingerprint=str(parts["fingerprint"]),
        micro_batch=int(parts["micro_batch"]),
        factor=int(parts["factor"]),
        codebook_size=int(parts["codebook_size"]),
        names=names,
        sizes=[(int(height), int(width)) for height, width in sizes],
        ids=[
            ids[offsets[i] : offsets[i + 1]].reshape(*grids[i], ids.shape[1])
            for i in range(len(names))
        ],
    )


def _load(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the file, all of those that must be there."""
    if not path.is_file():  # nor is a pipe opened, which may never end
        raise UserError(f"{path} does not exist, or is a folder, a pipe or a device")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is not an npz file, or it is cut off")
    try:
        # A file of our own: NumPy leaves the one it opens open when the zip is bad.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if "format_version" in archive.files:  # a newer one may have other parts
                _check_version(path, archive["format_version"])
            missing = [key for key in _KINDS if key not in archive.files]
            if missing:
                raise UserError(
                    f"{path} lacks {', '.join(missing)}: "
                    f"it was not written by `movq encode`"
                )
            return {key: archive[key] for key in _KINDS}
    except DAMAGED as error:
        raise UserError(f"{path} is damaged or cannot be read: {error}") from error


def _check_version(path: Path, version: np.ndarray) -> None:
    if version.ndim or version.dtype.kind not in "iu" or version < 1:
        raise UserError(f"{path}: 'format_version' is no version number")
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path} has format {version}, newer than the {FORMAT_VERSION} that this "
            f"release reads: update movq_jax"
        )


def _check_names(path: Path, names: list[str]) -> None:
    """Refuse names that would lead out of the output folder or meet one another."""
    for name in names:
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in name:
            raise UserError(f"{path}: {name!r} cannot be the name of a picture")
    if len({name.casefold() for name in names}) != len(names):
        raise UserError(f"{path}: two pictures have the same name")


def _check_layout(path: Path, parts: dict[str, np.ndarray]) -> None:
    """Refuse sizes, grids, offsets and ids that contradict one another."""
    sizes, grids, offsets = (
        parts[key].astype(np.int64) for key in ("sizes", "grids", "offsets")
    )
    count, length = len(parts["names"]), len(parts["ids"])
    factor = int(parts["factor"])
    wrong = None
    if count == 0:
        wrong = "there is no picture in it"
    elif sizes.shape != (count, 2) or grids.shape != (count, 2):
        wrong = "'sizes' and 'grids' need two numbers a name"
    elif offsets.shape != (count + 1,) or offsets[0] != 0 or offsets[-1] != length:
        wrong = "'offsets' does not start at 0 and end at the length of 'ids'"
    elif min(factor, int(parts["micro_batch"]), int(parts["codebook_size"])) < 1:
        wrong = "'factor', 'micro_batch' and 'codebook_size' must be positive"
    elif int(parts["micro_batch"]) > MAX_MICRO_BATCH:
        wrong = f"'micro_batch' is {parts['micro_batch']}, above {MAX_MICRO_BATCH}"
    elif (sizes < 1).any():
        wrong = "'sizes' has a side below 1"
    elif [tuple(grid * factor) for grid in grids] != [
        padded_size(int(height), int(width), factor) for height, width in sizes
    ]:
        wrong = "'grids' are not 'sizes' over 'factor', rounded up"
    elif (np.diff(offsets) != grids.prod(axis=1)).any():
        wrong = "'offsets' do not leave an image the positions of its grid"
    if wrong:
        raise UserError(f"{path}: {wrong}")
