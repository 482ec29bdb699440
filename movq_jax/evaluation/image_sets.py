"""Where images to be judged come from: files, an npz file, a split of a dataset.

All are alike: a `name` for people, a length, and `items(refuse)`, which may be called
again and gives one entry for each image: its name and uint8 [H, W, 3], or None for one
that could not be read, after `refuse(name, reason)` was told. One image is in memory at
a time.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from movq_jax.data.images import decode_image
from movq_jax.errors import UserError
from movq_jax.evaluation import npz_images

_NAMED = 3  # of the missing ones, in a message

Refuse = Callable[[str, str], None]
T = TypeVar("T")


class Item(NamedTuple):
    """An image with its name."""

    name: str
    image: np.ndarray  # uint8 [H, W, 3]


class ImageSet(Protocol):
    """What all sets of images have."""

    name: str

    def __len__(self) -> int: ...

    def items(self, refuse: Refuse) -> Iterator[Item | None]:
        """Yield an entry for each image, in a fixed order."""
        ...


class FileImages:
    """Image files of any sizes.

    Attributes:
        name: of the set.
        names: what each image is called; pairs are matched by it.
    """

    def __init__(self, name: str, files: Sequence[tuple[Path, str]]) -> None:
        """Take files as (path, name), in the order in which they are to come."""
        self.name = name
        self.names = [name for _, name in files]
        self._paths = [path for path, _ in files]

    def __len__(self) -> int:
        return len(self.names)

    def items(self, refuse: Refuse) -> Iterator[Item | None]:
        """Yield an entry for each file."""
        for path, name in zip(self._paths, self.names, strict=True):
            yield _read(name, lambda path=path: _decode(path), str(path), refuse)

    def first(self, count: int) -> "FileImages":
        """Return the set of the first `count` files, or of all if there are fewer."""
        files = list(zip(self._paths, self.names, strict=True))[:count]
        return FileImages(self.name, files)

    def in_order_of(self, names: Sequence[str]) -> "FileImages":
        """Return the files of these names, which must be there."""
        where = dict(zip(self.names, self._paths, strict=True))
        return FileImages(self.name, [(where[name], name) for name in names])


class NpzImages:
    """The images `arr_0` of an npz file, as ADM and `movq sample --npz` write it."""

    def __init__(self, path: Path, count: int | None = None) -> None:
        """Take the first `count` images of a file (None: all).

        Raises:
            UserError: the file has no uint8 images.
        """
        self.name = str(path)
        self._path = path
        total, *_ = npz_images.image_shape(path)
        self._count = total if count is None else min(count, total)

    def __len__(self) -> int:
        return self._count

    def items(self, refuse: Refuse) -> Iterator[Item]:
        """Yield an entry for each image. A damaged file is an error, not refused."""
        images = npz_images.read_images(self._path)
        for number, image in enumerate(itertools.islice(images, self._count)):
            yield Item(f"{number:06d}", image)


class DatasetImages:
    """A split of a prepared dataset, in its order."""

    def __init__(self, source: Any, count: int | None = None) -> None:
        """Take the first `count` records (None: all) of a `data.sources.Source`."""
        self.name = source.name
        self._source = source
        self._count = len(source) if count is None else min(count, len(source))

    def __len__(self) -> int:
        return self._count

    def items(self, refuse: Refuse) -> Iterator[Item | None]:
        """Yield an entry for each record."""
        for number in range(self._count):
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
        return np.asarray([self._source[i]["label"] for i in range(self._count)])


def in_pairs(
    images: ImageSet, partners: ImageSet, *, some: bool = False
) -> tuple[ImageSet, ImageSet]:
    """Return both, such that entries of one number belong together.

    Files are matched by their names, all others by their order.

    Args:
        images: to be judged.
        partners: what they are compared with.
        some: whether `images` are some of many: `partners` may be more files, then.

    Raises:
        UserError: an image has no partner, or the numbers differ.
    """
    if isinstance(images, FileImages) and isinstance(partners, FileImages):
        _check_partners(images, partners)
        if not some:
            _check_partners(partners, images)
        return images, partners.in_order_of(images.names)
    if len(images) != len(partners):
        raise UserError(
            f"{images.name} has {len(images)} images and {partners.name} "
            f"{len(partners)}: metrics of pairs match them by their order, one to one"
        )
    return images, partners


def in_chunks(entries: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of at most `size` entries."""
    entries = iter(entries)
    while chunk := list(itertools.islice(entries, size)):
        yield chunk


def _check_partners(one: FileImages, other: FileImages) -> None:
    there = set(other.names)
    missing = [name for name in one.names if name not in there]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if missing[_NAMED:] else ""
        raise UserError(
            f"{other.name} has no partner for {', '.join(missing[:_NAMED])}{more} of "
            f"{one.name}: metrics of pairs need files of the same names, each in both "
            "folders (suffixes may differ)"
        )


def _decode(path: Path) -> np.ndarray:
    # Of a pipe or a device nothing is read: that might never end.
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file but a folder, a pipe or a device")
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
