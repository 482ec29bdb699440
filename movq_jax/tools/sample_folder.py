"""The folder of `movq sample`: what is in it, and whether a command may go on there."""

import csv
import io
import itertools
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from movq_jax.atomic import check_writable, replacing, write_text
from movq_jax.errors import UserError
from movq_jax.tools import command
from movq_jax.tools.files import output_folder

SETTINGS = "settings.json"


class SampleFolder:
    """`samples/000000.png`, ..., and the settings that all of them were drawn with."""

    def __init__(self, text: str) -> None:
        """Name the folder; it need not exist yet.

        Raises:
            UserError: it is a file, or cannot be written to.
        """
        self.path = output_folder(text)
        check_writable(self.path / SETTINGS)
        check_writable(self.image(0).parent / ".probe")

    def image(self, number: int) -> Path:
        """Return where an image goes."""
        return self.path / "samples" / f"{number:06d}.png"

    def strip(self, number: int, suffix: str) -> Path:
        """Return where the picture goes of how an image came to be."""
        return self.path / "strips" / f"{number:06d}{suffix}"

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Note the settings, or see that they are those of the images already there.

        Raises:
            UserError: they are not; the message has the difference.
        """
        place = self.path / SETTINGS
        now = json.loads(command.to_json(settings))
        if place.exists():
            then = _read(place)
            differences = [
                f"{key} was {_short(then.get(key))}, now {_short(now.get(key))}"
                for key in sorted({*then, *now})
                if then.get(key) != now.get(key)
            ]
            if differences and (self.numbers() or self._others()):
                raise UserError(
                    f"--output={self.path} holds images of other settings "
                    f"({'; '.join(differences)}): choose another folder, or delete it"
                )
            if differences:  # those of a run that was stopped before its first image
                write_text(place, command.to_json(now) + "\n")
            return
        there = self._others()
        if self.image(0).parent.exists():
            there.append(self.image(0).parent)
        if there:
            raise UserError(
                f"--output={self.path} has {there[0].name} and no {SETTINGS}, so "
                "nothing tells how its images were drawn: choose another folder"
            )
        write_text(place, command.to_json(now) + "\n")

    def _others(self) -> list[Path]:
        """Return what there is of the command's results besides the images."""
        names = ("grid.png", "labels.csv", "samples.npz")
        ours = [*(self.path / name for name in names), self.strip(0, "").parent]
        return [path for path in ours if path.exists()]

    def numbers(self) -> set[int]:
        """Return the numbers of the images that are there."""
        if not self.image(0).parent.is_dir():
            return set()
        names = (Path(entry.name) for entry in os.scandir(self.image(0).parent))
        return {
            int(name.stem)
            for name in names
            if name.suffix == ".png" and name.stem.isdecimal()
        }

    def missing(self, count: int) -> list[int]:
        """Return which of the first `count` images are not there."""
        there = self.numbers()
        return [number for number in range(count) if number not in there]

    def whole(self, count: int) -> int:
        """Return how many images from the first on are there, `count` at least."""
        there = self.numbers()
        return next(n for n in itertools.count(count) if n not in there)

    def read(self, number: int) -> np.ndarray:
        """Return an image, uint8 [H, W, 3].

        Raises:
            UserError: the file is damaged.
        """
        path = self.image(number)
        try:
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError) as error:
            raise UserError(
                f"{path} cannot be read: delete it, and the same command draws it again"
            ) from error

    def write_labels(self, labels: Sequence[int], names: Sequence[str]) -> None:
        """Write `labels.csv`: a line an image."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", "label", "class"])
        for number, label in enumerate(labels):
            name = names[label] if names else ""
            writer.writerow([self.image(number).name, label, name])
        write_text(self.path / "labels.csv", text.getvalue())

    def write_npz(self, count: int, labels: Sequence[int] | None) -> Path:
        """Write `samples.npz` as ADM's evaluation reads it, an image at a time.

        `arr_0` is uint8 [N, H, W, 3]; `arr_1` are the labels, int64 [N].

        Raises:
            UserError: an image is damaged, or the file cannot be written.
        """
        path = self.path / "samples.npz"
        first = self.read(0)
        with (
            replacing(path) as temporary,
            zipfile.ZipFile(temporary, "w") as archive,
        ):
            images = (self.read(number) for number in range(count))
            _write_array(archive, "arr_0", (count, *first.shape), np.uint8, images)
            if labels is not None:
                values = iter([np.asarray(labels, np.int64)])
                _write_array(archive, "arr_1", (count,), np.int64, values)
        return path


def _write_array(
    archive: zipfile.ZipFile,
    name: str,
    shape: tuple[int, ...],
    dtype: type,
    parts: Iterator[np.ndarray],
) -> None:
    """Write an array of a npz, of which only a part is in memory at a time."""
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            if part.size and part.shape not in (shape, shape[1:]):
                raise UserError(
                    f"the images have different sizes, {list(part.shape)} and "
                    f"{list(shape[1:])}: delete the folder's images"
                )
            file.write(np.ascontiguousarray(part, dtype).tobytes())


def _read(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path} was not written by `movq sample`")
    return settings


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
