"""Tensors from files that `torch.save` wrote, without torch, and without trust.

Two containers are read: the zip archive of torch 1.6 and later, and the stream of
pickles before it. Both describe their tensors in a pickle, which is a program: here it
may call what builds a dict or describes a tensor, and nothing else.
"""

import contextlib
import io
import math
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from movq_jax.errors import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_DTYPES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_BIG_ENDIAN = "its numbers are big-endian, which is not read"
_DAMAGED = (  # what zipfile, pickletools, pickle and the code below raise
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
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            container = _zip_archive if is_zip else _legacy_stream
            with container(file) as (tensors, read):
                return _arrays(tensors, prefix, read)
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        else:
            reason = f"it is damaged, or no file of torch.save ({error})"
        raise UserError(f"cannot read {path}: {reason}") from error
    except _Refused as refused:
        raise UserError(f"cannot read {path}: {refused}") from refused


def _arrays(
    tensors: dict[str, "_Tensor"],
    prefix: str,
    read: Callable[["_Storage"], bytes],
) -> dict[str, np.ndarray]:
    storages, arrays = {}, {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            key = tensor.storage.key
            if key not in storages:
                storages[key] = read(tensor.storage)
            arrays[name] = _array(tensor, storages[key])
    return arrays


# No message below has the repr of an object of unknown type: a pickle of 200 bytes can
# describe tuples within tuples whose repr fills the memory.


class _Refused(Exception):
    """A whole file, but not one of tensors alone."""


class _Storage(NamedTuple):
    """A run of numbers in the file, `count` of them, or a part of it."""

    key: str
    dtype: str
    count: int  # in the file
    start: int  # of the part
    length: int  # of the part


class _Tensor(NamedTuple):
    """What a file says of a tensor; in elements; `_check_bounds` says if it can be."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Dict(dict):
    """Stands for OrderedDict, without attributes that a pickle could set."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        """Leave out what torch hangs on a state dict: versions of its modules."""


class _Rebuild:
    """Stands for a function of torch; an object without attributes, as above."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *_) -> Any:
        """What follows are requires_grad and hooks: of no use here, and not called."""
        return _Tensor(storage, offset, size, stride)


class _RebuildParameter:
    __slots__ = ()

    def __call__(self, tensor: Any, *_) -> Any:
        return tensor


_ALLOWED = {
    ("collections", "OrderedDict"): _Dict,
    ("torch._utils", "_rebuild_tensor"): _Rebuild(),  # before torch 0.4: VGG16
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
} | {("torch", name): dtype for name, dtype in _DTYPES.items()}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            asked = f"{module}.{name}"
            raise _Refused(
                f"it asks for {asked!r}, and only files of tensors are read, whose "
                "code is never run; if you trust it, let torch load it and save its "
                "state dict"
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, count, *view = pid
        if any(type(word) is not str for word in (kind, dtype, key)):
            types = ", ".join(type(word).__name__ for word in (kind, dtype, key))
            raise ValueError(f"a reference of {types} instead of text")
        if kind != "storage" or dtype not in _DTYPES.values():
            raise ValueError(f"a reference to {kind!r}, {dtype!r}")
        start, length = 0, count
        if view and view[0] is not None:
            _, start, length = view[0]
        numbers = (count, start, length)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError(f"storage {key} has no size")
        return _Storage(key, dtype, count, start, length)


def _unpickle(data: bytes) -> Any:
    """The object that a pickle describes, made of the allowed parts."""
    for opcode, argument, position in pickletools.genops(data):
        if opcode.name.startswith("EXT"):
            raise ValueError("a pickle with extensions")
        # Places in the memo are given out one by one; C code allocates up to the last.
        if opcode.name.endswith("PUT") and int(argument) > position:
            raise ValueError("a pickle with a wild place in its memo")
    return _Unpickler(io.BytesIO(data), encoding="utf-8").load()


ReadStorage = Callable[[_Storage], bytes]
Contents = tuple[dict[str, _Tensor], ReadStorage]


@contextlib.contextmanager
def _zip_archive(file: BinaryIO) -> Iterator[Contents]:
    """The tensors of a zip archive, and what reads their storages."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickles = [n for n in names if n.count("/") == 1 and n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("a zip archive without one data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        order = root + "byteorder"
        if order in names and _member(archive, order) != b"little":
            raise _Refused(_BIG_ENDIAN)

        def read(storage: _Storage) -> bytes:
            return _member(archive, f"{root}data/{storage.key}", _bytes(storage))

        yield _checked(_unpickle(_member(archive, pickles[0]))), read


def _member(archive: zipfile.ZipFile, name: str, size: int | None = None) -> bytes:
    """A file of the archive, of that size. What is not compressed cannot swell."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    if size is not None and info.file_size != size:
        raise ValueError(f"{name} has {info.file_size} bytes instead of {size}")
    return archive.read(info)


@contextlib.contextmanager
def _legacy_stream(file: BinaryIO) -> Iterator[Contents]:
    """The tensors of a stream of pickles, and what reads the storages after them."""
    if _next_pickle(file) != _LEGACY_MAGIC or _next_pickle(file) != _LEGACY_PROTOCOL:
        raise ValueError("it begins otherwise")
    if _next_pickle(file)["little_endian"] is not True:
        raise _Refused(_BIG_ENDIAN)
    tensors = _checked(_next_pickle(file))
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
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

    def read(storage: _Storage) -> bytes:
        file.seek(places[storage.key])
        return file.read(_bytes(storage))

    yield tensors, read


def _next_pickle(file: BinaryIO) -> Any:
    """The object of the pickle that begins here; the file then is at its end."""
    start = file.tell()
    for _ in pickletools.genops(file):
        pass
    end = file.tell()
    file.seek(start)
    return _unpickle(file.read(end - start))


def _checked(found: Any) -> dict[str, _Tensor]:
    """The object of the file, which must be a dict of sound tensors."""
    if not isinstance(found, dict):
        kind = type(found).__name__.strip("_")
        raise _Refused(f"it holds a {kind}, and a dict of tensors is wanted")
    described = {}
    for name, tensor in found.items():
        if not isinstance(name, str):
            kind = type(name).__name__.strip("_")
            raise _Refused(
                f"a {kind} is the name of an entry, and a dict from names to tensors "
                "is wanted"
            )
        if not isinstance(tensor, _Tensor):
            raise _Refused(
                f"its entry {name!r} is no tensor, and a dict of tensors is wanted; "
                "let torch load it and save the state dict inside"
            )
        _check_bounds(name, tensor)
        storage = tensor.storage
        whole = (storage.dtype, storage.count)
        if described.setdefault(storage.key, whole) != whole:
            raise ValueError(f"storage {storage.key} is described in two ways")
    return found


def _check_bounds(name: str, tensor: _Tensor) -> None:
    """That the tensor lies within its storage, and that within the file's."""
    storage = tensor.storage
    if not isinstance(storage, _Storage):
        raise ValueError(f"{name} has no storage")
    numbers = (tensor.offset, *tensor.size, *tensor.stride)
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"the shape of {name} is none")
    steps = zip(tensor.size, tensor.stride, strict=True)
    reach = sum((side - 1) * stride for side, stride in steps) + 1
    last = tensor.offset + (reach if math.prod(tensor.size) else 0)
    if last > storage.length or storage.start + storage.length > storage.count:
        raise ValueError(f"{name} reaches out of its storage")


def _array(tensor: _Tensor, data: bytes) -> np.ndarray:
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


def _bytes(storage: _Storage) -> int:
    return storage.count * jnp.dtype(storage.dtype).itemsize
