"""What is said of a prepared dataset, beside its shards.

`prepared.json` tells what it was made from, what is in it and what was refused; the
rest is the metadata of TensorFlow Datasets.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from movq_jax.data.builders.listing import Listing
from movq_jax.data.preparing.shards import Finished, Shard, file_template, sync
from movq_jax.errors import UserError

VERSION = "1.0.0"
MANIFEST = "prepared.json"


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
        sha256: name of a shard -> hash of it; empty in datasets of early versions.
    """

    folder: Path
    fingerprint: str
    classes: Sequence[str]
    images: dict[str, int]
    bytes: dict[str, int]
    refused: dict[str, str]
    sha256: dict[str, str] = dataclasses.field(default_factory=dict)


def read_manifest(folder: Path) -> Prepared | None:
    """Return what `movq prepare` wrote of a dataset, None where it did not make it."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return Prepared(folder=folder, **content)
    except (OSError, ValueError, TypeError):
        return None


def features_of(listing: Listing) -> tfds.features.FeaturesDict:
    """Return what a record of the dataset consists of."""
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


def summarise(
    place: Path,
    fingerprint: str,
    listing: Listing,
    shards: Sequence[Shard],
    finished: Mapping[str, Finished],
) -> Prepared:
    """Add up what is in the shards of a dataset that will lie in `place`.

    Raises:
        UserError: a split has no images.
    """
    images = dict.fromkeys(listing.splits, 0)
    size = dict.fromkeys(listing.splits, 0)
    refused: dict[str, str] = {}
    for shard in shards:
        note = finished[shard.file_name]
        images[shard.split] += note.images
        size[shard.split] += note.bytes
        refused |= note.refused
    for split, count in images.items():
        if not count:
            raise UserError(f"no image of {split} can be decoded")
    return Prepared(
        folder=place,
        fingerprint=fingerprint,
        classes=list(listing.classes),
        images=images,
        bytes=size,
        refused=refused,
        sha256={s.file_name: finished[s.file_name].sha256 for s in shards},
    )


def write_metadata(
    folder: Path,
    name: str,
    listing: Listing,
    prepared: Prepared,
    shards: Sequence[Shard],
    finished: Mapping[str, Finished],
) -> None:
    """Make shards a dataset of TensorFlow Datasets, and say what it was made from."""
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[
                finished[s.file_name].images for s in shards if s.split == split
            ],
            num_bytes=prepared.bytes[split],
            filename_template=file_template(folder, name, split),
        )
        for split in listing.splits
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features_of(listing),
        split_infos=infos,
        version=VERSION,
        description=listing.description,
        check_data=False,
    )
    content: dict[str, Any] = dataclasses.asdict(prepared)
    del content["folder"]
    text = json.dumps(content, indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    for path in folder.iterdir():
        sync(path)
