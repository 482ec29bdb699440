"""Which images go into which file, and what is noted of a file that is finished.

    <working folder>/
        plan.json                                      what is being made
        train-00000.part                               a shard, as long as it is written
        dataset/set-train.array_record-00000-of-00002  one that is finished, ...
        notes/set-train.array_record-00000-of-00002    ... what is in it, written last

The shards are planned before an image is decoded: what belongs into one depends on the
listing alone, not on broken files, on interruptions or on who writes it.
"""

import dataclasses
import errno
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from movq_jax.data.builders.listing import Example, Listing, file_size, hash_of

CONTENT = "dataset"
NOTES = "notes"


@dataclasses.dataclass(frozen=True)
class Shard:
    """What belongs into one file.

    Attributes:
        split: whose images they are.
        file_name: what the file is called in the dataset.
        examples: the images, in the order of their records.
        size: of their files.
    """

    split: str
    file_name: str
    examples: Sequence[Example]
    size: int

    def content(self, work: Path) -> Path:
        """Where the finished file lies."""
        return work / CONTENT / self.file_name

    def note(self, work: Path) -> Path:
        """Where it is noted that the file is finished."""
        return work / NOTES / self.file_name


@dataclasses.dataclass(frozen=True)
class Finished:
    """What is in a finished file.

    Attributes:
        images: how many; none where all were refused.
        bytes: size of their encoded files.
        size: of the shard's own file.
        sha256: of that file.
        refused: file of an image -> why it was left out.
    """

    images: int
    bytes: int
    size: int
    sha256: str
    refused: dict[str, str]


def plan_shards(listing: Listing, name: str, shard_bytes: int) -> list[Shard]:
    """Return the files of a dataset, images in the order of their keys' hashes.

    Args:
        listing: what to write.
        name: of the dataset.
        shard_bytes: a file is full when it has so many bytes of images, or more.
    """
    plan = []
    for split, examples in listing.splits.items():
        groups = list(_cut(sorted(examples, key=_hash_order), shard_bytes))
        paths = file_template("", name, split).sharded_filepaths(num_shards=len(groups))
        plan += [
            Shard(split, path.name, group, size)
            for path, (group, size) in zip(paths, groups, strict=True)
        ]
    return plan


def file_template(
    folder: Path | str, name: str, split: str
) -> tfds.core.ShardedFileTemplate:
    """Return what TensorFlow Datasets calls the files of a split."""
    return tfds.core.ShardedFileTemplate(
        data_dir=folder,
        dataset_name=name,
        split=split,
        filetype_suffix="array_record",
    )


def note_finished(shard: Shard, work: Path, finished: Finished) -> None:
    """Write down that a shard is finished: from here on it is kept."""
    note = shard.note(work)
    temporary = note.with_name(f"{note.name}.tmp")
    temporary.write_text(json.dumps(dataclasses.asdict(finished)), encoding="utf-8")
    sync(temporary)
    temporary.replace(note)
    sync(note.parent)


def read_note(shard: Shard, work: Path) -> Finished | None:
    """Return what is in a shard, None where it is not finished."""
    finished = _read_note(shard.note(work))
    if finished is None:
        return None
    try:
        size = shard.content(work).stat().st_size
    except OSError:
        return None
    return finished if size == finished.size else None


def anything_finished(work: Path) -> bool:
    """Whether an image is in any finished shard."""
    notes = map(_read_note, (work / NOTES).glob("*"))
    return any(note is not None and note.images for note in notes)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # What some network file systems answer for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _read_note(path: Path) -> Finished | None:
    try:
        return Finished(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _hash_order(example: Example) -> bytes:
    return hash_of(example.key)


def _cut(
    examples: Sequence[Example], shard_bytes: int
) -> Iterator[tuple[list[Example], int]]:
    """Yield groups that have `shard_bytes` each, and the bytes that they have."""
    group: list[Example] = []
    size = 0
    for example in examples:
        group.append(example)
        size += file_size(example.path)
        if size >= shard_bytes:
            yield group, size
            group, size = [], 0
    if group:
        yield group, size
