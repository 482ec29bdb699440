"""A table of the numbers of each image, for other programs."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from movq_jax.atomic import replacing


def write_csv(
    path: Path, names: Sequence[str], columns: Mapping[str, Sequence[float]]
) -> None:
    """Write a line an image: its name, and its number of each metric.

    Args:
        path: of the file.
        names: of the images.
        columns: of each metric as many numbers; `inf` and `nan` are written so.

    Raises:
        UserError: the place cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", *columns])
    writer.writerows(zip(names, *columns.values(), strict=True))
    with replacing(path) as temporary:
        # The bytes of the file's name, also where they are no UTF-8.
        temporary.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))
