"""`imagenet`: ILSVRC 2012, 1000 classes, as downloaded or extracted.

    ILSVRC2012_img_train.tar      a tar of a tar for each class: n01440764.tar, ...
    ILSVRC2012_img_val.tar        ILSVRC2012_val_00000001.JPEG, ...

Neither is extracted. Or, of either, what came out of it:

    train/n01440764/n01440764_10026.JPEG      or  train/n01440764.tar
    val/ILSVRC2012_val_00000001.JPEG          or  val/n01751748/ILSVRC2012_val_...JPEG

also in Kaggle's folders ILSVRC/Data/CLS-LOC/, unpacked or in its zip. 1,281,167 images
to train, 50,000 to validate. The label is the rank of the WordNet id among the sorted
ones, as everywhere but in ILSVRC's own kit; those of the validation images come with
TensorFlow Datasets. The images of the test set have no labels, and are left out.

Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, arXiv 1409.0575,
https://image-net.org. For non-commercial research and education, under its terms of
access.
"""

import functools
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from movq_jax.data.builders.archives import (
    File,
    ZipMember,
    files_below,
    is_file,
    is_folder,
    list_files,
    list_tar,
    source_folder,
)
from movq_jax.data.builders.listing import Example, Listing, count_notes
from movq_jax.data.images import IMAGE_SUFFIXES
from movq_jax.errors import UserError

OFFICIAL = {"train": 1_281_167, "validation": 50_000}
_TRAIN_TAR = "ILSVRC2012_img_train.tar"
_VALIDATION_TAR = "ILSVRC2012_img_val.tar"
_KAGGLE = "ILSVRC/Data/CLS-LOC"
_KAGGLE_ZIP = "imagenet-object-localization-challenge.zip"
_LABELS = "datasets/imagenet2012"  # in TensorFlow Datasets
_CLASS = re.compile(r"n[0-9]{8}")
_VALIDATION_NAME = re.compile(r"ILSVRC2012_val_([0-9]{8})")
_HOW_TO_GET = (
    f"get {_TRAIN_TAR} (148 GB) and {_VALIDATION_TAR} (7 GB) from "
    f"https://image-net.org/download (an account, non-commercial research and "
    f"education only), and put them into one folder as they are, or extracted to "
    f"train/n01440764/*.JPEG and val/"
)


def find(source: str | None = None) -> Listing:
    """List the images of ImageNet with their classes, without opening any of them.

    A source without one of the splits is a dataset with the other only.

    Args:
        source: the folder with the tars, or with `train` and `val`.

    Raises:
        UserError: there is no such source, neither split is in it, a tar is damaged or
            another, a folder holds none of the classes, or a validation image lies in
            the folder of a class that is not its own.
    """
    root = source_folder(source, "imagenet", _HOW_TO_GET)
    train, train_ignored = _train(root)
    validation, validation_ignored = _validation(root)
    splits = {"train": train, "validation": validation}
    splits = {split: examples for split, examples in splits.items() if examples}
    if not splits:
        raise UserError(
            f"{root} has no {_TRAIN_TAR}, {_VALIDATION_TAR}, train/ or val/: "
            f"{_HOW_TO_GET}"
        )
    return Listing(
        description="ImageNet, ILSVRC 2012, https://image-net.org (for non-commercial "
        "research and education, under its terms of access).",
        splits=splits,
        classes=list(_classes()),
        ignored=train_ignored + validation_ignored,
        notes=count_notes("ImageNet", OFFICIAL, splits) + _hidden_tar(root, splits),
    )


