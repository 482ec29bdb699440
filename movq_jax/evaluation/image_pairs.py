"""Which image of one set belongs to which of another."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from movq_jax.data.images import IMAGE_SUFFIXES
from movq_jax.errors import UserError
from movq_jax.evaluation.image_sets import DatasetImages, FileImages, ImageSet

_NAMED = 3  # of the missing ones, in a message


def in_pairs(
    images: ImageSet, partners: ImageSet, most: int | None = None
) -> tuple[ImageSet, ImageSet, str]:
    """Return both, such that entries of one number belong together, and a note.

    Files and datasets that name their files are matched by these names without their
    suffixes, npz files by their order; the note says so where another order is likely.

    Args:
        images: to be judged, all of them.
        partners: what they are compared with, all of them.
        most: take the first so many images (None: all); others need no partner then.

    Raises:
        UserError: an image has no partner, the numbers differ, or nobody knows which
            images belong together.
    """
    by_name = (FileImages, DatasetImages)
    if isinstance(images, by_name) and isinstance(partners, by_name):
        return *_by_name(images, partners, most), ""
    ours, theirs = (len(range(len(x))[:most]) for x in (images, partners))
    if ours != theirs:
        raise UserError(
            f"{images.name} has {ours} images and {partners.name} {theirs}: metrics of "
            "pairs match them by their order, one to one"
        )
    note = ""
    if isinstance(images, by_name) or isinstance(partners, by_name):
        note = (
            f"{images.name} and {partners.name} are matched by their order alone: make "
            "sure that it is the same"
        )
    return images.take(range(ours)), partners.take(range(ours)), note


def _by_name(
    images: FileImages | DatasetImages,
    partners: FileImages | DatasetImages,
    most: int | None,
) -> tuple[ImageSet, ImageSet]:
    ours, theirs = _numbers(images), _numbers(partners)
    if not ours.keys() & theirs.keys():
        # One of them may have its images in folders, by class or so.
        shorter = [_without_folders(numbers) for numbers in (ours, theirs)]
        if all(shorter) and shorter[0].keys() & shorter[1].keys():
            ours, theirs = shorter
    chosen = list(ours)[:most]
    _check_partners(chosen, theirs, images.name, partners.name)
    if most is None:
        _check_partners(list(theirs), ours, partners.name, images.name)
    return (
        images.take([ours[name] for name in chosen]),
        partners.take([theirs[name] for name in chosen]),
    )


def _numbers(images: FileImages | DatasetImages) -> dict[str, int]:
    """Return the number of each image by its name without a suffix.

    Two that differ in the suffix alone keep it.
    """
    # A system may write the same letter as one sign or as two.
    names = [unicodedata.normalize("NFC", name) for name in images.file_names()]
    stems = [_stem(name) for name in names]
    count = Counter(stem.casefold() for stem in stems)
    found: dict[str, int] = {}
    for number, (name, stem) in enumerate(zip(names, stems, strict=True)):
        key = stem if count[stem.casefold()] == 1 else name
        if key in found:
            raise UserError(
                f"{images.name} has several images called {key}: nobody knows which of "
                "them belongs to which other image"
            )
        found[key] = number
    return found


def _without_folders(numbers: Mapping[str, int]) -> dict[str, int]:
    """Return the same by the last part of each name; {} where two are alike."""
    short = {PurePosixPath(name).name: number for name, number in numbers.items()}
    return short if len(short) == len(numbers) else {}


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    # Of 'a.b' without a suffix of images 'b' is no suffix.
    known = path.suffix.lower() in IMAGE_SUFFIXES
    return str(path.with_suffix("")) if known else str(path)


def _check_partners(
    names: Sequence[str], there: Mapping[str, int], ours: str, theirs: str
) -> None:
    missing = [name for name in names if name not in there]
    if not missing:
        return
    more = f" and {len(missing) - _NAMED} more" if missing[_NAMED:] else ""
    message = (
        f"{theirs} has no partner for {', '.join(missing[:_NAMED])}{more} of {ours}: "
        "metrics of pairs need files of the same names, each on both sides (suffixes "
        "may differ)"
    )
    twins = next((name for name in missing if _stem(name) in there), None)
    if twins is not None:
        message += (
            f"; {ours} has several files called {_stem(twins)}, so their suffixes "
            "count: rename or remove all but one"
        )
    raise UserError(message)
