"""Trees of arrays as flax's `msgpack_serialize` writes them, read array by array.

The file is walked once: what is no array is taken as it is, of an array its place is
noted. Names of nested dicts are joined with '/'.
"""

import math
import os
import struct
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from movq_jax.pretrained.refusals import Refused

_ARRAY, _SCALAR = 1, 3  # flax's kinds of msgpack extensions
_CHUNKED = "__msgpack_chunked_array__"
_DEEPEST = 64
_DTYPES = frozenset(
    "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint64 uint32 uint16 "
    "uint8 bool".split()
)
_NUMBERS = {  # marks of numbers -> their form
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_LENGTHS = {  # marks of what has a length -> its kind, the form of the length
    0xC4: ("bytes", ">B"),
    0xC5: ("bytes", ">H"),
    0xC6: ("bytes", ">I"),
    0xC7: ("extension", ">B"),
    0xC8: ("extension", ">H"),
    0xC9: ("extension", ">I"),
    0xD9: ("text", ">B"),
    0xDA: ("text", ">H"),
    0xDB: ("text", ">I"),
    0xDC: ("list", ">H"),
    0xDD: ("list", ">I"),
    0xDE: ("dict", ">H"),
    0xDF: ("dict", ">I"),
}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


class _Bytes(NamedTuple):
    """A run of bytes in the file, not read."""

    start: int
    count: int


class _Array(NamedTuple):
    shape: tuple[int, ...]
    dtype: str
    pieces: tuple[_Bytes, ...]


class MsgpackSource:
    """An open file of flax.

    Raises (all methods):
      Refused, or any of `refusals.DAMAGED`.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        file.seek(0)
        self.tree = self._value(0)
        if file.tell() != self._size:
            raise ValueError("something follows behind the end")
        if not isinstance(self.tree, dict):
            raise Refused("it holds no dict of arrays")

    def is_tensor(self, value: Any) -> bool:
        """Whether a value of the tree is an array."""
        return isinstance(value, _Array)

    def check(self, name: str, tensor: _Array) -> None:
        """Nothing more: the file was walked to its end."""

    def read(self, tensor: _Array) -> np.ndarray:
        """The numbers of an array of the tree."""
        array = np.empty(tensor.shape, jnp.dtype(tensor.dtype))
        numbers, done = array.reshape(-1).view(np.uint8), 0
        for piece in tensor.pieces:
            self._file.seek(piece.start)
            part = numbers[done : done + piece.count]
            if self._file.readinto(part) != piece.count:
                raise EOFError("it was cut off while it was read")
            done += piece.count
        return array

    def _take(self, count: int) -> bytes:
        self._check_room(count)  # before so much is made room for
        return self._file.read(count)

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _pass(self, count: int) -> _Bytes:
        """Bytes that may be many: they stay in the file."""
        self._check_room(count)
        start = self._file.tell()
        self._file.seek(start + count)
        return _Bytes(start, count)

    def _value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError(f"more than {_DEEPEST} levels")
        mark = self._take(1)[0]
        if mark <= 0x7F:
            return mark
        if mark >= 0xE0:
            return mark - 0x100
        if mark <= 0xBF:  # short ones have their length in the mark
            kind = ("dict", "list", "text", "text")[(mark >> 4) - 8]
            return self._long(kind, mark & (0x1F if kind == "text" else 0x0F), depth)
        if mark in _CONSTANTS:
            return _CONSTANTS[mark]
        if mark in _NUMBERS:
            return self._number(_NUMBERS[mark])
        if 0xD4 <= mark <= 0xD8:
            return self._long("extension", 1 << (mark - 0xD4), depth)
        if mark not in _LENGTHS:
            raise ValueError(f"an unknown mark, {mark:#x}")
        kind, form = _LENGTHS[mark]
        return self._long(kind, self._number(form), depth)

    def _long(self, kind: str, length: int, depth: int) -> Any:
        """A value of that length: elements, entries or bytes."""
        if kind == "dict":
            return self._dict(length, depth)
        if kind == "list":
            self._check_room(length)
            return [self._value(depth + 1) for _ in range(length)]
        if kind == "text":
            return self._take(length).decode()
        if kind == "bytes":
            return self._pass(length)
        return self._extension(length, depth)

    def _check_room(self, count: int) -> None:
        """That so many bytes, or values of one byte at least, can follow."""
        if self._file.tell() + count > self._size:
            raise EOFError("it is cut off")

    def _dict(self, length: int, depth: int) -> Any:
        self._check_room(2 * length)
        table = {}
        for _ in range(length):
            name = self._value(depth + 1)
            if not isinstance(name, str):
                raise ValueError(f"a {type(name).__name__} as a name")
            if name in table:
                raise ValueError(f"the name {name!r:.40} twice")
            table[name] = self._value(depth + 1)
        return _joined(table) if _CHUNKED in table else table

    def _extension(self, length: int, depth: int) -> Any:
        code = self._number(">b")
        end = self._file.tell() + length
        if code not in (_ARRAY, _SCALAR):
            return self._pass(length)
        described = self._value(depth + 1)
        if self._file.tell() != end:
            raise ValueError("an array that does not end where it should")
        shape, dtype, numbers = described
        if isinstance(dtype, _Bytes):  # as a very old msgpack has texts
            self._file.seek(dtype.start)
            dtype = self._take(min(dtype.count, 40)).decode()
            self._file.seek(end)
        return _array(shape, dtype, (numbers,))


def _array(shape: Any, dtype: Any, pieces: tuple[Any, ...]) -> _Array:
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise Refused(f"an array has the type {dtype!r:.40}, which is not read")
    if any(type(side) is not int or side < 0 for side in shape):
        raise ValueError("an array has no shape")
    array = _Array(tuple(shape), dtype, pieces)
    wanted = math.prod(shape) * jnp.dtype(dtype).itemsize
    if not all(isinstance(piece, _Bytes) for piece in pieces):
        raise ValueError("an array has no numbers")
    if sum(piece.count for piece in pieces) != wanted:
        raise ValueError(f"an array of {wanted} bytes has another number of them")
    return array


def _joined(table: dict[str, Any]) -> _Array:
    """The array of more than a gigabyte that was written in pieces."""
    shape = [table["shape"][str(i)] for i in range(len(table["shape"]))]
    chunks = [table["chunks"][str(i)] for i in range(len(table["chunks"]))]
    dtypes = {chunk.dtype for chunk in chunks}
    if len(dtypes) != 1:
        raise ValueError("an array in pieces of several types")
    pieces = tuple(piece for chunk in chunks for piece in chunk.pieces)
    return _array(shape, dtypes.pop(), pieces)
