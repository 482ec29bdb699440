"""`folder`: any folder of images, list of paths, or pattern.

The class of an image is its first sub-folder. Where all sub-folders are called train,
validation (val) or test, they are the splits, and the class is the folder below.
Without a validation set, a fraction of the training images becomes one: each by a
hash of its own name, so that an image more does not move the others.
"""

import glob
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from movq_jax.data.builders.archives import walk
from movq_jax.data.builders.listing import (
    NO_LABEL,
    SPLITS,
    Example,
    Listing,
)
from movq_jax.data.builders.splitting import SPLIT_NAMES, check_fraction, held_out
from movq_jax.data.images import IMAGE_SUFFIXES
from movq_jax.errors import UserError


def find(source: str, validation_fraction: float = 0.1) -> Listing:
    """List the images of `source`, without opening any of them.

    Args:
        source: a folder (with its sub-folders; hidden files, and files that are not
            called like images, are left out); a text file with a path in each line,
            absolute or relative to the file's folder (empty lines, and those that
            start with #, are passed over); or a pattern, as `pictures/*/*.jpg`.
        validation_fraction: how much of the training images to hold out where there
            is no validation set, from 0 to below 1. Of two images or more, one at
            least goes each way, unless it is 0.

    Raises:
        UserError: there is no such source, no image in it, or a folder that cannot be
            read.
    """
    check_fraction(validation_fraction)
    files, ignored = _find_files(source)
    groups = _group(files)
    if "train" in groups and "validation" not in groups:
        keys = held_out(list(groups["train"]), validation_fraction)
        if keys:
            groups["validation"] = {key: groups["train"].pop(key) for key in keys}
    classes = sorted({c for group in groups.values() for c in group.values() if c})
    labels = {name: number for number, name in enumerate(classes)}
    return Listing(
        description=f"Images of {source}.",
        splits={
            split: [
                Example(files[key], key, labels.get(class_name, NO_LABEL))
                for key, class_name in groups[split].items()
            ]
            for split in SPLITS
            if split in groups
        },
        classes=classes,
        ignored=ignored + len(files) - sum(map(len, groups.values())),
    )


def _find_files(source: str) -> tuple[dict[str, Path], int]:
    """Return the images (key -> path), and how many files were no images by name."""
    path = Path(source).expanduser()
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise UserError(
            f"--source={source} cannot be read: {error.strerror or error}"
        ) from error
    if is_folder:
        root, candidates = path, list(walk(path))
    elif is_file:
        # A list names what it means: nothing of it is left out by its suffix.
        return _with_keys(_read_list(path), path.parent), 0
    elif glob.has_magic(source):
        root = Path(*path.parts[: _first_magic(path)])
        matches = sorted(glob.glob(str(path), recursive=True))
        candidates = [Path(match) for match in matches if os.path.isfile(match)]
    else:
        raise UserError(f"--source={source} does not exist")
    images = [file for file in candidates if file.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise UserError(
            f"no images in {source}"
            + (f", only {len(candidates)} other files" if candidates else "")
        )
    return _with_keys(images, root), len(candidates) - len(images)


def _read_list(path: Path) -> list[Path]:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(
            f"--source={path} is an image: give its folder, or a text file of paths"
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--source={path} is not a text file: {error}") from error
    entries = [line.strip() for line in lines]
    files = [path.parent / e for e in entries if e and not e.startswith("#")]
    if not files:
        raise UserError(f"--source={path} names no files")
    return files


def _first_magic(pattern: Path) -> int:
    """Return the number of leading parts of a pattern that are plain names."""
    return next(i for i, part in enumerate(pattern.parts) if glob.has_magic(part))


def _with_keys(files: Iterable[Path], root: Path) -> dict[str, Path]:
    """Name files by their place below `root`, or below what is common to all."""
    absolute = dict.fromkeys(os.path.abspath(file) for file in files)
    base = os.path.abspath(root)
    if any(os.path.commonpath([file, base]) != base for file in absolute):
        base = os.path.commonpath([os.path.dirname(file) for file in absolute])
    return {_key(os.path.relpath(file, base)): Path(file) for file in absolute}


def _key(relative: str) -> str:
    # A name that is not UTF-8 becomes one that is, and stays different from others.
    name = os.fsencode(relative).decode(errors="backslashreplace")
    return name.replace(os.sep, "/")


def _group(files: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Return split -> key -> class, '' for none; everything is train by default."""
    parts = {key: PurePosixPath(key).parts for key in files}
    top = {p[0] for p in parts.values() if len(p) > 1}
    splits = {name for name in top if name.lower() in SPLIT_NAMES}
    splits_given = top and top == splits
    if len({SPLIT_NAMES[name.lower()] for name in splits}) > 1 and not splits_given:
        raise UserError(
            f"{' and '.join(sorted(splits))} look like splits, but beside them lies "
            f"{min(top - splits)}: move it away, or give a source without the splits"
        )
    groups: dict[str, dict[str, str]] = {}
    for key, (first, *below) in parts.items():
        if splits_given and not below:
            continue  # loose files beside train/ and validation/
        split = SPLIT_NAMES[first.lower()] if splits_given else "train"
        folders = below[:-1] if splits_given else [first, *below][:-1]
        groups.setdefault(split, {})[key] = folders[0] if folders else ""
    return groups
