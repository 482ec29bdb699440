"""A listing becomes a dataset on disk: checked, in shards, whole or not there at all.

    <data dir>/<name>[/<config>]/1.0.0/
        <name>-<split>.array_record-00000-of-00002   encoded files, untouched
        dataset_info.json, features.json, ...        of TensorFlow Datasets
        prepared.json                                what it was made from

Everything is written to a hidden folder beside and moved in one step at the end.
"""

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from movq_jax.data.builders.listing import Example, Listing, hash_of
from movq_jax.data.images import ImageError, decode_image
from movq_jax.data.sources import count_records
from movq_jax.errors import UserError

VERSION = "1.0.0"
MANIFEST = "prepared.json"
SHARD_BYTES = 2**28
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_WINDOW = 64  # images read ahead of the writer


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A dataset on disk.

    Attributes:
        folder: where it lies.
        fingerprint: of the listing it was made from.
        classes: their names.
        images: split -> number of images.
        bytes: split -> size of its encoded images.
        refused: file -> why it is not in the dataset.
    """

    folder: Path
    fingerprint: str
    classes: Sequence[str]
    images: dict[str, int]
    bytes: dict[str, int]
    refused: dict[str, str]


def find_prepared(name: str, data_dir: Path, listing: Listing) -> Prepared | None:
    """Return the dataset called `name` if it was made from `listing`, None if absent.

    Raises:
        UserError: the name cannot be one, or belongs to another dataset.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot be the name of a dataset: use lower-case letters, digits "
            f"and _, starting with a letter"
        )
    folder = data_dir / name / listing.config / VERSION
    if not folder.exists():
        return None
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        prepared = Prepared(folder=folder, **content)
    except (OSError, ValueError, TypeError):
        prepared = None
    if prepared is None or prepared.fingerprint != listing.fingerprint():
        raise UserError(
            f"{folder} holds another dataset: choose another --name or --data-dir, or "
            f"delete that folder"
        )
    return prepared


def write_dataset(
    listing: Listing,
    *,
    name: str,
    data_dir: Path,
    skip_broken: bool = False,
    on_image: Callable[[str | None], None] = lambda refusal: None,
) -> Prepared:
    """Decode every image of `listing`, and write those that can be decoded.

    Args:
        listing: what to write.
        name: of the dataset, for which `find_prepared` returned None.
        data_dir: the folder of all datasets.
        skip_broken: leave out images that cannot be decoded, instead of raising.
        on_image: called for each image, with None or with why it is refused.

    Raises:
        ImageError: an image cannot be decoded, and `skip_broken` is False.
        UserError: a split has no image left, or the place cannot be written.
    """
    # Before the writing: files that change meanwhile make another dataset.
    fingerprint = listing.fingerprint()
    features = _features(listing)
    place = data_dir / name / listing.config / VERSION
    refused: dict[str, str] = {}
    infos = []
    with _new_folder(place) as folder:
        for split, examples in listing.splits.items():
            writer = _SplitWriter(folder, name, split, features)
            for example, data in _checked(sorted(examples, key=_hash_order)):
                if isinstance(data, ImageError):
                    if not skip_broken:
                        raise data
                    refused[str(example.path)] = str(data)
                    on_image(str(data))
                else:
                    writer.add(example, data)
                    on_image(None)
            infos.append(writer.close())
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=features,
            split_infos=infos,
            version=VERSION,
            description=listing.description,
            check_data=False,
        )
        prepared = Prepared(
            folder=place,
            fingerprint=fingerprint,
            classes=list(listing.classes),
            images={info.name: info.num_examples for info in infos},
            bytes={info.name: info.num_bytes for info in infos},
            refused=refused,
        )
        _write_manifest(prepared, folder / MANIFEST)
    return prepared


class _SplitWriter:
    """Writes the examples of one split, to a new shard whenever one is full."""

    def __init__(
        self, folder: Path, name: str, split: str, features: tfds.features.FeaturesDict
    ):
        self._folder, self._name, self._split = folder, name, split
        self._features = features
        self._writer: ArrayRecordWriter | None = None
        self._lengths: list[int] = []
        self._shard_bytes = self._bytes = 0

    def add(self, example: Example, data: bytes) -> None:
        """Write one example with its encoded image."""
        if self._writer is None or self._shard_bytes >= SHARD_BYTES:
            self._open_shard()
        self._writer.write(
            self._features.serialize_example(
                {
                    "image": io.BytesIO(data),
                    "filename": example.key,
                    "label": example.label,
                    **example.extra,
                }
            )
        )
        self._lengths[-1] += 1
        self._shard_bytes += len(data)
        self._bytes += len(data)

    def close(self) -> tfds.core.SplitInfo:
        """Finish the files, count what is in them, give them their final names."""
        if not self._lengths:
            raise UserError(f"no image of {self._split} can be decoded")
        self._writer.close()
        template = tfds.core.ShardedFileTemplate(
            data_dir=self._folder,
            dataset_name=self._name,
            split=self._split,
            filetype_suffix="array_record",
        )
        count = len(self._lengths)
        for index, length in enumerate(self._lengths):
            path = self._shard(index)
            # A full disk does not always make the writer fail.
            if count_records(path) != length:
                raise UserError(f"{path} was not written in full: is the disk full?")
            path.rename(template.sharded_filepath(shard_index=index, num_shards=count))
        return tfds.core.SplitInfo(
            name=self._split,
            shard_lengths=self._lengths,
            num_bytes=self._bytes,
            filename_template=template,
        )

    def _open_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
        path = self._shard(len(self._lengths))
        # One record a group: the files are read at random.
        self._writer = ArrayRecordWriter(os.fspath(path), "group_size:1")
        self._lengths.append(0)
        self._shard_bytes = 0

    def _shard(self, index: int) -> Path:
        return self._folder / f"{self._split}-{index:05d}.part"


def _features(listing: Listing) -> tfds.features.FeaturesDict:
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(),
            "filename": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=list(listing.classes))
            if listing.classes
            else tfds.features.Scalar(np.int64),  # always NO_LABEL
            **listing.features,
        }
    )


def _hash_order(example: Example) -> bytes:
    return hash_of(example.key)


def _checked(
    examples: Sequence[Example],
) -> Iterator[tuple[Example, bytes | ImageError]]:
    """Yield each example with its encoded bytes, or with what is wrong with them."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(examples), _WINDOW):
            window = examples[start : start + _WINDOW]
            yield from zip(window, pool.map(_read, window), strict=True)


def _read(example: Example) -> bytes | ImageError:
    try:
        data = example.path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        return ImageError(f"cannot read {example.path}: {reason}")
    try:
        decode_image(data, name=str(example.path))
    except ImageError as error:
        return error
    return data


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` when all went well.

    Nothing is left of it otherwise; what a killed process left is removed.
    """
    temporary = folder.parent / f".{folder.name}.incomplete"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.parent):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            try:
                yield temporary
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out; the system lets go when this one ends, however."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UserError(f"another process is preparing {folder}") from error
    finally:
        os.close(descriptor)


def _write_manifest(prepared: Prepared, path: Path) -> None:
    content: dict[str, Any] = dataclasses.asdict(prepared)
    del content["folder"]
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
