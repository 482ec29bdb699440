"""What a builder finds: image files, their names, classes and splits."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from movq_jax.data.builders.archives import File, ZipMember

NO_LABEL = -1
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Example:
    """One image file.

    Attributes:
        path: where it lies: a path, or a member of a zip.
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

        The same files give the same hash wherever they lie, also inside a zip; it
        reads none of them.
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


def _identity(example: Example) -> tuple:
    identity = (example.key, example.label, _file_size(example.path))
    # Nothing more where there is nothing: datasets prepared before stay the same.
    return (*identity, sorted(example.extra.items())) if example.extra else identity


def _file_size(path: File) -> int:
    if isinstance(path, ZipMember):
        return path.size
    return path.stat().st_size if path.is_file() else 0
