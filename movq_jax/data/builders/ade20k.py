"""`ade20k`: scenes of all kinds, in one of two official layouts, unpacked or zipped.

full       ADE20K_2021_17_01/images/ADE/{training,validation}/<category>/<scene>/
           ADE_train_00000001.jpg, ...; 25,574 / 2,000; VQCT and Dual Codebook VQ use it
challenge  ADEChallengeData2016/images/{training,validation}/ADE_train_00000001.jpg,
           ...; 20,210 / 2,000; of MIT's scene parsing benchmark

or in ADE20K_2021_17_01.zip, ADEChallengeData2016.zip, or the source is that folder
itself. The class is the scene: of `full` its folder, of `challenge` what
sceneCategories.txt says. Segmentation maps are left out; the pickled index of `full` is
not read.

Zhou et al., Scene Parsing through ADE20K Dataset, 2017,
https://groups.csail.mit.edu/vision/datasets/ADE20K. Annotations: BSD 3-clause. Images:
for non-commercial research and education, under its terms of use.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from movq_jax.data.builders.archives import (
    File,
    find_file,
    is_file,
    list_files,
    source_folder,
    walk,
)
from movq_jax.data.builders.listing import (
    NO_LABEL,
    Example,
    Listing,
    count_notes,
)
from movq_jax.errors import UserError

_SITE = "https://groups.csail.mit.edu/vision/datasets/ADE20K"
_LICENCE = "annotations: BSD 3-clause; images: non-commercial research and education"
_SCENES = "sceneCategories.txt"
_NAME = re.compile(r"ADE_(?:train|val|frame)_[0-9]{8}\.jpg")
_FOLDERS = {"train": "training", "validation": "validation"}


@dataclasses.dataclass(frozen=True)
class _Edition:
    """One of the two releases.

    Attributes:
        name: what we call it.
        folder: its own folder, and the name of its zip.
        images: the folder below that with the folders of the splits.
        official: how many images its splits have.
        url: where to get it.
    """

    name: str
    folder: str
    images: str
    official: Mapping[str, int]
    url: str


EDITIONS = {
    "full": _Edition(
        name="full",
        folder="ADE20K_2021_17_01",
        images="images/ADE",
        official={"train": 25_574, "validation": 2_000},
        url=_SITE,
    ),
    "challenge": _Edition(
        name="challenge",
        folder="ADEChallengeData2016",
        images="images",
        official={"train": 20_210, "validation": 2_000},
        url="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
    ),
}


def find(source: str | None = None, edition: str | None = None) -> Listing:
    """List the images of ADE20K with their scenes, without opening any of them.

    A source without one of the splits is a dataset with the other only.

    Args:
        source: the folder with the release's folder or zip, or that folder itself.
        edition: `full` or `challenge`; None: whichever lies in `source`.

    Raises:
        UserError: there is no such source, none of the editions or both are in it, a
            zip is damaged, or the list of scenes is none.
    """
    wanted = [EDITIONS[edition]] if edition else list(EDITIONS.values())
    name = f"ade20k/{edition}" if edition else "ade20k"
    root = source_folder(source, name, _how_to_get(wanted))
    there = [choice for choice in wanted if _is_there(root, choice)]
    if len(there) > 1:
        raise UserError(
            f"{root} holds both editions of ADE20K: choose one, "
            f"--dataset=ade20k/full or --dataset=ade20k/challenge"
        )
    found = {split: _images(root, there[0], split) for split in _FOLDERS if there}
    if not any(images for images, _ in found.values()):
        raise UserError(_not_there(root, wanted))
    return _listing(root, there[0], found)


def _listing(
    root: Path,
    edition: _Edition,
    found: Mapping[str, tuple[dict[str, File], int]],
) -> Listing:
    if edition.name == "full":
        scenes, notes = {}, []
        for images, _ in found.values():
            scenes |= {name: str(PurePosixPath(name).parent) for name in images}
    else:
        scenes, notes = _read_scenes(root, edition)
    named = {name for images, _ in found.values() for name in images} & scenes.keys()
    classes = sorted({scenes[name] for name in named})
    labels = {scene: label for label, scene in enumerate(classes)}
    splits = {
        split: [
            Example(file, name, labels.get(scenes.get(name, ""), NO_LABEL))
            for name, file in images.items()
        ]
        for split, (images, _) in found.items()
        if images
    }
    return Listing(
        description=f"ADE20K, {edition.folder}, {_SITE} ({_LICENCE}).",
        splits=splits,
        classes=classes,
        ignored=sum(ignored for _, ignored in found.values()),
        config=edition.name,
        notes=[
            *count_notes(f"ADE20K {edition.name}", edition.official, splits),
            *notes,
        ],
    )


def _is_there(root: Path, edition: _Edition) -> bool:
    zipped = is_file(root / f"{edition.folder}.zip")
    return zipped or any(
        any(walk(root / inside / edition.images / folder))
        for inside in (edition.folder, "")
        for folder in _FOLDERS.values()
    )


def _images(root: Path, edition: _Edition, split: str) -> tuple[dict[str, File], int]:
    """Return name -> file of the images, and how many files are not of ADE20K."""
    folder = f"{edition.images}/{_FOLDERS[split]}"
    files = list_files(
        root, f"{edition.folder}/{folder}", f"{edition.folder}.zip"
    ) or list_files(root, folder, "")
    images = {
        name: file
        for name, file in files.items()
        if _NAME.fullmatch(PurePosixPath(name).name)
    }
    if files and not images:
        raise UserError(
            f"{folder} of {root} has no image that is called like those of ADE20K, as "
            f"ADE_val_00000001.jpg, but {min(files)}: use the official files, or "
            f"--dataset=folder for other images"
        )
    # Beside each image of the full release lie its maps and a file of objects.
    stems = {name.removesuffix(".jpg") for name in images}
    ours = sum(_stem_of_image(name) in stems for name in files)
    return images, len(files) - ours


def _stem_of_image(name: str) -> str:
    """Return a/b/ADE_val_00000001 of a/b/ADE_val_00000001{.jpg,_seg.png,/x.png}."""
    match = re.match(r"(?:.*?/)?ADE_(?:train|val|frame)_[0-9]{8}", name)
    return match[0] if match else name


def _read_scenes(root: Path, edition: _Edition) -> tuple[dict[str, str], list[str]]:
    """Return name of an image -> its scene, and what to tell of it."""
    file = find_file(root, f"{edition.folder}/{_SCENES}", f"{edition.folder}.zip")
    if file is None:
        file = find_file(root, _SCENES, "")
    if file is None:
        return {}, [f"no {_SCENES}: the images have no scenes as classes"]
    try:
        lines = file.read_bytes().decode().splitlines()
        pairs = [line.split() for line in lines if line.strip()]
        return {f"{name}.jpg": scene for name, scene in pairs}, []
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} is not ADE20K's list of an image and its scene in each line "
            f"({error}): download it again, or remove it to go without classes"
        ) from error


def _not_there(root: Path, wanted: list[_Edition]) -> str:
    others = [e for e in EDITIONS.values() if e not in wanted and _is_there(root, e)]
    if others:
        problem = (
            f"{root} does not hold ADE20K {wanted[0].name}, but {others[0].name} "
            f"(--dataset=ade20k/{others[0].name})"
        )
    else:
        places = " or ".join(f"{e.folder}/{e.images}/training" for e in wanted)
        problem = f"{root} has no images in {places} or zips of these folders"
    return f"{problem}: {_how_to_get(wanted)}"


def _how_to_get(wanted: list[_Edition]) -> str:
    choices = " or ".join(
        f"{e.folder}.zip ({e.official['train']:,} / {e.official['validation']:,} "
        f"images) from {e.url}"
        for e in wanted
    )
    return f"get {choices} ({_LICENCE}), and put it into a folder as it is, or unpacked"
