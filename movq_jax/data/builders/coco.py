"""`coco`: COCO 2017 or 2014, in its official layout, unpacked or as downloaded.

    train2017/000000000009.jpg             or in  train2017.zip
    val2017/000000000139.jpg                      val2017.zip
    annotations/captions_train2017.json           annotations_trainval2017.zip

and the same with 2014, where images are called COCO_train2014_000000000009.jpg. The
captions are optional; a part of the images is a dataset, too, and a note says that it
is one.

Lin et al., Microsoft COCO: Common Objects in Context, 2014, https://cocodataset.org.
Annotations: CC BY 4.0. Images: of Flickr, under its terms of use.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from movq_jax.data.builders.archives import (
    File,
    find_file,
    is_file,
    list_files,
    source_folder,
    walk,
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

    @property
    def captions(self) -> str:
        return f"annotations/captions_{self.folder}.json"


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
    """List the images of COCO with their captions, without opening any of them.

    Records have `image/id`, the official number, and `captions`, empty where the
    annotations are not there. A source without train images is a dataset with a
    validation split only.

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
    notes = []
    splits = {}
    for part in parts:
        images = found[part][0]
        captions, caption_notes = _captions(root, part, images)
        notes += caption_notes
        splits[part.split] = [
            Example(
                path=path,
                key=name,
                extra={
                    "image/id": int(part.image_name.fullmatch(name)[1]),
                    "captions": captions.get(name, []),
                },
            )
            for name, path in images.items()
        ]
    official = {part.split: part.official_count for part in EDITIONS[edition]}
    return Listing(
        description=f"COCO {edition}, https://cocodataset.org ({_LICENCE}).",
        splits=splits,
        ignored=sum(ignored for _, ignored in found.values()),
        config=edition,
        features={
            "image/id": tfds.features.Scalar(np.int64),
            "captions": tfds.features.Sequence(tfds.features.Text()),
        },
        notes=[*count_notes(f"COCO {edition}", official, splits), *notes],
    )


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


def _captions(
    root: Path, part: _Part, images: Mapping[str, File]
) -> tuple[dict[str, list[str]], list[str]]:
    """Return name of an image -> its captions, and what to tell of them."""
    file = find_file(root, part.captions, part.annotations_zip)
    if file is None:
        return {}, [f"no {part.captions}: the images of {part.split} have no captions"]
    captions = _read_captions(file)
    missing = captions.keys() - images.keys()
    if not missing:
        return captions, []
    problem = (
        f"{file} names {len(missing):,} images that are not in {part.folder}, such as "
        f"{min(missing)}"
    )
    if len(missing) == len(captions):
        raise UserError(
            f"{problem}, and none that is: use the annotations of the same images, or "
            f"remove the file to go without captions"
        )
    return captions, [f"{problem}: their captions are left out"]


def _read_captions(file: File) -> dict[str, list[str]]:
    """Return name -> captions of all images that an annotation file names."""
    try:
        content = json.loads(file.read_bytes())
        names = {
            _typed(image["id"], int): _typed(image["file_name"], str)
            for image in content["images"]
        }
        captions: dict[str, list[str]] = {name: [] for name in names.values()}
        for annotation in content["annotations"]:
            number, caption = annotation["image_id"], annotation["caption"]
            if number not in names:
                raise ValueError(f"a caption of image {number}, which is not listed")
            captions[names[number]].append(_typed(caption, str))
    except KeyError as error:
        problem = f"there is no {error}"
    except (OSError, ValueError, TypeError, RecursionError) as error:
        problem = str(error)
    else:
        return captions
    raise UserError(
        f"{file} is not a whole file of COCO's captions ({problem}): download it "
        f"again, or remove it to go without captions"
    )


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} where {kind.__name__} is expected")
    return value


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
        f"get {train.images_zip}, {validation.images_zip} and, for the captions, "
        f"{train.annotations_zip} from https://cocodataset.org/#download ({_LICENCE}), "
        f"and put them into one folder as they are, or unpacked to {train.folder}/, "
        f"{validation.folder}/ and annotations/"
    )
