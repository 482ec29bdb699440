"""The pickles in files that `torch.save` wrote, unpickled without running anything.

A pickle is a program. Here it may call what builds a dict or describes a tensor; any
other class or function that it asks for is refused, or, where a file is known to hold
more than tensors, stands in as a thing that swallows whatever is done to it.
"""

import io
import math
import pickle
import pickletools
from typing import Any, NamedTuple

from movq_jax.pretrained.refusals import Refused

DTYPES = {
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
# Files of checkpoints name a hundred classes at most, and each costs a kilobyte here.
_MOST_PLACEHOLDERS = 10_000
# Nothing would be run. But no training writes these, so the file is not what it seems.
_DANGEROUS = frozenset(
    "_ctypes _io _posixsubprocess asyncio bdb cffi code codeop commands ctypes imp "
    "importlib io linecache marshal mmap multiprocessing nt os pdb pip pkgutil popen2 "
    "posix profile pty pydoc runpy shutil signal site socket subprocess sys tempfile "
    "timeit webbrowser winreg zipimport".split()
)
_HARMLESS_BUILTINS = frozenset(
    "bool bytearray bytes complex dict float frozenset int list long object range set "
    "slice str tuple type unicode xrange Ellipsis NotImplemented NoneType".split()
)

# No message below has the repr of an object of unknown type: a pickle of 200 bytes can
# describe tuples within tuples whose repr fills the memory.


class Storage(NamedTuple):
    """A run of numbers in the file, `count` of them, or a part of it."""

    key: str
    dtype: str
    count: int  # in the file
    start: int  # of the part
    length: int  # of the part


class Tensor(NamedTuple):
    """What a file says of a tensor; in elements; `check_tensor` says if it can be."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""
        return tuple(self.size)

    @property
    def dtype(self) -> str:
        """The name of the numbers' type."""
        return self.storage.dtype


class Dict(dict):
    """Stands for OrderedDict, without attributes that a pickle could set."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        """Leave out what torch hangs on a state dict: versions of its modules."""


class Placeholder:
    """Stands for an object that is not built, of the class or function `asked`."""

    __slots__ = ()
    asked = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Placeholder":
        """Swallow what the object would be made from."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        """See `__new__`."""

    def _swallow(self, *args: Any) -> None:
        """What a pickle does to an object: its state, items and elements."""

    __setstate__ = __setitem__ = append = extend = add = _swallow

    def __call__(self, *args: Any, **kwargs: Any) -> "Placeholder":
        """Where an object that was not built is called, another one is not built."""
        return self


class _Rebuild:
    """Stands for a function of torch; an object without attributes, as above."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *_) -> Any:
        """What follows are requires_grad and hooks: of no use here, and not called."""
        if isinstance(storage, Placeholder):
            return storage  # numbers of a kind that is not read
        return Tensor(storage, offset, size, stride)


class _RebuildParameter:
    __slots__ = ()

    def __call__(self, tensor: Any, *_) -> Any:
        return tensor


_ALLOWED = {
    ("collections", "OrderedDict"): Dict,
    ("torch._utils", "_rebuild_tensor"): _Rebuild(),  # before torch 0.4: VGG16
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
} | {("torch", name): dtype for name, dtype in DTYPES.items()}


class _Unpickler(pickle.Unpickler):
    """Of tensors alone; `storages` are those that it met, by their keys."""

    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            return self.other_class(module, name)

    def other_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        raise Refused(
            f"it asks for {asked!r}, and only files of tensors are read, whose "
            "code is never run; if you trust it, let torch load it and save its "
            "state dict"
        )

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _device, count, *view = pid
        if any(type(word) is not str for word in (kind, dtype, key)):
            return self.other_storage(kind, dtype, key)
        if kind != "storage" or dtype not in DTYPES.values():
            raise ValueError(f"a reference to {kind!r}, {dtype!r}")
        start, length = 0, count
        if view and view[0] is not None:
            _, start, length = view[0]
        numbers = (count, start, length)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError(f"storage {key} has no size")
        storage = Storage(key, dtype, count, start, length)
        whole = self.storages.setdefault(key, storage)
        if (dtype, count) != (whole.dtype, whole.count):
            raise ValueError(f"storage {key} is described in two ways")
        return storage

    def other_storage(self, kind: Any, dtype: Any, key: Any) -> Any:
        types = ", ".join(type(word).__name__ for word in (kind, dtype, key))
        raise ValueError(f"a reference of {types} instead of text")


class _LenientUnpickler(_Unpickler):
    """Of tensors among other objects: of each of these a `Placeholder` is left."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self._placeholders: dict[str, type[Placeholder]] = {}

    def other_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if _is_dangerous(module, name):
            raise Refused(
                f"it asks for {asked!r}, which no file of weights needs and which can "
                "do harm to whoever loads it; it was not run: do not use this file"
            )
        if asked not in self._placeholders:
            if len(self._placeholders) == _MOST_PLACEHOLDERS:
                raise ValueError("a pickle of too many classes")
            fields = {"__slots__": (), "asked": asked}
            self._placeholders[asked] = type("Placeholder", (Placeholder,), fields)
        return self._placeholders[asked]

    def persistent_load(self, pid: Any) -> Any:
        if type(pid[0]) is str and pid[0] == "module":
            _, kind, *_source = pid
            return kind  # a class of modules, with its source code behind it
        return super().persistent_load(pid)

    def other_storage(self, kind: Any, dtype: Any, key: Any) -> Any:
        if isinstance(dtype, type) and issubclass(dtype, Placeholder):
            return dtype()
        return super().other_storage(kind, dtype, key)


def _is_dangerous(module: str, name: str) -> bool:
    root, *through = [module.partition(".")[0], *name.split(".")[:-1]]
    if root in ("builtins", "__builtin__"):
        return name not in _HARMLESS_BUILTINS
    return root in _DANGEROUS or any(part in _DANGEROUS for part in through)


def unpickle(data: bytes, lenient: bool = False) -> tuple[Any, dict[str, Storage]]:
    """The object that a pickle describes, made of the allowed parts.

    Args:
      data: one pickle.
      lenient: other classes than tensors' become a `Placeholder`, and are not refused.

    Returns:
      (object, the storages it refers to by their keys).

    Raises:
      Refused: it asks for something that is not built here.
      ...: any of `refusals.DAMAGED`.
    """
    for opcode, argument, position in pickletools.genops(data):
        if opcode.name.startswith("EXT"):
            raise ValueError("a pickle with extensions")
        # Places in the memo are given out one by one; C code allocates up to the last.
        if opcode.name.endswith("PUT") and int(argument) > position:
            raise ValueError("a pickle with a wild place in its memo")
    unpickler = (_LenientUnpickler if lenient else _Unpickler)(data)
    return unpickler.load(), unpickler.storages


def check_tensor(name: str, tensor: Tensor) -> None:
    """That the tensor lies within its storage, and that within the file's.

    Raises:
      ValueError: it does not.
    """
    storage = tensor.storage
    if not isinstance(storage, Storage):
        raise ValueError(f"{name} has no storage")
    numbers = (tensor.offset, *tensor.size, *tensor.stride)
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"the shape of {name} is none")
    steps = zip(tensor.size, tensor.stride, strict=True)
    reach = sum((side - 1) * stride for side, stride in steps) + 1
    last = tensor.offset + (reach if math.prod(tensor.size) else 0)
    if last > storage.length or storage.start + storage.length > storage.count:
        raise ValueError(f"{name} reaches out of its storage")
