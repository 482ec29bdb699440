"""`celebahq`: 30,000 aligned faces of celebrities, in one of several layouts.

    CelebAMask-HQ/CelebA-HQ-img/0.jpg ... 29999.jpg     or in  CelebAMask-HQ.zip
    CelebA-HQ-img/0.jpg ...
    data256x256/00001.jpg ... 30000.jpg                 or in  data256x256.zip

or the folder of the images as the source itself, any size or format of them. Where they
are counted from 1, as in data256x256, number n is taken for image n - 1, which is not
documented. An edition is how they are split;
numbers of different editions cannot be compared:

taming      the random 25,000 / 5,000 of the VQ papers, from a published list; that its
            numbers are those of CelebAMask-HQ is likely, but not documented
celebamask  as CelebA splits its originals, which CelebA-HQ-to-CelebA-mapping.txt
            names: below 162,771 to train, from 182,638 on to test, the others to
            validate; 24,183 / 2,993 / 2,824
folders     as they lie in train/, val/ and test/, the class a folder below (StarGAN
            v2's celeba_hq, celeba-HQ-1024)

Karras et al., Progressive Growing of GANs, arXiv 1710.10196; Lee et al., MaskGAN
(CelebAMask-HQ), arXiv 1907.11922, https://github.com/switchablenorms/CelebAMask-HQ. For
non-commercial research and education.
"""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

from movq_jax.data.builders import folder
from movq_jax.data.builders.archives import (
    File,
    files_below,
    find_file,
    is_file,
    is_folder,
    list_files,
    source_folder,
)
from movq_jax.data.builders.listing import SPLITS, Example, Listing, count_notes
from movq_jax.data.builders.numbered import by_number
from movq_jax.data.builders.split_lists import CELEBAHQ_TAMING, read_split_list
from movq_jax.errors import UserError

IMAGES = 30_000
OFFICIAL = {
    "taming": {"train": 25_000, "validation": 5_000},
    "celebamask": {"train": 24_183, "validation": 2_993, "test": 2_824},
}
_MASK = "CelebAMask-HQ"
_MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
_FROM_ONE = "data256x256"
# Folders of images, and the zips that have them.
_PLACES = {
    f"{_MASK}/CelebA-HQ-img": f"{_MASK}.zip",
    "CelebA-HQ-img": "CelebA-HQ-img.zip",
    _FROM_ONE: f"{_FROM_ONE}.zip",
}
_SPLIT_PLACES = ("", "celeba-HQ-1024", "celeba_hq", "celeba-hq")
_NAME = re.compile(r"(?:imgHQ)?(?P<number>[0-9]{1,5})")
_FIRST_VALIDATION, _FIRST_TEST = 162_771, 182_638
_LICENCE = "for non-commercial research and education"
_HOW_TO_GET = (
    f"get {_MASK}.zip (3 GB) by the links of "
    f"https://github.com/switchablenorms/CelebAMask-HQ ({_LICENCE}), and put it into "
    f"DIR as it is, or unpacked; or the images of another size as data256x256/*.jpg"
)
_HOW_TO_LAY_OUT = (
    "the images lie in DIR/train and DIR/val, and if there are, in DIR/test, as in "
    "https://github.com/clovaai/stargan-v2 (CC BY-NC 4.0)"
)


def find_taming(source: str | None = None, split_list: str | None = None) -> Listing:
    """List the images of CelebA-HQ in the random split of the VQ papers.

    Args:
        source: the folder with the folder or the zip of the images, or the first.
        split_list: file with the numbers of the validation images; None: it is
            fetched once.

    Raises:
        UserError: there is no such source, no image of CelebA-HQ or two of one number
            are in it, a zip is damaged, or the list cannot be had.
    """
    root = source_folder(source, "celebahq", _HOW_TO_GET)
    validation = read_split_list(CELEBAHQ_TAMING, split_list)

    def split_of(number: int) -> str:
        return "validation" if number in validation else "train"

    return _listing(root, "taming", "the VQ papers' random split", split_of)


