"""What a builder finds: image files, their names, classes and splits."""

import dataclasses
import hashlib
import json
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from movq_jax.data.builders.archives import File

NO_LABEL = -1
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Example:
    """One image file.

    Attributes:
        path: where it lies: a path, or a member of an archive.
        key: its name in the dataset, `/` between folders; unique in its split.
        label: number of its class, or `NO_LABEL`.
        extra: value of each further feature of the listing; of types that JSON knows.
    """

    path: File
    key: str
    label: int = NO_LABEL
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Listing:
    """The content of a dataset, before anything of it is decoded.

    Attributes:
        description: one or two sentences, kept in the dataset's metadata.
        splits: split -> its examples; no split is empty.
        classes: their names, by number.
        ignored: how many files were seen and left out.
        config: which edition of the dataset this is: with one, the dataset is called
            `name/config`, and lies in a folder of this name.
        features: what else than image, filename and label a record has: name -> how
            TensorFlow Datasets stores it.
        notes: what the user should know of this source, a line each.
    """

    description: str
    splits: Mapping[str, Sequence[Example]]
    classes: Sequence[str] = ()
    ignored: int = 0
    config: str = ""
    features: Mapping[str, tfds.features.FeatureConnector] = dataclasses.field(
        default_factory=dict
    )
    notes: Sequence[str] = ()

    def fingerprint(self) -> str:
        """Return a hash of names, classes, splits, file sizes and further features.

        The same files give the same hash wherever they lie, also inside an archive;
        it reads none of them.
        """
        content = {
            split: sorted(map(_identity, examples))
            for split, examples in self.splits.items()
        }
        text = json.dumps([content, list(self.classes)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def hash_of(key: str) -> bytes:
    """Return a hash to order and to split by: the same on every machine."""
    return hashlib.sha256(key.encode()).digest()


def file_size(file: File) -> int:
    """Return how many bytes a file has, without reading it; 0 where there is none."""
    if not isinstance(file, Path):
        return file.size
    try:
        status = file.stat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def count_notes(
    dataset: str, official: Mapping[str, int], splits: Mapping[str, Sequence[Example]]
) -> list[str]:
    """Return what to say of splits with other than the published numbers of images.

    Args:
        dataset: what it is called.
        official: split -> how many images it has as published.
        splits: split -> its examples; a split that is not there has none.
    """
    found = {split: len(splits.get(split, ())) for split in official}
    if found == official:
        return []
    is_part = all(found[split] <= official[split] for split in official)
    counts = [
        f"{split} has {found[split]:,} of {official[split]:,} images"
        for split in official
    ]
    what = "a part of" if is_part else "more than"
    return [f"{what} {dataset}: {', '.join(counts)}"]


def _identity(example: Example) -> tuple:
    identity = (example.key, example.label, file_size(example.path))
    # Nothing more where there is nothing: datasets prepared before stay the same.
    return (*identity, sorted(example.extra.items())) if example.extra else identity
