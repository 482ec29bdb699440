"""Prepared datasets, opened for random access.

A dataset lies in `<data dir>/<name>[/<config>]/<version>`, in the layout of
TensorFlow Datasets with ArrayRecord files: those that `movq prepare` writes, and those
that TensorFlow Datasets prepared itself. TensorFlow is not needed to read either.
"""

import inspect
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordReader
from tensorflow_datasets.proto import tf_example_pb2

from movq_jax import families
from movq_jax.data.builders import BUILDERS
from movq_jax.errors import UserError

METADATA = "dataset_info.json"
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
# What a record calls its file: in our datasets, and in those of TensorFlow Datasets.
_FILE_NAMES = ("filename", "file_name", "image/filename")


@runtime_checkable
class Place(Protocol):
    """A dataset's name and where to look for it: the `data` section has both."""

    dataset: str
    data_dir: str


class Source:
    """The records of one split, by number: {image: bytes, filename: str, label: int}.

    `image` is the encoded file as it was; `label` is -1 where there is none. Several
    threads may read at once.
    """

    def __init__(self, name: str, records: Sequence[bytes], file_name: str | None):
        """Wrap serialized examples; `name` is for errors, `file_name` a feature."""
        self.name = name
        self._records = records
        self._file_name = file_name

    @property
    def has_file_names(self) -> bool:
        """Whether `filename` is that of a file; else it is made up of the number."""
        return self._file_name is not None

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            features = _parse(self._records[index])
            return {
                "image": features["image"].bytes_list.value[0],
                "filename": self._filename(features, index),
                "label": _label(features),
            }
        except MemoryError:
            raise
        # ArrayRecord and protobuf raise their own kinds on damaged files.
        except Exception as error:
            raise UserError(
                f"record {index} of {self.name} cannot be read ({error}): the dataset "
                f"is damaged, delete its folder and prepare it again"
            ) from error

    def _filename(self, features: Any, index: int) -> str:
        if self._file_name is None:
            return f"record {index}"
        return features[self._file_name].bytes_list.value[0].decode()


def open_split(place: Place, split: str) -> Source:
    """Open a split, such as `train` or `train[:90%]`, of a prepared dataset.

    Args:
        place: `dataset` is `name`, `name/config`, or either with `:version`; without
            a version the latest is taken, without a config the only one there. For
            `data_dir` see `resolve_data_dir`.
        split: in the notation of TensorFlow Datasets.

    Raises:
        UserError: dataset, version or split do not exist (the message says what is
            there, and how to prepare it), or the files are not whole.
    """
    data_dir = resolve_data_dir(place.data_dir)
    folder = find_dataset(place.dataset, data_dir)
    info = tfds.builder_from_directory(folder).info
    if info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"{folder} holds {info.file_format.value} files: prepare it again with "
            f"file_format='array_record'"
        )
    if "image" not in info.features:
        features = ", ".join(info.features)
        raise UserError(f"{folder} has no feature 'image', only {features}")
    shards = _shards(info, split, folder)
    file_name = next((name for name in _FILE_NAMES if name in info.features), None)
    name = f"{folder.relative_to(data_dir)} {split}"
    return Source(name, ArrayRecordDataSource(shards), file_name)


def read_classes(place: Place) -> tuple[str, ...]:
    """Return the names of a prepared dataset's classes, () where it has no labels.

    Raises:
        UserError: the dataset is not there.
    """
    folder = find_dataset(place.dataset, resolve_data_dir(place.data_dir))
    features = tfds.builder_from_directory(folder).info.features
    label = features["label"] if "label" in features else None
    return tuple(getattr(label, "names", None) or ())


def resolve_data_dir(data_dir: str | os.PathLike | None) -> Path:
    """Return `data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises:
        UserError: it is a bucket, and ArrayRecord files are read from folders.
    """
    data_dir = os.fspath(data_dir or "") or os.environ.get("TFDS_DATA_DIR", "")
    if "://" in data_dir:
        raise UserError(
            f"data dir {data_dir} is a bucket: copy the dataset to a local folder, or "
            f"mount it"
        )
    return Path(data_dir or "~/tensorflow_datasets").expanduser()


