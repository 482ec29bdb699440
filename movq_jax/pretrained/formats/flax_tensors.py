"""The tensors of a Flax checkpoint: each is accounted for."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from movq_jax.errors import UserError
from movq_jax.pretrained.formats.accounting import check_account

Shape = tuple[int, ...]
Read = Callable[[str], np.ndarray]

_LISTED = 10  # names of a kind in an error message


class FlaxTensors:
    """The tensors of a checkpoint by their names within 'params'.

    The scale and bias of a norm that are stored as [1, 1, 1, C] count as [C].

    Args:
      shapes: name -> shape, of all tensors of the file; all names begin with 'params/',
        or none does.
      read: name -> array.
      what: the model that it is to be, for error messages.

    Raises:
      UserError: a tensor is there twice, within 'params' and beside it.
    """

    def __init__(self, shapes: Mapping[str, Shape], read: Read, what: str) -> None:
        self._what, self._read = what, read
        self._full = {name.removeprefix("params/"): name for name in shapes}
        twice = [name for name in shapes if self._full.get(name, name) != name]
        if twice:
            raise UserError(
                f"the checkpoint is no {what}: {len(twice)} of its tensors are there "
                f"twice, within 'params' and beside it ({_some(twice)})"
            )
        self._shapes = {
            name: _squeezed(name, tuple(shapes[full]))
            for name, full in self._full.items()
        }

    def shape(self, name: str, ndim: int) -> Shape:
        """Of a tensor that must be there, with that many axes.

        Raises:
          UserError: it is not, or has others.
        """
        if name not in self._shapes:
            raise UserError(
                f"the checkpoint is no {self._what}: it has no {name}, but "
                f"{_some(self._shapes) or 'nothing at all'}"
            )
        shape = self._shapes[name]
        if len(shape) != ndim or 0 in shape:
            raise UserError(
                f"the checkpoint is no {self._what}: its {name} has the shape "
                f"{list(shape)}, not one of {ndim} axes"
            )
        return shape

    def count(self, start: str) -> int:
        """How many different modules have names that begin so."""
        return len({name.split("/")[start.count("/")] for name in self._named(start)})

    def check(self, expected: Mapping[str, Shape]) -> None:
        """Exactly the tensors of `expected` are there, name -> shape.

        Raises:
          UserError: others, or not all, or with other shapes.
        """
        check_account(expected, self._shapes)

    def read(self, name: str) -> np.ndarray:
        """The array, float32.

        Raises:
          UserError: it has numbers that are not finite.
        """
        array = np.asarray(self._read(self._full[name]), np.float32)
        if not np.isfinite(array).all():
            raise UserError(
                f"there are numbers that are not finite in {name}: get the file again"
            )
        return array.reshape(self._shapes[name])

    def _named(self, start: str) -> Iterable[str]:
        return (name for name in self._shapes if name.startswith(start))


def _squeezed(name: str, shape: Shape) -> Shape:
    of_norm = name.endswith(("/scale", "/bias")) and shape[:-1] == (1, 1, 1)
    return shape[-1:] if of_norm else shape


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