def _hidden_tar(root: Path, splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """Tell of a tar that a folder with a part of it keeps from being read."""
    short = len(splits.get("train", ())) < OFFICIAL["train"]
    if short and is_folder(root / "train") and is_file(root / _TRAIN_TAR):
        return [
            f"{root / 'train'} is taken, and {_TRAIN_TAR} beside it is not: move the "
            f"folder away to take the tar"
        ]
    return []


def _train(root: Path) -> tuple[list[Example], int]:
    """Return the training images, and how many other files there are."""
    files = _extracted(root, "train")
    if files:
        place = "train"
    elif is_file(root / _TRAIN_TAR):
        place, files = _TRAIN_TAR, dict(list_tar(root / _TRAIN_TAR))
    else:
        return [], 0
    examples: dict[str, Example] = {}
    ignored = 0
    for name, file in files.items():
        images = _of_class(PurePosixPath(name), file)
        ignored += not images
        for example in images:
            if example.key in examples:
                other = examples[example.key].path
                raise UserError(
                    f"{root / place} has {example.key} twice, {other} and "
                    f"{example.path}: remove one"
                )
            examples[example.key] = example
    if not examples:
        raise UserError(
            f"{root / place} does not hold ImageNet's training images, a folder or a "
            f"tar for each class, as n01440764, but {min(files, default='nothing')}: "
            f"{_HOW_TO_GET}"
        )
    return list(examples.values()), ignored


def _of_class(name: PurePosixPath, file: File) -> list[Example]:
    """Return the images of a file, which may be the tar of a class."""
    if name.suffix == ".tar" and not isinstance(file, ZipMember):
        label = _classes().get(name.stem)
        members = {} if label is None else list_tar(file)
        return [
            Example(member, PurePosixPath(image).name, label)
            for image, member in members.items()
            if _is_image(image)
        ]
    label = _classes().get(name.parts[0])
    if label is None or len(name.parts) != 2 or not _is_image(name.name):
        return []
    return [Example(file, name.name, label)]


def _validation(root: Path) -> tuple[list[Example], int]:
    """Return the validation images, and how many other files there are."""
    files = _extracted(root, "val") or _extracted(root, "validation")
    place = "val"
    if not files:
        if not is_file(root / _VALIDATION_TAR):
            return [], 0
        place, files = _VALIDATION_TAR, dict(list_tar(root / _VALIDATION_TAR))
    labels = _validation_labels()
    examples = {}
    for name, file in files.items():
        path = PurePosixPath(name)
        match = _VALIDATION_NAME.fullmatch(path.stem)
        if not match or not _is_image(name) or not 0 < int(match[1]) <= len(labels):
            continue
        label = labels[int(match[1]) - 1]
        _check_folder(path, label, file)
        examples[path.name] = Example(file, path.name, label)
    if not examples:
        raise UserError(
            f"{root / place} does not hold ImageNet's validation images, as "
            f"ILSVRC2012_val_00000001.JPEG, but {min(files, default='nothing')}: "
            f"{_HOW_TO_GET}"
        )
    return list(examples.values()), len(files) - len(examples)


def _check_folder(path: PurePosixPath, label: int, file: File) -> None:
    """Refuse an image that was sorted by other labels, such as those of the kit."""
    folder = path.parts[-2] if len(path.parts) > 1 else ""
    if _CLASS.fullmatch(folder) and _classes().get(folder) != label:
        right = next(name for name, number in _classes().items() if number == label)
        raise UserError(
            f"{file} lies in the folder of another class than its own, {right}: move "
            f"the images there, or all into one folder, or give {_VALIDATION_TAR}"
        )


def _extracted(root: Path, folder: str) -> dict[str, File]:
    return files_below(root / folder) or list_files(
        root, f"{_KAGGLE}/{folder}", _KAGGLE_ZIP
    )


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


@functools.cache
def _classes() -> Mapping[str, int]:
    """Return WordNet id -> label, the ids sorted."""
    names = _read_labels("labels.txt")
    return {name: label for label, name in enumerate(names)}


@functools.cache
def _validation_labels() -> list[int]:
    """Return the labels of the validation images 1, 2, ..."""
    classes = _classes()
    return [classes[name] for name in _read_labels("validation_labels.txt")]


def _read_labels(name: str) -> list[str]:
    file = importlib.resources.files("tensorflow_datasets") / _LABELS / name
    try:
        return file.read_text(encoding="utf-8").split()
    except OSError as error:
        raise UserError(
            f"the installed tensorflow-datasets has no {_LABELS}/{name}, from which "
            f"the labels come: pip install tensorflow-datasets==4.9.10"
        ) from error
