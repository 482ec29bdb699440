import collections
import importlib.resources
import os
import shutil
from pathlib import Path

import pytest

from movq_jax.data.builders import imagenet
from movq_jax.data.images import ImageError
from movq_jax.data.preparing.writing import find_prepared, write_dataset
from movq_jax.errors import UserError

# The WordNet ids with the labels 0, 1 and 999.
CLASSES = {"n01440764": 0, "n01443537": 1, "n15075141": 999}
# Those of the validation images 1, 2 and 3.
VALIDATION = {"n01751748": 65, "n09193705": 970, "n02105855": 230}
KAGGLE = "ILSVRC/Data/CLS-LOC"


@pytest.fixture(scope="module")
def train(clothes):
    """Class -> name -> JPEG; one of them is a PNG that is called JPEG."""
    images = {
        name: {f"{name}_{n}.JPEG": clothes.jpeg(10 * label + n) for n in range(2)}
        for name, label in CLASSES.items()
    }
    images["n01443537"]["n01443537_1.JPEG"] = clothes.png(3)
    return images


@pytest.fixture(scope="module")
def validation(clothes):
    """Name -> JPEG."""
    return {f"ILSVRC2012_val_{n:08d}.JPEG": clothes.jpeg(50 + n) for n in (1, 2, 3)}


@pytest.fixture(scope="module")
def tars(pack, train, validation):
    """Name -> tar, as they are downloaded."""
    classes = {f"{name}.tar": pack.tar(images) for name, images in train.items()}
    return {
        "ILSVRC2012_img_train.tar": pack.tar(classes),
        "ILSVRC2012_img_val.tar": pack.tar(validation),
    }


@pytest.fixture
def source(pack, tars, tmp_path):
    return pack.folder(tmp_path / "tars", tars)


@pytest.fixture(scope="module")
def extracted(train, validation):
    """Name -> data of the extracted training and validation images."""
    return {
        f"train/{name}/{image}": data
        for name, images in train.items()
        for image, data in images.items()
    } | {f"val/{name}": data for name, data in validation.items()}


def test_the_tars_are_read_where_they_are(
    source, train, validation, tmp_path, read_records
):
    listing = imagenet.find(str(source))
    assert len(listing.classes) == 1000 and listing.ignored == 0
    assert listing.notes == [
        "a part of ImageNet: train has 6 of 1,281,167 images, validation has 3 of "
        "50,000 images"
    ]
    prepared = write_dataset(listing, name="imagenet", data_dir=tmp_path / "data")
    assert prepared.images == {"train": 6, "validation": 3}
    assert sorted(os.listdir(source)) == sorted(
        ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"]
    )
    records = {
        name: record
        for split in ("train", "validation")
        for name, record in read_records(tmp_path / "data", "imagenet", split).items()
    }
    images = [*train.values(), validation]
    assert {name: record["image"] for name, record in records.items()} == {
        name: data for group in images for name, data in group.items()
    }
    labels = {name: record["label"] for name, record in records.items()}
    for name, label in CLASSES.items():
        assert labels[f"{name}_0.JPEG"] == label
    assert [labels[name] for name in validation] == list(VALIDATION.values())


def layouts(pack, extracted, tars, train):
    """Yield name of a layout -> files that are the same dataset."""
    yield "extracted", extracted
    yield "kaggle", {f"{KAGGLE}/{name}": data for name, data in extracted.items()}
    yield (
        "zip of kaggle",
        {
            "imagenet-object-localization-challenge.zip": pack.zip(
                {f"{KAGGLE}/{name}": data for name, data in extracted.items()}
            )
        },
    )
    by_class = {
        f"val/{name}/ILSVRC2012_val_{number:08d}.JPEG": extracted[
            f"val/ILSVRC2012_val_{number:08d}.JPEG"
        ]
        for number, name in enumerate(VALIDATION, 1)
    }
    of_train = {n: d for n, d in extracted.items() if n.startswith("train/")}
    yield "by class", of_train | by_class
    yield (
        "the outer tar extracted",
        {f"train/{name}.tar": pack.tar(images) for name, images in train.items()}
        | {"ILSVRC2012_img_val.tar": tars["ILSVRC2012_img_val.tar"]},
    )
    yield (
        "mixed",
        of_train
        | {
            "validation" + name[3:]: d
            for name, d in extracted.items()
            if name[:3] == "val"
        },
    )


