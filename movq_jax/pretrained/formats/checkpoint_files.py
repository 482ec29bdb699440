"""One way into the files of weights that others publish: names, shapes, then arrays.

    with open_checkpoint("last.ckpt") as checkpoint:
        checkpoint.shapes  # {'encoder.conv_in.weight': (128, 3, 3, 3), ...}
        checkpoint.read("encoder.conv_in.weight")

Read are safetensors (also in several files with an index), what `torch.save` wrote in
either container, and flax's msgpack. Nothing in a file is executed, and a tensor lies
in memory only from its `read` on.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from movq_jax.pretrained.formats.containers import Chosen, choose
from movq_jax.pretrained.formats.flax_msgpack import MsgpackSource
from movq_jax.pretrained.formats.recognising import recognise
from movq_jax.pretrained.formats.safetensors_files import (
    SafetensorsSource,
    ShardedSource,
)
from movq_jax.pretrained.refusals import as_user_errors
from movq_jax.pretrained.torch_files import TorchSource

_DAMAGED = "it is damaged or cut off; get it again"
_TO_FLOAT32 = ("float16", "bfloat16", "float64")


class Source(Protocol):
    """An open file of one format."""

    tree: dict[str, Any]  # names -> tensors, dicts like this one, or anything else

    def is_tensor(self, value: Any) -> bool:
        """Whether a value of the tree has `shape` and `dtype`, and can be read."""

    def check(self, name: str, tensor: Any) -> None:
        """Raises where the file does not have the tensor that it describes."""

    def read(self, tensor: Any) -> np.ndarray:
        """The numbers of a tensor of the tree, in its own dtype."""


_SOURCES: dict[str, Callable[[BinaryIO, Path, contextlib.ExitStack], Source]] = {
    "safetensors": lambda file, path, stack: SafetensorsSource(file),
    "index": lambda file, path, stack: ShardedSource(file, path, stack),
    "torch": lambda file, path, stack: TorchSource(file),
    "msgpack": lambda file, path, stack: MsgpackSource(file),
}


class CheckpointFile:
    """The tensors of an open file, one set of weights; a context manager.

    Attributes:
      path: of the file.
      kind: 'safetensors', 'torch' or 'msgpack'.
      part: which set of tensors of the file: '' for all of it, 'state_dict',
        'state_dict, averaged weights', ...
      shapes: name -> shape, in the file's order. Names are joined with dots as torch
        does, those of msgpack with '/'; prefixes of wrappers are gone, see
        `movq_jax.pretrained.formats.containers`.
      dtypes: name -> dtype in the file, 'float32', 'bfloat16', ...
      skipped: what the file holds besides, or groups of it -> why it is left out.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        chosen: Chosen,
        source: Source,
        stack: contextlib.ExitStack,
    ):
        self.path = path
        self.kind = kind
        self.part = chosen.part
        self.skipped = chosen.skipped
        self.shapes = {n: tuple(t.shape) for n, t in chosen.tensors.items()}
        self.dtypes = {n: str(t.dtype) for n, t in chosen.tensors.items()}
        self._tensors, self._source, self._stack = chosen.tensors, source, stack

    def __enter__(self) -> "CheckpointFile":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; arrays that were read stay."""
        self._stack.close()

    def read(self, name: str) -> np.ndarray:
        """The tensor of that name, from the file; it may be read-only.

        Floating point of other widths becomes float32; whole numbers and truth values
        stay as they are.

        Raises:
          KeyError: no tensor has that name.
          UserError: the file is damaged there.
        """
        tensor = self._tensors[name]
        with as_user_errors(self.path, _DAMAGED):
            array = self._source.read(tensor)
        if self.dtypes[name] not in _TO_FLOAT32:
            return array
        with np.errstate(over="ignore"):  # beyond float32 is infinite there
            return array.astype(np.float32)


def open_checkpoint(path: Path | str, averaged: bool = True) -> CheckpointFile:
    """Opens a file of weights; close it, or use it in a `with`.

    Args:
      path: of the file; of sharded safetensors the index (`*.safetensors.index.json`),
        or the folder with it.
      averaged: take the averaged weights where a training kept both.

    Raises:
      UserError: there is no such file, it is none of the known formats, it is damaged,
        it would run code, or it holds no tensors.
    """
    path, kind = recognise(Path(path).expanduser())
    with as_user_errors(path, _DAMAGED), contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        source = _SOURCES[kind](file, path, stack)
        chosen = choose(source.tree, source.is_tensor, kind, averaged)
        for name, tensor in chosen.tensors.items():
            source.check(name, tensor)
        kind = "safetensors" if kind == "index" else kind
        return CheckpointFile(path, kind, chosen, source, stack.pop_all())