def find_celebamask(source: str | None = None) -> Listing:
    """List the images of CelebA-HQ, split as CelebA splits the originals.

    Args:
        source: as in `find_taming`, with the mapping file beside the images.

    Raises:
        UserError: as `find_taming`, or the mapping file is missing or damaged.
    """
    root = source_folder(source, "celebahq/celebamask", _HOW_TO_GET)
    originals = _read_mapping(root)

    def split_of(number: int) -> str:
        original = originals.get(number)
        if original is None:
            raise UserError(
                f"{_MAPPING} of {root} does not name image {number}: download it again"
            )
        if original < _FIRST_VALIDATION:
            return "train"
        return "validation" if original < _FIRST_TEST else "test"

    return _listing(root, "celebamask", "CelebA's split", split_of)


def find_folders(source: str | None = None) -> Listing:
    """List the images of CelebA-HQ, split by the folders they lie in.

    Args:
        source: the folder with `train` and `val`, or one in which that lies.

    Raises:
        UserError: there is no such source, or no such folders in it.
    """
    root = source_folder(source, "celebahq/folders", _HOW_TO_LAY_OUT)
    place = next(
        (root / p for p in _SPLIT_PLACES if is_folder(root / p / "train")), None
    )
    listing = None if place is None else folder.find(str(place), 0)
    if listing is None or listing.splits.keys() in ({"train"}, {"test"}):
        raise UserError(f"{root} has no images in train/ and val/: {_HOW_TO_LAY_OUT}")
    return dataclasses.replace(
        listing,
        description=f"CelebA-HQ, split by folders ({_LICENCE}).",
        config="folders",
    )


EDITIONS = {
    "taming": find_taming,
    "celebamask": find_celebamask,
    "folders": find_folders,
}


def _listing(
    root: Path, edition: str, split_by: str, split_of: Callable[[int], str]
) -> Listing:
    images, ignored, notes = _images(root)
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for number, (name, file) in sorted(images.items()):
        splits[split_of(number)].append(Example(file, name))
    return Listing(
        description=f"CelebA-HQ, {split_by} ({_LICENCE}).",
        splits={split: examples for split, examples in splits.items() if examples},
        ignored=ignored,
        config=edition,
        notes=[*notes, *count_notes("CelebA-HQ", OFFICIAL[edition], splits)],
    )


def _images(root: Path) -> tuple[dict[int, tuple[str, File]], int, list[str]]:
    """Return number -> (name, file), how many other files there are, and notes."""
    place, files = root, {}
    for inside, archive in _PLACES.items():
        files = list_files(root, inside, archive)
        if files:
            place = root / inside
            break
    files = files or files_below(root)
    images = by_number(files, _NAME, place)
    if not images:
        other = f", but {min(files)}" if files else ""
        raise UserError(
            f"{place} has no image that is called like those of CelebA-HQ, as 0.jpg"
            f"{other}: {_HOW_TO_GET}"
        )
    notes = [
        f"{place} is taken; --source={root / other} takes the images there"
        for other in _PLACES
        if place not in (root, root / other) and is_folder(root / other)
    ]
    if 0 not in images and (IMAGES in images or place.name == _FROM_ONE):
        images = {number - 1: image for number, image in images.items()}
        first = min(images)
        notes.append(f"{place} counts from 1: {images[first][0]} is image {first}")
    if max(images) >= IMAGES:
        raise UserError(
            f"{images[max(images)][1]} is not of CelebA-HQ, whose numbers run from 0 "
            f"to {IMAGES - 1:,}: use --dataset=folder for other images"
        )
    return images, len(files) - len(images), notes


def _read_mapping(root: Path) -> dict[int, int]:
    """Return number of an image -> that of its original in CelebA."""
    file = find_file(root, f"{_MASK}/{_MAPPING}", f"{_MASK}.zip") or find_file(
        root, _MAPPING, ""
    )
    if file is None and is_file(root.parent / _MAPPING):
        file = root.parent / _MAPPING  # the source is the folder of the images itself
    if file is None:
        raise UserError(
            f"{root} has no {_MAPPING}, by which celebahq/celebamask is split: it is "
            f"in {_MASK}.zip; {_HOW_TO_GET}"
        )
    try:
        header, *lines = file.read_bytes().decode().split("\n")
        if header.split() != ["idx", "orig_idx", "orig_file"]:
            raise ValueError(f"the first line is {header[:40]!r}")
        rows = [line.split() for line in lines if line.strip()]
        return {int(number): int(original) for number, original, _ in rows}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} is not the mapping of {_MASK} ({error}): download it again"
        ) from error
