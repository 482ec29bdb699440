"""What COCO's annotation files tell of images: captions, and kinds of objects.

Files of other images than those that are there are refused; of a part of the images,
what is told of the others is left out, with a note.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from movq_jax.data.builders.archives import File, find_file
from movq_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What a file tells.

    Attributes:
        of: name of an image -> what is told of it; not every image needs to be there.
        names: of the labels, where they are such.
        notes: what to tell people, a sentence each.
    """

    of: Mapping[str, list]
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_captions(
    root: Path, folder: str, archive: str, images: Mapping[str, Any]
) -> Annotations | None:
    """Return name of an image -> its captions; None: there is no such file.

    Args:
        root: of the source.
        folder: of the images, such as `val2017`.
        archive: the zip that the annotations come in.
        images: by name, those that are there.

    Raises:
        UserError: the file is damaged, or of other images.
    """
    return _read(root, "captions", folder, archive, images, _captions)


def read_labels(
    root: Path, folder: str, archive: str, images: Mapping[str, Any]
) -> Annotations | None:
    """Return name of an image -> labels of the kinds of objects in it, ascending.

    A label is the rank of the official category id, which has gaps: 0 to 79. Arguments
    and errors are those of `read_captions`.
    """
    return _read(root, "instances", folder, archive, images, _labels)


def _read(
    root: Path,
    kind: str,
    folder: str,
    archive: str,
    images: Mapping[str, Any],
    take: Callable[[dict, dict[int, list]], tuple[str, ...]],
) -> Annotations | None:
    what = _WORDS[kind]
    file = find_file(root, f"annotations/{kind}_{folder}.json", archive)
    if file is None:
        return None
    told, names = _parse(file, what, take)
    missing = told.keys() - images.keys()
    if not missing:
        return Annotations(told, names)
    problem = (
        f"{file} names {len(missing):,} images that are not in {folder}, such as "
        f"{min(missing)}"
    )
    if len(missing) == len(told):
        raise UserError(
            f"{problem}, and none that is: use the annotations of the same images, or "
            f"remove the file to go without {what}"
        )
    return Annotations(told, names, (f"{problem}: their {what} are left out",))


_WORDS = {"captions": "captions", "instances": "labels"}


def _parse(file: File, what: str, take: Callable) -> tuple[dict[str, list], tuple]:
    """Return name -> what `take` finds for all images that a file names, and names."""
    try:
        content = json.loads(file.read_bytes())
        images = {
            _typed(image["id"], int): _typed(image["file_name"], str)
            for image in content["images"]
        }
        told: dict[int, list] = {number: [] for number in images}
        names = take(content, told)
    except KeyError as error:
        problem = f"there is no {error}"
    except (OSError, ValueError, TypeError, RecursionError) as error:
        problem = str(error)
    else:
        return {images[number]: entry for number, entry in told.items()}, names
    raise UserError(
        f"{file} is not a whole file of COCO's {what} ({problem}): download it "
        f"again, or remove it to go without {what}"
    )


def _captions(content: dict, told: dict[int, list]) -> tuple[str, ...]:
    for annotation in content["annotations"]:
        number, caption = annotation["image_id"], annotation["caption"]
        if number not in told:
            raise ValueError(f"a caption of image {number}, which is not listed")
        told[number].append(_typed(caption, str))
    return ()


def _labels(content: dict, told: dict[int, list]) -> tuple[str, ...]:
    categories = sorted(
        (_typed(category["id"], int), _typed(category["name"], str))
        for category in content["categories"]
    )
    ranks = {number: rank for rank, (number, _) in enumerate(categories)}
    found: dict[int, set[int]] = {number: set() for number in told}
    for annotation in content["annotations"]:
        number, category = annotation["image_id"], annotation["category_id"]
        if number not in told:
            raise ValueError(f"an object in image {number}, which is not listed")
        if category not in ranks:
            raise ValueError(f"an object of category {category}, which is not listed")
        found[number].add(ranks[category])
    told.update((number, sorted(labels)) for number, labels in found.items())
    return tuple(name for _, name in categories)


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} where {kind.__name__} is expected")
    return value
