"""Images that are called by their number in the dataset, such as `00042.png`."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from movq_jax.data.builders.archives import File
from movq_jax.data.images import IMAGE_SUFFIXES
from movq_jax.errors import UserError


def by_number(
    files: Mapping[str, File], pattern: re.Pattern, place: object
) -> dict[int, tuple[str, File]]:
    """Return number -> (name without folders, file) of the images among `files`.

    Args:
        files: name, `/` between its folders -> file.
        pattern: what a whole name looks like, without the suffix; its group `number`
            is the number.
        place: where they lie, for errors.

    Raises:
        UserError: two images have the same number.
    """
    images: dict[int, tuple[str, File]] = {}
    for name, file in files.items():
        stem, dot, suffix = name.rpartition(".")
        match = pattern.fullmatch(stem)
        if not match or dot + suffix.lower() not in IMAGE_SUFFIXES:
            continue
        number = int(match["number"])
        if number in images:
            raise UserError(
                f"{place} has two images of number {number}, {images[number][1]} and "
                f"{file}: remove one"
            )
        images[number] = (PurePosixPath(name).name, file)
    return images