def test_every_layout_is_the_same_dataset(
    pack, source, extracted, tars, train, tmp_path
):
    fingerprint = imagenet.find(str(source)).fingerprint()
    for name, files in layouts(pack, extracted, tars, train):
        listing = imagenet.find(str(pack.folder(tmp_path / name, files)))
        assert listing.fingerprint() == fingerprint, name


def test_an_extracted_copy_is_recognised(pack, source, extracted, tmp_path):
    prepared = write_dataset(
        imagenet.find(str(source)), name="imagenet", data_dir=tmp_path
    )
    listing = imagenet.find(str(pack.folder(tmp_path / "extracted", extracted)))
    assert find_prepared("imagenet", tmp_path, listing) == prepared


def test_one_split_alone(source):
    (source / "ILSVRC2012_img_train.tar").unlink()
    listing = imagenet.find(str(source))
    assert list(listing.splits) == ["validation"]
    assert "train has 0 of 1,281,167 images" in listing.notes[0]


def test_the_whole_is_not_noted(source, monkeypatch):
    assert imagenet.OFFICIAL == {"train": 1_281_167, "validation": 50_000}
    monkeypatch.setattr(imagenet, "OFFICIAL", {"train": 6, "validation": 3})
    assert imagenet.find(str(source)).notes == []


def test_a_folder_with_a_part_of_it_hides_the_tar(source, pack, extracted):
    (name, image), *_ = extracted.items()
    pack.folder(source, {name: image})
    listing = imagenet.find(str(source))
    assert len(listing.splits["train"]) == 1
    assert listing.notes[-1] == (
        f"{source / 'train'} is taken, and ILSVRC2012_img_train.tar beside it is not: "
        f"move the folder away to take the tar"
    )


def test_without_a_source(tmp_path, source):
    how = r"get ILSVRC2012_img_train\.tar \(148 GB\).*image-net\.org.*non-commercial"
    with pytest.raises(UserError, match=f"=imagenet needs --source=DIR.*: {how}"):
        imagenet.find()
    with pytest.raises(UserError, match=f"does not exist: {how}"):
        imagenet.find(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=f"is a file, not a folder: {how}"):
        imagenet.find(str(source / "ILSVRC2012_img_val.tar"))
    with pytest.raises(UserError, match=rf"has no ILSVRC2012_img_train\.tar.*: {how}"):
        imagenet.find(str(tmp_path))


def test_another_tar(source):
    train = source / "ILSVRC2012_img_train.tar"
    shutil.copy(source / "ILSVRC2012_img_val.tar", train)
    with pytest.raises(UserError) as caught:
        imagenet.find(str(source))
    assert str(caught.value).startswith(
        f"{train} does not hold ImageNet's training images, a folder or a tar for each "
        f"class, as n01440764, but ILSVRC2012_val_00000001.JPEG: get ILSVRC2012"
    )


def test_the_tars_mixed_up(source, tars):
    (source / "ILSVRC2012_img_val.tar").write_bytes(tars["ILSVRC2012_img_train.tar"])
    expected = r"val\.tar does not hold ImageNet's validation .* but n01440764\.tar"
    with pytest.raises(UserError, match=expected):
        imagenet.find(str(source))


@pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"])
def test_a_tar_that_is_cut_off(source, tars, name):
    data = tars[name]
    for length in (0, 100, 700):
        (source / name).write_bytes(data[:length])
        with pytest.raises(UserError, match=f"{name}.* is not a whole tar file .*agai"):
            imagenet.find(str(source))


