"""Classes of a prior: names as numbers, and labels for many images."""

from collections.abc import Sequence

import numpy as np

from movq_jax.errors import UserError
from movq_jax.families import closest

SHOWN = 12  # names in an error message at most


def class_numbers(
    wanted: Sequence[str | int], names: Sequence[str], num_classes: int
) -> list[int]:
    """The number of each class, for its name or its number.

    Args:
      wanted: a name (upper and lower case are the same), or a number. Text is a number
        only where no class has that name; an int is never a name.
      names: of the classes; empty where they have none.
      num_classes: how many there are, 0 for an unconditional prior.

    Raises:
      UserError: there is no such class, or there are none; the message has the nearest.
    """
    if not num_classes:
        raise UserError(
            "this prior is unconditional: it was trained without classes, so none can "
            "be asked for"
        )
    numbers = {name.casefold(): number for number, name in enumerate(names)}
    return [_number(item, numbers, names, num_classes) for item in wanted]


def split_names(text: str, names: Sequence[str]) -> list[str]:
    """The classes in a list with commas, of which names may have some, too.

    Example:
      >>> split_names("cat, goose, grey,7", ["cat", "dog", "goose, grey"])
      ['cat', 'goose, grey', '7']
    """
    known = {name.casefold() for name in names}
    parts, found = text.split(","), []
    while parts:
        # The longest name that the next parts make; a part alone where there is none.
        sizes = range(len(parts), 1, -1)
        joined = (size for size in sizes if _joined(parts[:size]) in known)
        size = next(joined, 1)
        found.append(",".join(parts[:size]).strip())
        parts = parts[size:]
    return found


def _joined(parts: Sequence[str]) -> str:
    return ",".join(parts).strip().casefold()


def balanced_labels(
    classes: Sequence[int], numbers: np.ndarray, *, seed: int = 0
) -> np.ndarray:
    """Labels of images by their numbers: balanced and shuffled.

    Of C classes, images 0 to C - 1 have each once, images C to 2 C - 1 again, and so
    on, in an order that depends on the seed and the number of the run alone. So an
    image has the same label however many are drawn, and among the first n there are
    never two more of one class than of another.

    Args:
      classes: their numbers.
      numbers: of the images, from 0, [n].
      seed: from 0.

    Returns:
      int32 [n].

    Raises:
      UserError: there is no class.
    """
    if not len(classes):
        raise UserError("no class is named to draw from: name one, or leave it out")
    runs, places = np.divmod(numbers, len(classes))
    different, which = np.unique(runs, return_inverse=True)
    shuffled = [
        np.random.default_rng([seed, r]).permutation(classes) for r in different
    ]
    return np.asarray(shuffled, np.int32).reshape(-1, len(classes))[which, places]


def _number(
    item: str | int, numbers: dict[str, int], names: Sequence[str], num_classes: int
) -> int:
    text = str(item).strip()
    if isinstance(item, str) and text.casefold() in numbers:
        return numbers[text.casefold()]
    if text.isdecimal() and int(text) < num_classes:
        return int(text)
    known = f"numbers 0 to {num_classes - 1}"
    if text.lstrip("-").isdecimal() or not names:
        raise UserError(f"there is no class {text}: give {known}")
    meant = closest(text.casefold(), numbers)
    rest = ", ..." if len(names) > SHOWN else ""
    listed = ", ".join(names[:SHOWN]) + rest
    if meant:
        hint = f"did you mean {names[numbers[meant]]!r}? Known: {listed}"
    else:
        hint = f"give {known}, or a name: {listed}"
    raise UserError(f"there is no class {text!r}; {hint}")
