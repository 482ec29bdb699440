"""`coco`: COCO 2017 or 2014, in its official layout, unpacked or as downloaded.

    train2017/000000000009.jpg             or in  train2017.zip
    val2017/000000000139.jpg                      val2017.zip
    annotations/captions_train2017.json           annotations_trainval2017.zip
    annotations/instances_train2017.json

and the same with 2014, where images are called COCO_train2014_000000000009.jpg. The
annotations are optional; a part of the images is a dataset, too, and a note says that
it is one.

Lin et al., Microsoft COCO: Common Objects in Context, 2014, https://cocodataset.org.
Annotations: CC BY 4.0. Images: of Flickr, under its terms of use.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from movq_jax.data.builders.archives import (
    File,
    is_file,
    list_files,
    source_folder,
    walk,
)
from movq_jax.data.builders.coco_annotations import (
    Annotations,
    read_captions,
    read_labels,
)
from movq_jax.data.builders.listing import Example, Listing, count_notes
from movq_jax.errors import UserError

_LICENCE = "annotations: CC BY 4.0; images: Flickr terms of use"


@dataclasses.dataclass(frozen=True)
class _Part:
    """A split as COCO publishes it: `val2017`, whose images are `00...139.jpg`."""

    split: str
    folder: str
    image_name: re.Pattern
    official_count: int
    annotations_zip: str

    @property
    def images_zip(self) -> str:
        return f"{self.folder}.zip"


def _parts(year: str, prefix: str, train: int, val: int) -> tuple[_Part, _Part]:
    def part(split: str, folder: str, count: int) -> _Part:
        name = re.compile(prefix.format(folder) + r"(\d{12})\.jpg")
        return _Part(split, folder, name, count, f"annotations_trainval{year}.zip")

    return (
        part("train", f"train{year}", train),
        part("validation", f"val{year}", val),
    )


EDITIONS = {
    "2014": _parts("2014", "COCO_{}_", 82_783, 40_504),
    "2017": _parts("2017", "", 118_287, 5_000),
}
DEFAULT_EDITION = "2017"


def find(source: str | None = None, edition: str | None = None) -> Listing:
    """List the images of COCO with what is told of them, without opening any.

    Records have `image/id`, the official number, `captions`, and `labels`, those of the
    kinds of objects in the image; both are empty where the annotations are not there.
    There is no `label`, as an image has no single one. A source without train images is
    a dataset with a validation split only.

    Args:
        source: the folder with the official folders, or with the zips.
        edition: `2017` or `2014`; None: whichever lies in `source`.

    Raises:
        UserError: there is no such source, none of the editions or both are in it,
            its validation set is missing, a zip or an annotation file is damaged, or
            the annotations are of other images.
    """
    root = source_folder(source, "coco", _how_to_get(edition or DEFAULT_EDITION))
    edition = edition or _edition_in(root)
    found = {part: _images(root, part) for part in EDITIONS[edition]}
    train, validation = EDITIONS[edition]
    if not found[validation][0]:
        raise UserError(_not_there(root, edition, found))
    parts = [part for part in (train, validation) if found[part][0]]
    told, notes, splits = [], [], {}
    for part in parts:
        images = found[part][0]
        of_part, part_notes = _annotations(root, part, images)
        told.append(of_part)
        notes += part_notes
        splits[part.split] = [
            Example(path=path, key=name, extra=_extra(part, name, of_part))
            for name, path in images.items()
        ]
    official = {part.split: part.official_count for part in EDITIONS[edition]}
    return Listing(
        description=f"COCO {edition}, https://cocodataset.org ({_LICENCE}).",
        splits=splits,
        ignored=sum(ignored for _, ignored in found.values()),
        config=edition,
        features=_features(_label_names(told)),
        notes=[*count_notes(f"COCO {edition}", official, splits), *notes],
    )


def _extra(
    part: _Part, name: str, told: Mapping[str, Annotations | None]
) -> dict[str, Any]:
    """Return the further features of an image."""
    return {
        "image/id": int(part.image_name.fullmatch(name)[1]),
        **{
            what: list(annotations.of.get(name, ())) if annotations else []
            for what, annotations in told.items()
        },
    }


def _features(names: Sequence[str]) -> dict[str, tfds.features.FeatureConnector]:
    label = tfds.features.ClassLabel(names=names) if names else np.int64
    return {
        "image/id": tfds.features.Scalar(np.int64),
        "captions": tfds.features.Sequence(tfds.features.Text()),
        "labels": tfds.features.Sequence(label),
    }


def _edition_in(root: Path) -> str:
    """Return the one edition of which images are there, the default for none."""
    there = _editions_in(root)
    if len(there) > 1:
        choices = " or ".join(f"--dataset=coco/{edition}" for edition in there)
        raise UserError(
            f"{root} holds COCO {' and '.join(there)}: choose one, {choices}"
        )
    return there[0] if there else DEFAULT_EDITION


def _editions_in(root: Path) -> list[str]:
    # By names alone: the annotations of both years often lie in one folder.
    return [
        edition
        for edition, parts in EDITIONS.items()
        if any(
            any(walk(root / part.folder)) or is_file(root / part.images_zip)
            for part in parts
        )
    ]


def _images(root: Path, part: _Part) -> tuple[dict[str, File], int]:
    """Return name -> file of the images, and how many other files lie there."""
    files = list_files(root, part.folder, part.images_zip)
    images = {name: f for name, f in files.items() if part.image_name.fullmatch(name)}
    if files and not images:
        example = part.image_name.pattern.replace(r"(\d{12})\.", "000000000139.")
        raise UserError(
            f"{root / part.folder} has no image that is called like those of COCO, as "
            f"{example}, but {min(files)}: use the official files, or "
            f"--dataset=folder for other images"
        )
    return images, len(files) - len(images)


def _annotations(
    root: Path, part: _Part, images: Mapping[str, File]
) -> tuple[dict[str, Annotations | None], list[str]]:
    """Return captions and labels of a part's images, and what to tell of them."""
    place = root, part.folder, part.annotations_zip, images
    told = {"captions": read_captions(*place), "labels": read_labels(*place)}
    notes = []
    for what, annotations in told.items():
        if annotations is None:
            file = {"captions": "captions", "labels": "instances"}[what]
            notes.append(
                f"no annotations/{file}_{part.folder}.json: the images of "
                f"{part.split} have no {what}"
            )
        else:
            notes += annotations.notes
    return told, notes


