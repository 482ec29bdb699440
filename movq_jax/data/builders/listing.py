"""What a builder finds: image files, their names, classes and splits."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

NO_LABEL = -1
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Example:
    """One image file.

    Attributes:
        path: where it lies.
        key: its name in the dataset, `/` between folders; unique in the dataset.
        label: number of its class, or `NO_LABEL`.
    """

    path: Path
    key: str
    label: int = NO_LABEL


@dataclasses.dataclass(frozen=True)
class Listing:
    """The content of a dataset, before anything of it is decoded.

    Attributes:
        description: one or two sentences, kept in the dataset's metadata.
        splits: split -> its examples; no split is empty.
        classes: their names, by number.
        ignored: how many files were seen and left out.
    """

    description: str
    splits: Mapping[str, Sequence[Example]]
    classes: Sequence[str] = ()
    ignored: int = 0

    def fingerprint(self) -> str:
        """Return a hash of names, classes, splits and file sizes.

        The same files give the same hash wherever they lie; it reads none of them.
        """
        content = {
            split: sorted(
                (example.key, example.label, _file_size(example.path))
                for example in examples
            )
            for split, examples in self.splits.items()
        }
        text = json.dumps([content, list(self.classes)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def hash_of(key: str) -> bytes:
    """Return a hash to order and to split by: the same on every machine."""
    return hashlib.sha256(key.encode()).digest()


def _file_size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