def find_dataset(dataset: str, data_dir: Path) -> Path:
    """Return a prepared dataset's folder, `<data_dir>/<name>[/<config>]/<version>`.

    Raises:
        UserError: it is not there, or there are several configs of it and none is
            chosen.
    """
    name, colon, version = dataset.partition(":")
    versions = _versions(data_dir / name)
    configs = [] if versions else _datasets(data_dir / name)
    if len(configs) == 1:
        return find_dataset(f"{name}/{configs[0]}{colon}{version}", data_dir)
    if version and not configs and version not in versions:
        there = ", ".join(versions) or "no version"
        raise UserError(f"{name} {version} is not in {data_dir}, there is {there}")
    if versions:
        return data_dir / name / (version or list(versions)[-1])
    if configs:
        raise UserError(
            f"{name} in {data_dir} comes as {', '.join(configs)}: choose one, such as "
            f"{name}/{configs[0]}"
        )
    there = _datasets_and_configs(data_dir)
    hint = families.nearest(name, there) if there else ", where no dataset is"
    raise UserError(
        f"dataset {name!r} is not prepared in {data_dir}{hint}. Prepare it: "
        f"{_how_to_prepare(name, data_dir)}"
    )


def _versions(folder: Path) -> list[str]:
    """Return the versions prepared in a dataset's folder, in rising order."""
    if not folder.is_dir():
        return []
    found = [
        tuple(map(int, match.groups()))
        for child in folder.iterdir()
        if (match := _VERSION.fullmatch(child.name)) and (child / METADATA).is_file()
    ]
    return [".".join(map(str, version)) for version in sorted(found)]


def _datasets(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(child.name for child in folder.iterdir() if _versions(child))


def _datasets_and_configs(data_dir: Path) -> list[str]:
    children = sorted(data_dir.iterdir()) if data_dir.is_dir() else []
    configs = [f"{c.name}/{config}" for c in children for config in _datasets(c)]
    return _datasets(data_dir) + configs


def _how_to_prepare(name: str, data_dir: Path) -> str:
    command = "python -m movq_jax.tools.prepare"
    # Of an edition that no builder knows, its builder says which there are.
    kind = name if name in BUILDERS else name.partition("/")[0]
    if kind in BUILDERS and kind != "folder":
        needs_source = "source" in inspect.signature(BUILDERS[kind]).parameters
        source = " --source=DIR" if needs_source else ""
        return f"{command} --dataset={kind}{source} --data-dir={data_dir}"
    return (
        f"{command} --dataset=folder --source=DIR --name={name} --data-dir={data_dir}"
    )


def _shards(info: tfds.core.DatasetInfo, split: str, folder: Path) -> Sequence[Any]:
    """Return what to read of which files, after a look at the files."""
    try:
        part = info.splits[split]
    except (KeyError, ValueError, AssertionError) as error:
        there = ", ".join(info.splits)
        raise UserError(f"{folder} has no split {split!r}; it has {there}") from error
    if not part.num_examples:
        raise UserError(f"{folder} has no images in the split {split!r}")
    for shard in part.file_instructions:
        _check_shard(Path(shard.filename), shard.examples_in_shard)
    return part.file_instructions


def _check_shard(path: Path, count: int) -> None:
    """Refuse a file that is missing or not whole."""
    found = count_records(path)
    if found != count:
        raise UserError(
            f"{path} has {found} of {count} records: the dataset is damaged, delete "
            f"its folder and prepare it again"
        )


def count_records(path: Path) -> int:
    """Return how many records an ArrayRecord file has, 0 where it is none."""
    if not path.is_file():
        return 0
    try:
        reader = ArrayRecordReader(os.fspath(path))
        count = reader.num_records()
        reader.close()  # an empty file, as a killed writer leaves, fails only here
    except (RuntimeError, ValueError):
        return 0
    return count


def _parse(record: bytes) -> Any:
    # Not by the features of TensorFlow Datasets: the same proto in a fifth of the
    # time, which counts because it is spent under the interpreter's lock.
    return tf_example_pb2.Example.FromString(record).features.feature


def _label(features: Any) -> int:
    if "label" not in features or not features["label"].int64_list.value:
        return -1
    return features["label"].int64_list.value[0]