def test_the_tar_of_a_class_that_is_cut_off(pack, source, train):
    inner = {f"{name}.tar": pack.tar(images) for name, images in train.items()}
    inner["n01443537.tar"] = inner["n01443537.tar"][:900]
    (source / "ILSVRC2012_img_train.tar").write_bytes(pack.tar(inner))
    with pytest.raises(UserError, match=r"train\.tar/n01443537\.tar is not a whole"):
        imagenet.find(str(source))


def test_classes_by_other_names(pack, tmp_path):
    root = pack.folder(tmp_path / "named", {"train/tench/1.JPEG": b"x"})
    with pytest.raises(UserError, match=r"train does not .*, but tench/1\.JPEG: get"):
        imagenet.find(str(root))


def test_other_files_are_counted(pack, tmp_path, extracted):
    other = {
        "train/n01440764/list.txt": b"",
        "train/n99999999/1.JPEG": b"",
        "train/n01440764/sub/1.JPEG": b"",
        "val/list.txt": b"",
        "val/ILSVRC2012_val_00050001.JPEG": b"",
        "val/ILSVRC2012_val_00000000.JPEG": b"",
    }
    root = pack.folder(tmp_path / "extracted", extracted | other)
    listing = imagenet.find(str(root))
    assert listing.ignored == len(other)
    assert {split: len(e) for split, e in listing.splits.items()} == {
        "train": 6,
        "validation": 3,
    }


def test_validation_images_in_the_wrong_folder(pack, tmp_path, extracted):
    name = "val/n01440764/ILSVRC2012_val_00000001.JPEG"
    root = pack.folder(tmp_path / "wrong", extracted | {name: b"x"})
    expected = f"{name} lies in the folder of another class than its own, n01751748: "
    with pytest.raises(UserError, match=expected):
        imagenet.find(str(root))


def test_an_image_twice(pack, tmp_path, extracted, train):
    inner = {"train/n01440764.tar": pack.tar(train["n01440764"])}
    root = pack.folder(tmp_path / "twice", extracted | inner)
    with pytest.raises(UserError, match=r"train has n01440764_0\.JPEG twice, .*: remo"):
        imagenet.find(str(root))


def test_a_text_file_in_a_tar_is_refused_by_name(pack, source, train, tmp_path):
    inner = {name: dict(images) for name, images in train.items()}
    inner["n01443537"]["n01443537_7.JPEG"] = b"<html>"
    inner = {f"{name}.tar": pack.tar(images) for name, images in inner.items()}
    (source / "ILSVRC2012_img_train.tar").write_bytes(pack.tar(inner))
    listing = imagenet.find(str(source))
    name = "ILSVRC2012_img_train.tar/n01443537.tar/n01443537_7.JPEG"
    with pytest.raises(ImageError, match=f"{name} is not an image"):
        write_dataset(listing, name="imagenet", data_dir=tmp_path / "data")
    prepared = write_dataset(
        listing, name="imagenet", data_dir=tmp_path / "data", skip_broken=True
    )
    assert list(prepared.refused) == [str(source / name)]
    assert prepared.images == {"train": 6, "validation": 3}


def test_a_package_without_the_labels(source, monkeypatch):
    for cached in (imagenet._classes, imagenet._validation_labels):
        cached.cache_clear()
    monkeypatch.setattr(importlib.resources, "files", lambda name: Path("/nowhere"))
    with pytest.raises(UserError, match=r"no datasets/imagenet2012/labels\.txt, from"):
        imagenet.find(str(source))


def test_the_labels_are_those_of_everyone():
    classes = imagenet._classes()
    assert list(classes) == sorted(classes) and len(classes) == 1000
    assert CLASSES.items() <= classes.items() and VALIDATION.items() <= classes.items()
    counts = collections.Counter(imagenet._validation_labels())
    assert counts == dict.fromkeys(range(1000), 50)
