"""What is asked of a prior: how many images, of which classes, and what is given."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from movq_jax.errors import UserError
from movq_jax.pretrained.classes import class_numbers

MAX_SEED = 2**32 - 1
MAX_IMAGES = 2**31 - 1  # an image's number is an int32


def as_labels(
    labels: Any, num: int, names: Sequence[str], num_classes: int
) -> np.ndarray:
    """int32 [num] of a class for all images, or a class for each.

    A class is a name or a number; the number after the last class means "none".

    Raises:
      UserError: there is no such class, or there are too few or too many.
    """
    if isinstance(labels, (str, int, np.integer)):
        labels = [labels] * num
    if not isinstance(labels, (Sequence, np.ndarray)) and not hasattr(labels, "shape"):
        raise UserError(
            f"labels is {labels!r}; give a class by name or number, or one an image"
        )
    labels = [label.item() if hasattr(label, "item") else label for label in labels]
    if len(labels) != num:
        raise UserError(f"there are {len(labels)} labels for {num} images")
    if not num_classes:
        class_numbers(labels, names, num_classes)  # says that there are none
    asked = [label for label in labels if label != num_classes]
    numbers = iter(class_numbers(asked, names, num_classes))
    found = [label if label == num_classes else next(numbers) for label in labels]
    return np.asarray(found, np.int32)


def as_given(
    ids: Any, known: Any, num: int, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Indices that are given, and which of them are known, both [num, h, w, M].

    Args:
      ids: integers of that shape, or [h, w, M] for all images.
      known: bool, likewise.
      num: of images.
      shape: (h, w, M).

    Returns:
      ids, 0 where they are not known, and known.

    Raises:
      UserError: a shape or dtype is wrong, or only one of the two is given.
    """
    whole = (num, *shape)
    if ids is None and known is None:
        return np.zeros(whole, np.int32), np.zeros(whole, bool)
    if ids is None or known is None:
        raise UserError("give both `ids` and `known`, or neither")
    ids, known = np.asarray(ids), np.asarray(known)
    for name, array in (("ids", ids), ("known", known)):
        if array.shape not in (shape, whole):
            raise UserError(
                f"{name} must be {list(whole)} or {list(shape)}, not "
                f"{list(array.shape)}"
            )
    if known.dtype != bool:
        raise UserError(f"known must be bool, not {known.dtype}")
    ids, known = (np.broadcast_to(array, whole) for array in (ids, known))
    return np.where(known, ids, np.zeros((), ids.dtype)), known


def as_numbers(first: Any, num: int) -> np.ndarray:
    """int32 [num], the images' numbers: from `first` on, or `first` itself.

    Raises:
      UserError: a number is negative or too large, or there are too few or too many.
    """
    if isinstance(first, (Sequence, np.ndarray)):
        if len(first) != num:
            raise UserError(f"there are {len(first)} numbers for {num} images")
        for number in first:
            check_whole("a number of `first`", number, 0, MAX_IMAGES)
        return np.asarray(first, np.int32)
    check_whole("first", first, 0, MAX_IMAGES - num)
    return np.arange(first, first + num, dtype=np.int32)


def check_whole(name: str, value: Any, least: int, most: int) -> None:
    """`value` is a whole number from `least` to `most`.

    Raises:
      UserError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise UserError(f"{name} is {value!r}; give a whole number")
    if not least <= value <= most:
        raise UserError(
            f"{name} is {value}; give a whole number from {least} to {most}"
        )
