"""Safetensors, read tensor by tensor, of one file or of several with an index.

The format: a length in 8 bytes, that many bytes of JSON (name -> dtype, shape, the
numbers' first and last byte), the numbers. The safetensors package maps a whole file
into memory, where what has been read counts twice; so it is read here.
"""

import contextlib
import json
import math
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from movq_jax.pretrained.refusals import Refused

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
_METADATA = "__metadata__"
_LONGEST_HEADER = 100_000_000  # bytes, as the format's own library has it


class _Tensor(NamedTuple):
    file: BinaryIO
    dtype: str
    shape: tuple[int, ...]
    start: int  # in the file


class SafetensorsSource:
    """An open file of safetensors.

    Raises (all methods):
      Refused, or any of `refusals.DAMAGED`.
    """

    def __init__(self, file: BinaryIO):
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        if 8 + length > size:
            raise EOFError("its header is cut off")
        header = json.loads(file.read(length), object_pairs_hook=_once)
        if not isinstance(header, dict):
            raise ValueError("a header that is no table")
        header.pop(_METADATA, None)
        first = 8 + length
        self.tree = {n: _tensor(file, n, e, first) for n, e in header.items()}
        end = first
        for tensor in sorted(self.tree.values(), key=lambda tensor: tensor.start):
            if tensor.start != end:
                raise ValueError("tensors that overlap, or numbers of none")
            end += _bytes(tensor)
        if end > size:
            raise EOFError(f"{size} bytes of {end} are there: it is cut off")
        if end < size:
            raise ValueError(f"{size - end} bytes too many")

    def is_tensor(self, value: Any) -> bool:
        """Whether a value of the tree is a tensor."""
        return isinstance(value, _Tensor)

    def check(self, name: str, tensor: _Tensor) -> None:
        """Nothing more: the header was checked whole."""

    def read(self, tensor: _Tensor) -> np.ndarray:
        """The numbers of a tensor."""
        tensor.file.seek(tensor.start)
        array = np.empty(tensor.shape, jnp.dtype(tensor.dtype))
        # A memoryview of bfloat16 does not exist, of its bytes it does.
        if tensor.file.readinto(array.reshape(-1).view(np.uint8)) != array.nbytes:
            raise EOFError("it was cut off while it was read")
        return array


class ShardedSource:
    """The files that an index names; they lie beside it.

    Raises (all methods):
      as `SafetensorsSource`.
    """

    def __init__(self, index: BinaryIO, path: Path, stack: contextlib.ExitStack):
        """`stack` closes the files; `path` is the index's."""
        table = json.load(index)
        places = table.get("weight_map") if isinstance(table, dict) else None
        if not isinstance(places, dict) or not places:
            raise Refused("it is no index of safetensors: it has no 'weight_map'")
        found = {}
        for name in dict.fromkeys(places.values()):
            if not isinstance(name, str) or Path(name).name != name:
                raise Refused(f"its 'weight_map' names {name!r}, which is no file here")
            if not (path.parent / name).is_file():
                raise Refused(f"the file {name} that it names is missing beside it")
            file = stack.enter_context((path.parent / name).open("rb"))
            try:
                found[name] = SafetensorsSource(file).tree
            except (EOFError, ValueError, struct.error) as error:
                raise Refused(
                    f"the file {name} that it names is damaged; get it again ({error})"
                ) from error
        self.tree = {}
        for tensor, name in places.items():
            if tensor not in found[name]:
                raise Refused(f"{tensor} is not in {name}, where it should be")
            self.tree[tensor] = found[name][tensor]

    is_tensor = SafetensorsSource.is_tensor
    check = SafetensorsSource.check
    read = SafetensorsSource.read


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name that comes twice")
    return table


def _tensor(file: BinaryIO, name: str, entry: Any, first: int) -> _Tensor:
    """What the header says of a tensor; the numbers begin at byte `first`."""
    dtype, shape = entry["dtype"], entry["shape"]
    start, end = entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise Refused(f"its tensor {name!r} has the type {dtype!r:.40}, not read here")
    if any(type(number) is not int or number < 0 for number in (start, end, *shape)):
        raise ValueError(f"{name!r} has no shape")
    tensor = _Tensor(file, _DTYPES[dtype], tuple(shape), first + start)
    if end - start != _bytes(tensor):
        raise ValueError(f"{name!r} has {end - start} bytes, not {_bytes(tensor)}")
    return tensor


def _bytes(tensor: _Tensor) -> int:
    return math.prod(tensor.shape) * jnp.dtype(tensor.dtype).itemsize
