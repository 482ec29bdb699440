"""Every tensor of a file has its place, and every place its tensor, or it fails."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import numpy as np

from movq_jax.errors import UserError
from movq_jax.pretrained.formats.vqgan_names import Place, their_shape, to_ours

_LISTED = 10
_FLOATS = ("float16", "bfloat16", "float32", "float64")


def check_account(
    wanted: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str] | None = None,
) -> None:
    """A file has exactly the tensors that are wanted, in their shapes, of floats.

    Args:
      wanted: name -> shape.
      shapes: of the file.
      dtypes: of the file, if they are to be floats.

    Raises:
      UserError: it has not. Counted, and up to 10 named of each: what is missing,
        unexpected, of another shape, and of another type.
    """
    misshapen = [
        f"{name} is {list(shapes[name])} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in shapes and tuple(shapes[name]) != tuple(shape)
    ]
    no_floats = [
        f"{name} is {dtypes[name]}"
        for name in wanted
        if dtypes and name in dtypes and dtypes[name] not in _FLOATS
    ]
    faults = [
        _listed("missing", [name for name in wanted if name not in shapes]),
        _listed("unexpected", [name for name in shapes if name not in wanted]),
        _listed("misshapen", misshapen),
        _listed("of no floats", no_floats),
    ]
    faults = [fault for fault in faults if fault]
    if faults:
        raise UserError(
            "the tensors are not those of the model that the file seems to hold: "
            f"{'; '.join(faults)}: get it again, or see whether it is of another model"
        )


def _listed(what: str, entries: list[str]) -> str:
    if not entries:
        return ""
    more = f", and {len(entries) - _LISTED} more" if len(entries) > _LISTED else ""
    noun = "tensor is" if len(entries) == 1 else "tensors are"
    return f"{len(entries)} {noun} {what} ({', '.join(entries[:_LISTED])}{more})"


def filled(
    places: Mapping[str, Place], read: Callable[[str], np.ndarray]
) -> dict[str, Any]:
    """Our tree of parameters, nested, float32, read one tensor after the other.

    Args:
      places: our parameter -> where it lies in the file.
      read: name in the file -> array.

    Raises:
      UserError: numbers are not finite; the first tensors that have such are named.
    """
    params, bad = {}, []
    for ours, place in places.items():
        array = to_ours(read(place.name), place.layout)
        array = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(array).all():
            bad.append(place.name)
        params[ours] = array
    if bad:
        raise UserError(
            f"there are numbers that are not finite: {_listed('damaged', bad)}; get "
            "the file again"
        )
    return flax.traverse_util.unflatten_dict(params, sep=".")


def their_shapes(
    places: Mapping[str, Place], ours: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Name in the file -> shape there, of parameters with the shapes of `ours`."""
    return {
        place.name: their_shape(tuple(ours[name].shape), place.layout)
        for name, place in places.items()
    }
