"""`huggingface`: images of a dataset of the package `datasets`, by Hugging Face.

`--source` is one of

    DIR             a folder that `save_to_disk` wrote
    DIR             a folder of parquet files, or of images (see `imagefolder` there)
    FILE, PATTERN   parquet files, such as 'data/train-*.parquet'
    NAME            of a dataset on the Hub, such as `ylecun/mnist`, with `:CONFIG`
                    where it has several; it is downloaded into the cache of `datasets`,
                    and its card there states its licence

Images are taken as they are encoded, and never decoded by `datasets`. Their class is a
column of type ClassLabel. Splits are called as in `folder`; others keep their names,
and without a validation set a fraction of the training images becomes one.

The package is an extra: pip install 'movq_jax[huggingface]'.
"""

import dataclasses
import glob
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from movq_jax import families
from movq_jax.data.builders.listing import NO_LABEL, Example, Listing
from movq_jax.data.builders.splitting import SPLIT_NAMES, check_fraction, held_out
from movq_jax.errors import UserError

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")
_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels")
_ROWS = 1000  # read at once where only sizes and labels are wanted


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """The image of one row.

    Attributes:
        table: a `datasets.Dataset` whose one column holds encoded images. All rows
            share it; pickled together they carry it once, as the paths of its files.
        index: of the row.
        size: how many bytes the image has; 0 where that is not known.
        name: what it is called.
    """

    table: Any
    index: int
    size: int
    name: str

    def __str__(self) -> str:
        return self.name

    def read_bytes(self) -> bytes:
        """Return the encoded image.

        Raises:
            OSError: there is none, or the file that it names cannot be read.
        """
        try:
            (image,) = self.table[self.index].values()
            if image is None or image["bytes"] is image["path"] is None:
                raise OSError("the row has no image")
            data = image["bytes"]
            return _read(image["path"]) if data is None else data
        except (OSError, MemoryError):
            raise
        # pyarrow and fsspec raise their own kinds on damaged files.
        except Exception as error:
            raise OSError(str(error) or type(error).__name__) from error


def find(source: str, validation_fraction: float = 0.1) -> Listing:
    """List the images of a dataset of the package `datasets`.

    Args:
        source: see the module.
        validation_fraction: how much of the training images to hold out where there
            is no validation set, from 0 to below 1; see `folder`.

    Raises:
        UserError: the package is missing, there is no such dataset, or it has no
            column of images.
    """
    check_fraction(validation_fraction)
    splits = _load(source)
    first = next(iter(splits.values()))
    image = _image_column(first, source)
    label, classes = _label_column(first)
    groups: dict[str, dict[str, Example]] = {}
    for split, dataset in splits.items():
        name = SPLIT_NAMES.get(split, re.sub(r"\W", "_", split))
        if name in groups:  # `val` and `validation`, both
            name = split
        where = f"{source} {split}"
        for example in _examples(dataset, image, label, where):
            groups.setdefault(name, {})[example.key] = example
    if "train" in groups and "validation" not in groups:
        keys = held_out(list(groups["train"]), validation_fraction)
        if keys:
            groups["validation"] = {key: groups["train"].pop(key) for key in keys}
    if not groups:
        raise UserError(f"--source={source} has no rows")
    return Listing(
        description=f"Images of the column {image!r} of {source}, by `datasets`.",
        splits={split: list(group.values()) for split, group in groups.items()},
        classes=classes,
        notes=[]
        if label
        else [f"no classes: {source} has no column of type ClassLabel"],
    )


