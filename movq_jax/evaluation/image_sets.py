"""Where images to be judged come from: files, an npz file, a split of a dataset.

All are alike: a `name` for people, a length, the `paths` they are read from,
`take(numbers)` for a part of them, and `items(refuse)`, which may be called again and
gives one entry for each image: its name and uint8 [H, W, 3], or None for one that could
not be read, after `refuse(name, reason)` was told. One image is in memory at a time.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from movq_jax.data.images import decode_image
from movq_jax.errors import UserError
from movq_jax.evaluation import npz_images
from movq_jax.regular_files import check_regular

Refuse = Callable[[str, str], None]
T = TypeVar("T")


class Item(NamedTuple):
    """An image with its name."""

    name: str
    image: np.ndarray  # uint8 [H, W, 3]


class ImageSet(Protocol):
    """What all sets of images have."""

    name: str
    paths: Sequence[Path]

    def __len__(self) -> int: ...

    def take(self, numbers: Sequence[int]) -> "ImageSet":
        """Return the images of these numbers, in their order."""
        ...

    def items(self, refuse: Refuse) -> Iterator[Item | None]:
        """Yield an entry for each image, in a fixed order."""
        ...


class FileImages:
    """Image files of any sizes.

    Attributes:
        name: of the set.
        paths: of the files.
    """

    def __init__(self, name: str, files: Sequence[tuple[Path, str]]) -> None:
        """Take files as (path, name), in the order in which they are to come."""
        self.name = name
        self.paths = [path for path, _ in files]
        self._names = [name for _, name in files]

    def __len__(self) -> int:
        return len(self.paths)

    def items(self, refuse: Refuse) -> Iterator[Item | None]:
        """Yield an entry for each file."""
        for path, name in zip(self.paths, self._names, strict=True):
            yield _read(name, lambda path=path: _decode(path), str(path), refuse)

    def take(self, numbers: Sequence[int]) -> "FileImages":
        """Return the files of these numbers, in their order."""
        return FileImages(self.name, [(self.paths[i], self._names[i]) for i in numbers])

    def file_names(self) -> list[str]:
        """Return what each image is called; pairs are matched by it."""
        return self._names


class NpzImages:
    """The images `arr_0` of an npz file, as ADM and `movq sample --npz` write it."""

    def __init__(self, path: Path, count: int | None = None) -> None:
        """Take the first `count` images of a file (None: all).

        Raises:
            UserError: the file has no uint8 images.
        """
        self.name = str(path)
        self.paths = [path]
        total, *_ = npz_images.image_shape(path)
        self._count = total if count is None else min(count, total)

    def __len__(self) -> int:
        return self._count

    def take(self, numbers: Sequence[int]) -> "NpzImages":
        """Return the first images: `numbers` must be a range from 0."""
        if list(numbers) != list(range(len(numbers))):
            raise ValueError("the images of an npz file come in their order")
        return NpzImages(self.paths[0], len(numbers))

    def items(self, refuse: Refuse) -> Iterator[Item]:
        """Yield an entry for each image. A damaged file is an error, not refused."""
        images = npz_images.read_images(self.paths[0])
        for number, image in enumerate(itertools.islice(images, self._count)):
            yield Item(f"{number:06d}", image)


class DatasetImages:
    """A split of a prepared dataset, in its order, which is mostly shuffled."""

    paths = ()

    def __init__(
        self,
        source: Any,
        count: int | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """Take records of a `data.sources.Source`.

        Args:
            source: of the records.
            count: the first so many are taken; None: all.
            numbers: these are, instead.
        """
        self.name = source.name
        self._source = source
        self._numbers = range(len(source))[:count] if numbers is None else numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def take(self, numbers: Sequence[int]) -> "DatasetImages":
        """Return the records of these numbers, in their order."""
        return DatasetImages(
            self._source, numbers=[self._numbers[number] for number in numbers]
        )

    def file_names(self) -> list[str]:
        """Return what each image's file was called; pairs are matched by it.

        Raises:
            UserError: the dataset did not keep it.
        """
        if not self._source.has_file_names:
            raise UserError(
                f"{self.name} does not say what its images' files were called, and its "
                "order is not known to be that of other images: give a folder, as "
                "--reference or as --images, for metrics of pairs"
            )
        return [self._source[i]["filename"] for i in self._numbers]

    def items(self, refuse: Refuse) -> Iterator[Item | None]:
        """Yield an entry for each record."""
        for number in self._numbers:
            record = self._source[number]
            where = f"{record['filename']} of {self.name}"
            data = record["image"]
            yield _read(
                record["filename"],
                lambda data=data, where=where: decode_image(data, where),
                where,
                refuse,
            )

    def labels(self) -> np.ndarray:
        """Return the class of each image, int64 [N]; -1 where it has none."""
        return np.asarray([self._source[i]["label"] for i in self._numbers])


def in_chunks(entries: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of at most `size` entries."""
    entries = iter(entries)
    while chunk := list(itertools.islice(entries, size)):
        yield chunk


def _decode(path: Path) -> np.ndarray:
    check_regular(path)
    return decode_image(path)


def _read(
    name: str, read: Callable[[], np.ndarray], where: str, refuse: Refuse
) -> Item | None:
    try:
        return Item(name, read())
    except UserError as error:
        refuse(where, str(error))
    except MemoryError:
        refuse(where, f"there is not enough memory to decode {where}")
    return None