def _label_names(told: Sequence[Mapping[str, Annotations | None]]) -> tuple[str, ...]:
    """Return the names of the labels, which all parts have in common."""
    names = {part["labels"].names for part in told if part["labels"] is not None}
    if len(names) > 1:
        raise UserError(
            "the annotations of train and validation images have other categories: "
            "use the files of one download"
        )
    return next(iter(names), ())


def _not_there(root: Path, edition: str, found: Mapping[_Part, Any]) -> str:
    """Return what is wrong with a source without validation images."""
    train, validation = EDITIONS[edition]
    others = [other for other in _editions_in(root) if other != edition]
    if found[train][0]:
        problem = (
            f"{root} has {train.folder}, but no images in {validation.folder} or "
            f"{validation.images_zip}"
        )
    elif others:
        problem = (
            f"{root} does not hold COCO {edition}, but {others[0]} "
            f"(--dataset=coco/{others[0]})"
        )
    else:
        problem = (
            f"{root} has no images in {train.folder}, {validation.folder} or zips of "
            f"these names"
        )
    return f"{problem}: {_how_to_get(edition)}"


def _how_to_get(edition: str) -> str:
    train, validation = EDITIONS[edition]
    return (
        f"get {train.images_zip}, {validation.images_zip} and, for captions and "
        f"labels, {train.annotations_zip} from https://cocodataset.org/#download "
        f"({_LICENCE}), and put them into one folder as they are, or unpacked to "
        f"{train.folder}/, {validation.folder}/ and annotations/"
    )
