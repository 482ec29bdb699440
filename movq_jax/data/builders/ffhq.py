"""`ffhq`: 70,000 aligned faces of Flickr, in NVIDIA's layout or as downloaded.

    images1024x1024/00000/00000.png ... 69000/69999.png   or in  images1024x1024.zip
    thumbnails128x128/00000/00000.png ...                 or in  thumbnails128x128.zip

or flat (images1024x1024/00000.png), or either folder as the source itself; images
of another size or format count as well if they keep their numbers. An edition is how
they are split; numbers of different editions cannot be compared:

taming  the random 60,000 / 10,000 of the VQ papers, from a published list
nvidia  the first 60,000 / the last 10,000, as NVIDIA appointed them
all     all 70,000 for training, as StyleGAN does

Only 1,397 images are for validation in both of the first two.

Karras et al., A Style-Based Generator Architecture for GANs, arXiv 1812.04948,
https://github.com/NVlabs/ffhq-dataset. The dataset: CC BY-NC-SA 4.0. Each image: of
its author, under CC BY, CC BY-NC, in the public domain, or a work of the US government.
"""

import re
from collections.abc import Callable
from pathlib import Path

from movq_jax.data.builders.archives import (
    File,
    files_below,
    is_file,
    is_folder,
    list_files,
    list_zip,
    source_folder,
)
from movq_jax.data.builders.listing import Example, Listing, count_notes
from movq_jax.data.builders.numbered import by_number
from movq_jax.data.builders.split_lists import FFHQ_TAMING, read_split_list
from movq_jax.errors import UserError

IMAGES = 70_000
_FIRST_OF_LAST = 60_000
OFFICIAL = {
    "taming": {"train": 60_000, "validation": 10_000},
    "nvidia": {"train": 60_000, "validation": 10_000},
    "all": {"train": IMAGES},
}
_SIZES = ("images1024x1024", "thumbnails128x128")
_NAME = re.compile(r"([0-9]{5}/)?(?P<number>[0-9]{5})")
_HOW_TO_GET = (
    "get images1024x1024 (89 GB) or thumbnails128x128 (2 GB) by the links or the "
    "script of https://github.com/NVlabs/ffhq-dataset (CC BY-NC-SA 4.0, for "
    "non-commercial use), and put the folder, or its zip, into DIR"
)


def find_taming(source: str | None = None, split_list: str | None = None) -> Listing:
    """List the images of FFHQ in the random split of the VQ papers.

    Args:
        source: the folder with `images1024x1024` or `thumbnails128x128`, unpacked or
            as a zip, or one of them.
        split_list: file with the numbers of the validation images; None: it is
            fetched once.

    Raises:
        UserError: there is no such source, no image of FFHQ or two of one number are
            in it, a zip is damaged, or the list cannot be had.
    """
    root = source_folder(source, "ffhq", _HOW_TO_GET)
    validation = read_split_list(FFHQ_TAMING, split_list)
    return _listing(
        root, "taming", "the VQ papers' random split", validation.__contains__
    )


def find_nvidia(source: str | None = None) -> Listing:
    """List the images of FFHQ: the first 60,000 to train, the last 10,000 to validate.

    For `source` and what is raised see `find_taming`.
    """
    root = source_folder(source, "ffhq/nvidia", _HOW_TO_GET)
    return _listing(
        root, "nvidia", "NVIDIA's split", lambda number: number >= _FIRST_OF_LAST
    )


def find_all(source: str | None = None) -> Listing:
    """List the images of FFHQ, all of them to train.

    For `source` and what is raised see `find_taming`.
    """
    root = source_folder(source, "ffhq/all", _HOW_TO_GET)
    return _listing(root, "all", "not split", lambda number: False)


EDITIONS = {"taming": find_taming, "nvidia": find_nvidia, "all": find_all}


def _listing(
    root: Path, edition: str, split_by: str, is_validation: Callable[[int], bool]
) -> Listing:
    images, ignored, notes = _images(root)
    splits: dict[str, list[Example]] = {"train": [], "validation": []}
    for number, (name, file) in sorted(images.items()):
        split = "validation" if is_validation(number) else "train"
        splits[split].append(Example(file, name))
    return Listing(
        description=f"FFHQ, {split_by}, https://github.com/NVlabs/ffhq-dataset (CC "
        f"BY-NC-SA 4.0; images: of their authors, various licences).",
        splits={split: examples for split, examples in splits.items() if examples},
        ignored=ignored,
        config=edition,
        notes=[*notes, *count_notes("FFHQ", OFFICIAL[edition], splits)],
    )


def _images(root: Path) -> tuple[dict[int, tuple[str, File]], int, list[str]]:
    """Return number -> (name, file), how many other files there are, and notes."""
    there = [
        size
        for size in _SIZES
        if is_folder(root / size) or is_file(root / f"{size}.zip")
    ]
    notes = [
        f"{root} has {there[0]}, which is taken, and {size}: --source={root / size} "
        f"takes that"
        for size in there[1:]
        if is_folder(root / size)
    ]
    if there:
        place, files = root / there[0], _of_size(root, there[0])
    else:
        place, files = root, files_below(root)
    images = by_number(files, _NAME, place)
    if not images:
        other = f", but {min(files)}" if files else ""
        raise UserError(
            f"{place} has no image that is called like those of FFHQ, as "
            f"00000/00000.png{other}: {_HOW_TO_GET}"
        )
    if max(images) >= IMAGES:
        raise UserError(
            f"{images[max(images)][1]} is not of FFHQ, whose numbers run from 0 to "
            f"{IMAGES - 1:,}: use --dataset=folder for other images"
        )
    return images, len(files) - len(images), notes


def _of_size(root: Path, size: str) -> dict[str, File]:
    files = list_files(root, size, f"{size}.zip")
    if not files and is_file(root / f"{size}.zip"):
        # Some zips of the images do not have that folder in them.
        files = dict(list_zip(root / f"{size}.zip"))
    return files