def _load(source: str) -> dict[str, Any]:
    """Return split -> `datasets.Dataset`."""
    if importlib.util.find_spec("datasets") is None:
        raise UserError(
            "--dataset=huggingface needs the package datasets: "
            "pip install 'movq_jax[huggingface]'"
        )
    import datasets  # takes seconds

    path = Path(source).expanduser()
    try:
        if path.is_dir():
            if any((path / n).is_file() for n in ("dataset_dict.json", "state.json")):
                loaded = datasets.load_from_disk(str(path))
            else:
                loaded = datasets.load_dataset(str(path))
        elif path.is_file() or glob.has_magic(source):
            loaded = datasets.load_dataset("parquet", data_files=str(path))
        elif _HUB_NAME.fullmatch(source):
            name, _, config = source.partition(":")
            loaded = datasets.load_dataset(name, config or None)
        else:
            raise UserError(
                f"--source={source} does not exist, and cannot be the name of a "
                f"dataset on the Hugging Face Hub"
            )
    except (UserError, MemoryError):
        raise
    # Its own kinds, and those of pyarrow, fsspec and the network.
    except Exception as error:
        raise UserError(
            f"--source={source} cannot be loaded by the package datasets: "
            f"{_first_line(error)}"
        ) from error
    if isinstance(loaded, datasets.Dataset):
        loaded = {str(loaded.split or "train"): loaded}
    return dict(loaded)


def _image_column(dataset: Any, source: str) -> str:
    """Return the name of the column that holds images."""
    import datasets

    columns = dataset.features
    found = [n for n, kind in columns.items() if isinstance(kind, datasets.Image)]
    # Parquet files of other programs do not say that a column is one of images.
    found = found or [name for name in _IMAGE_NAMES if name in columns]
    chosen = _choose(found, _IMAGE_NAMES)
    if chosen is None:
        problem = f"several columns of images: {', '.join(found)}; rename one 'image'"
        if not found:
            problem = f"no column of images, only {', '.join(columns)}"
        raise UserError(f"--source={source} has {problem}")
    return chosen


def _label_column(dataset: Any) -> tuple[str | None, list[str]]:
    """Return the name of the column of classes, and what they are called."""
    import datasets

    found = [
        name
        for name, kind in dataset.features.items()
        if isinstance(kind, datasets.ClassLabel)
    ]
    chosen = _choose(found, _LABEL_NAMES)
    return chosen, list(dataset.features[chosen].names) if chosen else []


def _choose(found: list[str], preferred: Iterable[str]) -> str | None:
    usual = [name for name in preferred if name in found]
    return (usual or found)[0] if usual or len(found) == 1 else None


def _examples(
    dataset: Any, image: str, label: str | None, where: str
) -> Iterable[Example]:
    """Yield the images of a split; of those in the table, nothing but sizes is read."""
    import datasets

    missing = [name for name in (image, label) if name and name not in dataset.features]
    if missing:
        hint = families.nearest(missing[0], dataset.features)
        raise UserError(f"{where} has no column {missing[0]!r}{hint}")
    try:
        encoded = dataset.cast_column(image, datasets.Image(decode=False))
    except Exception as error:  # pyarrow's, of a column of anything
        raise UserError(
            f"{where}: the column {image!r} does not hold encoded images "
            f"({_first_line(error)})"
        ) from error
    table = encoded.select_columns([image])
    start = 0
    for batch in encoded.with_format("arrow").iter(_ROWS):
        sizes = _sizes(batch.column(image))
        labels = batch.column(label).to_pylist() if label else [None] * len(sizes)
        for index, ((path, size), number) in enumerate(
            zip(sizes, labels, strict=True), start
        ):
            file_name = PurePosixPath(path or "").name
            key = f"{index:08d}" + (f"_{file_name}" if file_name else "")
            name = f"row {index} of {where}" + (f" ({file_name})" if file_name else "")
            row = Row(table, index, size, name)
            yield Example(row, key, NO_LABEL if number is None else number)
        start += len(sizes)


def _sizes(column: Any) -> list[tuple[str | None, int]]:
    """Return (path, bytes) of each image of an Arrow column of {bytes, path}."""
    import pyarrow.compute as pc

    lengths = pc.binary_length(pc.struct_field(column, "bytes")).to_pylist()
    paths = pc.struct_field(column, "path").to_pylist()
    return [
        (path, _file_size(path) if length is None else length)
        for path, length in zip(paths, lengths, strict=True)
    ]


def _file_size(path: str | None) -> int:
    try:
        return Path(path).stat().st_size if path else 0
    except OSError:  # also of what lies elsewhere
        return 0


def _read(path: str) -> bytes:
    if "://" not in path:
        return Path(path).read_bytes()
    import fsspec  # `datasets` needs it

    with fsspec.open(path, "rb") as file:
        return file.read()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
