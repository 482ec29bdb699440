"""Tensors from files that `torch.save` wrote, without torch, and without trust.

Two containers are read: the zip archive of torch 1.6 and later, and the stream of
pickles before it. Both describe their tensors in a pickle, see
`movq_jax.pretrained.torch_pickles`, and have the numbers beside it.
"""

import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

from movq_jax.pretrained.refusals import Refused, as_user_errors
from movq_jax.pretrained.torch_pickles import (
    Storage,
    Tensor,
    check_tensor,
    unpickle,
)

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_SMALL = 1 << 16  # numbers; a tensor of so many may repeat fewer
_BIG_ENDIAN = "its numbers are big-endian, which is not read"

ReadStorage = Callable[[Storage], bytes]


def read_torch_file(path: Path | str, prefix: str = "") -> dict[str, np.ndarray]:
    """Reads a state dict: a file whose object is a dict from names to tensors.

    Nothing in the file is executed, and no size it states is believed before the
    file is seen to hold that much. Names keep their order.

    Args:
      path: of the file.
      prefix: tensors whose name does not begin with it are left out, and not read.

    Returns:
      Read-only arrays of the tensors' shapes and dtypes (bfloat16 too). Tensors that
      share memory in the file share it here.

    Raises:
      UserError: there is no such file, it is damaged or not torch's, or it holds
        something else than tensors; a class or function is named.
    """
    path = Path(path)
    damaged = "it is damaged, or no file of torch.save"
    with as_user_errors(path, damaged), path.open("rb") as file:
        found, read = _contents(file, lenient=False)
        return _arrays(found, prefix, read)


class TorchSource:
    """An open file of torch whose object may hold more than tensors.

    Tensors are read one by one. What else the file describes, the state of a training
    or its configuration, is not built: a `torch_pickles.Placeholder` is in its place.

    Raises (all methods):
      Refused, or any of `refusals.DAMAGED`.
    """

    def __init__(self, file: BinaryIO):
        self.tree, self._read = _contents(file, lenient=True)
        if not isinstance(self.tree, dict):
            kind = getattr(self.tree, "asked", type(self.tree).__name__)
            raise Refused(
                f"it holds a {kind}, and a dict of tensors is wanted; let torch load "
                "it and save its state dict"
            )
        # Of tensors that share a storage, the next one mostly follows at once.
        self._last: tuple[str, bytes] = ("", b"")

    def is_tensor(self, value: Any) -> bool:
        """Whether a value of the tree is a tensor."""
        return isinstance(value, Tensor)

    def check(self, name: str, tensor: Tensor) -> None:
        """That the tensor lies in its storage, and does not swell when it is copied."""
        check_tensor(name, tensor)
        count = math.prod(tensor.size)
        if count > max(tensor.storage.count, _SMALL):
            raise Refused(
                f"its tensor {name!r} has {count} numbers, which repeat "
                f"{tensor.storage.count}; no weights do"
            )

    def read(self, tensor: Tensor) -> np.ndarray:
        """The numbers of a tensor that was checked; read-only where not copied."""
        storage = tensor.storage
        if self._last[0] != storage.key:
            self._last = ("", b"")  # before the next: not two at a time in memory
            self._last = (storage.key, self._read(storage))
        array = _array(tensor, self._last[1])
        whole = array.size == storage.count and array.flags.c_contiguous
        return array if whole else array.copy()


def _arrays(
    tensors: dict[str, Tensor], prefix: str, read: ReadStorage
) -> dict[str, np.ndarray]:
    storages, arrays = {}, {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            key = tensor.storage.key
            if key not in storages:
                storages[key] = read(tensor.storage)
            arrays[name] = _array(tensor, storages[key])
    return arrays


def _contents(file: BinaryIO, lenient: bool) -> tuple[Any, ReadStorage]:
    """The object of the file, and what reads the storages of its tensors."""
    is_zip = file.read(4) == b"PK\x03\x04"
    file.seek(0)
    return (_zip_archive if is_zip else _legacy_stream)(file, lenient)


def _zip_archive(file: BinaryIO, lenient: bool) -> tuple[Any, ReadStorage]:
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    pickles = [n for n in names if n.count("/") == 1 and n.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Refused(
            "it is a zip archive, but no file of torch.save, which has one data.pkl; "
            "if the weights are in it, unpack it first"
        )
    root = pickles[0].removesuffix("data.pkl")
    order = root + "byteorder"
    if order in names and _member(archive, order) != b"little":
        raise Refused(_BIG_ENDIAN)

    def read(storage: Storage) -> bytes:
        return _member(archive, f"{root}data/{storage.key}", _bytes(storage))

    found, _ = unpickle(_member(archive, pickles[0]), lenient)
    return found if lenient else _checked(found), read


def _member(archive: zipfile.ZipFile, name: str, size: int | None = None) -> bytes:
    """A file of the archive, of that size. What is not compressed cannot swell."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise Refused(f"its {name} is compressed, which torch.save does not do")
    if size is not None and info.file_size != size:
        raise ValueError(f"{name} has {info.file_size} bytes instead of {size}")
    return archive.read(info)


def _legacy_stream(file: BinaryIO, lenient: bool) -> tuple[Any, ReadStorage]:
    """Of a stream of pickles, with the numbers of the storages behind them."""
    if _next_pickle(file) != _LEGACY_MAGIC or _next_pickle(file) != _LEGACY_PROTOCOL:
        raise ValueError("it begins otherwise")
    if _next_pickle(file)["little_endian"] is not True:
        raise Refused(_BIG_ENDIAN)
    found, storages = _next(file, lenient)
    found = found if lenient else _checked(found)
    keys = _next_pickle(file)
    end = file.tell()
    size = file.seek(0, io.SEEK_END)
    places = {}
    for key in keys:
        if type(key) is not str:
            raise ValueError(f"a storage is called by a {type(key).__name__}")
        file.seek(end)
        (count,) = struct.unpack("<q", file.read(8))
        if storages[key].count != count:
            raise ValueError(f"storage {key} is not as described")
        places[key] = file.tell()
        end = places[key] + _bytes(storages[key])
        if end > size:
            raise EOFError(f"storage {key} is cut off")

    def read(storage: Storage) -> bytes:
        file.seek(places[storage.key])
        return file.read(_bytes(storage))

    return found, read


def _next_pickle(file: BinaryIO) -> Any:
    """The object of the pickle that begins here; the file then is at its end."""
    return _next(file, lenient=False)[0]


def _next(file: BinaryIO, lenient: bool) -> tuple[Any, dict[str, Storage]]:
    start = file.tell()
    for _ in pickletools.genops(file):
        pass
    end = file.tell()
    file.seek(start)
    return unpickle(file.read(end - start), lenient)


def _checked(found: Any) -> dict[str, Tensor]:
    """The object of the file, which must be a dict of sound tensors."""
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise Refused(f"it holds a {kind}, and a dict of tensors is wanted")
    for name, tensor in found.items():
        if not isinstance(name, str):
            kind = type(name).__name__
            raise Refused(
                f"a {kind} is the name of an entry, and a dict from names to tensors "
                "is wanted"
            )
        if not isinstance(tensor, Tensor):
            raise Refused(
                f"its entry {name!r} is no tensor, and a dict of tensors is wanted; "
                "let torch load it and save the state dict inside"
            )
        check_tensor(name, tensor)
    return found


def _array(tensor: Tensor, data: bytes) -> np.ndarray:
    """A view of the storage's bytes: what a tensor repeats takes no memory."""
    storage = tensor.storage
    dtype = jnp.dtype(storage.dtype)
    if len(data) != _bytes(storage):
        raise EOFError(f"storage {storage.key} is cut off")
    numbers = np.frombuffer(data, dtype.newbyteorder("<"))
    return np.lib.stride_tricks.as_strided(
        numbers[storage.start + tensor.offset :],
        tuple(tensor.size),
        [step * dtype.itemsize for step in tensor.stride],
        writeable=False,
    )


def _bytes(storage: Storage) -> int:
    return storage.count * jnp.dtype(storage.dtype).itemsize
