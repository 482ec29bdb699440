import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from movq_jax.data.builders import BUILDERS, coco
from movq_jax.data.images import ImageError
from movq_jax.data.pipeline import eval_batches, train_batches
from movq_jax.data.preparing.writing import find_prepared, write_dataset
from movq_jax.data.sources import open_split
from movq_jax.errors import UserError

COUNTS = {"train": 5, "val": 3}


def image_name(part, number):
    prefix = f"COCO_{part}_" if part.endswith("2014") else ""
    return f"{prefix}{number:012}.jpg"


# The official ids have gaps, and nothing says that they are in order.
CATEGORIES = [(90, "toothbrush"), (1, "person"), (3, "car")]


def captions_file(root, part):
    return root / "annotations" / f"captions_{part}.json"


def instances_file(root, part):
    return root / "annotations" / f"instances_{part}.json"


def write_layout(root, year):
    """Write five training and three validation pictures, all but one with captions."""
    for kind, count in COUNTS.items():
        part = f"{kind}{year}"
        first = 100 if kind == "train" else 900
        images = []
        (root / part).mkdir(parents=True)
        for number in range(first, first + count):
            name = image_name(part, number)
            colour = (number % 100 * 40, int(year) % 100, 99)
            size = (40 + number % 7, 24 + number % 5)
            Image.new("RGB", size, colour).save(root / part / name)
            images.append({"id": number, "file_name": name})
        annotations = [
            {"image_id": image["id"], "id": 7 * n, "caption": f"{n}, {image['id']}é.\n"}
            for n in range(2)
            for image in images[1:]
        ]
        content = {"images": images, "annotations": annotations, "info": {}}
        captions_file(root, part).parent.mkdir(exist_ok=True)
        captions_file(root, part).write_text(json.dumps(content))
        content["annotations"] = [
            {"image_id": image["id"], "category_id": category, "iscrowd": 0}
            for image in images[1:]
            for category in (CATEGORIES[image["id"] % 3][0], 3, 3)
        ]
        content["categories"] = [{"id": i, "name": name} for i, name in CATEGORIES]
        instances_file(root, part).write_text(json.dumps(content))
    return root


@pytest.fixture
def layout(tmp_path):
    """COCO 2017, eight pictures of it."""
    return write_layout(tmp_path / "coco", "2017")


def pack(root, target):
    """Pack a layout into zips like the official ones."""
    for folder in root.iterdir():
        name = folder.name
        if name == "annotations":
            year = next(folder.iterdir()).stem[-4:]
            name = f"annotations_trainval{year}"
        shutil.make_archive(target / name, "zip", root, folder.name)
    return target


def records(data_dir, split, config="2017"):
    """Return file name -> record, as TensorFlow Datasets reads them."""
    builder = tfds.builder_from_directory(data_dir / "coco" / config / "1.0.0")
    decoders = {"image": tfds.decode.SkipDecoding()}
    source = builder.as_data_source(split, decoders=decoders)
    return {record["filename"].decode(): record for record in source}


@pytest.mark.parametrize("year", ["2014", "2017"])
def test_both_editions(tmp_path, year):
    source = write_layout(tmp_path / "source", year)
    listing = coco.find(str(source))
    assert listing.config == year
    named = BUILDERS[f"coco/{year}"](str(source))
    assert (named.config, named.fingerprint()) == (year, listing.fingerprint())
    prepared = write_dataset(listing, name="coco", data_dir=tmp_path)
    assert prepared.folder == tmp_path / "coco" / year / "1.0.0"
    assert prepared.images == {"train": 5, "validation": 3}
    for split, kind, first in (("train", "train", 100), ("validation", "val", 900)):
        part = f"{kind}{year}"
        stored = records(tmp_path, split, year)
        assert sorted(stored) == [
            image_name(part, first + n) for n in range(COUNTS[kind])
        ]
        for name, record in stored.items():
            number = record["image/id"]
            assert name == image_name(part, number)
            assert record["image"] == (source / part / name).read_bytes()
            assert record["label"] == -1
            captions = [caption.decode() for caption in record["captions"]]
            expected = [] if number == first else [f"{n}, {number}é.\n" for n in (0, 1)]
            assert captions == expected
            others = {0: 2, 1: 0, 2: 1}  # ranks of the categories' ids
            labels = [] if number == first else sorted({others[number % 3], 1})
            assert list(record["labels"]) == labels
        names = tfds.builder_from_directory(prepared.folder).info.features["labels"]
        assert names.feature.names == ["person", "car", "toothbrush"]


@pytest.mark.parametrize("year", ["2014", "2017"])
def test_zips_are_the_same_dataset(tmp_path, year):
    source = write_layout(tmp_path / "source", year)
    (tmp_path / "zips").mkdir()
    zips = pack(source, tmp_path / "zips")
    before = sorted(zips.iterdir())
    prepared = write_dataset(coco.find(str(source)), name="coco", data_dir=tmp_path)
    listing = coco.find(str(zips))
    assert find_prepared("coco", tmp_path, listing) == prepared
    again = write_dataset(listing, name="coco", data_dir=tmp_path / "again")
    assert again.bytes == prepared.bytes
    for split in ("train", "validation"):
        of_zips = records(tmp_path / "again", split, year)
        assert of_zips == records(tmp_path, split, year)
    assert sorted(zips.iterdir()) == before
    assert listing.notes == coco.find(str(source)).notes


def test_some_unpacked_some_not(layout, tmp_path):
    expected = coco.find(str(layout)).fingerprint()
    (tmp_path / "zips").mkdir()
    pack(layout, tmp_path / "zips")
    shutil.rmtree(layout / "train2017")
    (tmp_path / "zips" / "train2017.zip").rename(layout / "train2017.zip")
    assert coco.find(str(layout)).fingerprint() == expected


def test_captions_belong_to_the_fingerprint(layout, tmp_path):
    write_dataset(coco.find(str(layout)), name="coco", data_dir=tmp_path)
    path = captions_file(layout, "val2017")
    path.write_text(path.read_text().replace("0, 901", "O, 901"))
    with pytest.raises(UserError, match="holds another dataset"):
        find_prepared("coco", tmp_path, coco.find(str(layout)))


def test_a_part_is_noted_and_the_whole_is_not(layout, monkeypatch):
    assert coco.find(str(layout)).notes == [
        "a part of COCO 2017: train has 5 of 118,287 images, validation has 3 of 5,000 "
        "images"
    ]
    whole = coco._parts("2017", "", *COUNTS.values())
    monkeypatch.setitem(coco.EDITIONS, "2017", whole)
    assert coco.find(str(layout)).notes == []


def test_official_numbers():
    counts = {
        edition: [part.official_count for part in parts]
        for edition, parts in coco.EDITIONS.items()
    }
    assert counts == {"2014": [82783, 40504], "2017": [118287, 5000]}


def test_without_annotations(layout, tmp_path):
    shutil.rmtree(layout / "annotations")
    listing = coco.find(str(layout))
    assert listing.notes[1:] == [
        f"no annotations/{file}_{part}2017.json: the images of {split} have no {what}"
        for part, split in (("train", "train"), ("val", "validation"))
        for file, what in (("captions", "captions"), ("instances", "labels"))
    ]
    write_dataset(listing, name="coco", data_dir=tmp_path)
    stored = records(tmp_path, "train")
    assert len(stored) == 5
    for what in ("captions", "labels"):
        assert all(len(record[what]) == 0 for record in stored.values())


def test_other_files_are_counted(layout):
    (layout / "train2017" / "index.html").touch()
    (layout / "val2017" / "thumb").mkdir()
    (layout / "val2017" / "thumb" / "000000000900.jpg").touch()
    listing = coco.find(str(layout))
    assert listing.ignored == 2
    assert {split: len(e) for split, e in listing.splits.items()} == {
        "train": 5,
        "validation": 3,
    }


def test_validation_alone_is_a_dataset(layout, tmp_path):
    shutil.rmtree(layout / "train2017")
    listing = coco.find(str(layout))
    assert list(listing.splits) == ["validation"]
    assert "train has 0 of 118,287 images" in listing.notes[0]
    write_dataset(listing, name="coco", data_dir=tmp_path)
    place = SimpleNamespace(dataset="coco", data_dir=str(tmp_path))
    with pytest.raises(UserError, match="no split 'train'; it has validation"):
        open_split(place, "train")


def test_without_validation_images(layout):
    shutil.rmtree(layout / "val2017")
    with pytest.raises(UserError) as caught:
        coco.find(str(layout))
    assert str(caught.value) == (
        f"{layout} has train2017, but no images in val2017 or val2017.zip: get "
        f"train2017.zip, val2017.zip and, for captions and labels, "
        f"annotations_trainval2017.zip from https://cocodataset.org/#download "
        f"(annotations: CC BY 4.0; images: Flickr terms of use), and put them into one "
        f"folder as they are, or unpacked to train2017/, val2017/ and annotations/"
    )
    (layout / "val2017").mkdir()
    with pytest.raises(UserError, match="no images in val2017"):
        coco.find(str(layout))


def test_no_source(tmp_path):
    how = r"get train2017\.zip.*cocodataset\.org/#download \(annotations: CC BY 4\.0"
    with pytest.raises(UserError, match=f"coco needs --source=DIR, a folder: {how}"):
        coco.find()
    with pytest.raises(UserError, match=f"nowhere does not exist: {how}"):
        coco.find(str(tmp_path / "nowhere"))
    (tmp_path / "val2017.zip").touch()
    with pytest.raises(UserError, match=f"zip is a file, not a folder: {how}"):
        coco.find(str(tmp_path / "val2017.zip"))


def test_another_layout(layout):
    how = r": get train2017\.zip.*and annotations/$"
    for place in (layout.parent, layout / "train2017"):
        with pytest.raises(UserError, match=f"has no images in train2017, val.*{how}"):
            coco.find(str(place))
    with pytest.raises(UserError, match=r"not hold COCO 2014, but 2017 \(--dataset=co"):
        coco.find(str(layout), "2014")


def test_images_of_another_dataset(tmp_path):
    write_layout(tmp_path, "2014")
    (tmp_path / "train2014").rename(tmp_path / "train2017")
    (tmp_path / "val2014").rename(tmp_path / "val2017")
    expected = (
        r"train2017 has no image that is called like those of COCO, as "
        r"000000000139\.jpg, but COCO_train2014_000000000100\.jpg: use the official"
    )
    with pytest.raises(UserError, match=expected):
        coco.find(str(tmp_path))


def test_two_editions_in_one_folder(layout):
    # The annotations of the other alone do not make it ambiguous.
    captions_file(layout, "val2014").touch()
    assert coco.find(str(layout)).config == "2017"
    captions_file(layout, "val2014").unlink()

    write_layout(layout.parent / "other", "2014")
    for part in ("train2014", "val2014"):
        (layout.parent / "other" / part).rename(layout / part)
    with pytest.raises(UserError) as caught:
        coco.find(str(layout))
    assert str(caught.value) == (
        f"{layout} holds COCO 2014 and 2017: choose one, --dataset=coco/2014 or "
        f"--dataset=coco/2017"
    )
    for edition in ("2014", "2017"):
        assert coco.find(str(layout), edition).config == edition


@pytest.mark.parametrize("name", ["val2017", "annotations_trainval2017"])
def test_a_zip_that_is_cut_off(layout, tmp_path, name):
    (tmp_path / "zips").mkdir()
    path = pack(layout, tmp_path / "zips") / f"{name}.zip"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=f"{name}.zip is not a whole zip file"):
        coco.find(str(tmp_path / "zips"))


def test_a_damaged_image_in_a_zip(layout, tmp_path):
    (tmp_path / "zips").mkdir()
    path = pack(layout, tmp_path / "zips") / "train2017.zip"
    data = bytearray(path.read_bytes())
    start = data.index(b"000000000102.jpg") + 40
    data[start : start + 50] = bytes(50)
    path.write_bytes(data)
    listing = coco.find(str(tmp_path / "zips"))
    name = "train2017.zip/train2017/000000000102.jpg"
    with pytest.raises(ImageError, match=f"cannot read .*{name}: "):
        write_dataset(listing, name="coco", data_dir=tmp_path)
    assert not (tmp_path / "coco" / "2017").exists()
    prepared = write_dataset(listing, name="coco", data_dir=tmp_path, skip_broken=True)
    (refused,) = prepared.refused
    assert refused == str(tmp_path / "zips" / name)
    assert prepared.images == {"train": 4, "validation": 3}


def test_an_image_that_is_none(layout, tmp_path):
    (layout / "val2017" / "000000000901.jpg").write_text("<html>")
    with pytest.raises(ImageError, match=r"val2017/000000000901\.jpg is not an image"):
        write_dataset(coco.find(str(layout)), name="coco", data_dir=tmp_path)


BROKEN = {
    "": "Expecting value",
    '{"images": [], "annotat': "Unterminated string",
    "\xff": "decode",
    "[]": "list indices",
    "{}": "there is no 'images'",
    '{"images": []}': "there is no 'annotations'",
    '{"images": 3, "annotations": []}': "not iterable",
    '{"images": [{"id": 900}], "annotations": []}': "there is no 'file_name'",
    '{"images": [{"id": "a", "file_name": "b"}], "annotations": []}': "'a' where int",
    '{"images": [], "annotations": [{"image_id": 900, "caption": "a"}]}': (
        "a caption of image 900, which is not listed"
    ),
    '{"images": [{"id": 1, "file_name": "b"}], "annotations": [{"image_id": 1, '
    '"caption": null}]}': "None where str is expected",
    "[" * 100_000: "recursion",
}


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_broken_annotations(layout, content):
    path = captions_file(layout, "val2017")
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError) as caught:
        coco.find(str(layout))
    message = str(caught.value)
    assert message.startswith(f"{path} is not a whole file of COCO's captions (")
    assert BROKEN[content] in message
    assert message.endswith("download it again, or remove it to go without captions")


BROKEN_INSTANCES = {
    '{"images": [], "annotations": []}': "there is no 'categories'",
    '{"images": [], "annotations": [{"image_id": 900, "category_id": 1}], '
    '"categories": []}': "an object in image 900, which is not listed",
    '{"images": [{"id": 1, "file_name": "b"}], "annotations": [{"image_id": 1, '
    '"category_id": 2}], "categories": [{"id": 1, "name": "a"}]}': (
        "an object of category 2, which is not listed"
    ),
}


@pytest.mark.parametrize("content", BROKEN_INSTANCES, ids=range(len(BROKEN_INSTANCES)))
def test_broken_instances(layout, content):
    path = instances_file(layout, "val2017")
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        coco.find(str(layout))
    message = str(caught.value)
    assert message.startswith(f"{path} is not a whole file of COCO's labels (")
    assert BROKEN_INSTANCES[content] in message


def test_categories_of_another_download(layout):
    path = instances_file(layout, "val2017")
    path.write_text(path.read_text().replace("toothbrush", "brush"))
    with pytest.raises(UserError, match="other categories: use the files of one"):
        coco.find(str(layout))


def test_annotations_of_images_that_are_not_there(layout, tmp_path):
    (layout / "train2017" / "000000000102.jpg").unlink()
    (layout / "train2017" / "000000000103.jpg").unlink()
    listing = coco.find(str(layout))
    assert listing.notes[1:] == [
        f"{file(layout, 'train2017')} names 2 images that are not in "
        f"train2017, such as 000000000102.jpg: their {what} are left out"
        for file, what in ((captions_file, "captions"), (instances_file, "labels"))
    ]
    write_dataset(listing, name="coco", data_dir=tmp_path)
    stored = records(tmp_path, "train")
    assert [len(stored[name]["captions"]) for name in sorted(stored)] == [0, 2, 2]


def test_annotations_of_other_images(layout):
    shutil.copy(captions_file(layout, "train2017"), captions_file(layout, "val2017"))
    expected = "names 5 images that are not in val2017, .*, and none that is: use"
    with pytest.raises(UserError, match=expected):
        coco.find(str(layout))


@pytest.mark.parametrize("dataset", ["coco/2014", "coco/2017"])
def test_batches_larger_than_the_splits(data_config, tmp_path, dataset):
    source = write_layout(tmp_path / "a", "2014")
    write_dataset(coco.find(str(source)), name="coco", data_dir=tmp_path)
    source = write_layout(tmp_path / "b", "2017")
    write_dataset(coco.find(str(source)), name="coco", data_dir=tmp_path)
    data_config.update(dataset=dataset, data_dir=str(tmp_path))
    data_config["train"]["resize"] = {"name": "short_side"}
    with train_batches(data_config, seed=0, batch_size=8, start=0) as batches:
        images = np.concatenate([next(batches)["image"] for _ in range(5)])
    assert images.shape == (40, 16, 16, 3)
    # The red channel tells the images, the green one the edition: JPEG changes little.
    reds = np.rint(images[..., 0].mean((1, 2)) / 40).astype(int)
    for epoch in reds.reshape(8, 5):
        assert sorted(epoch) == [0, 1, 2, 3, 4]
    assert np.abs(images[..., 1].mean() - int(dataset[-2:])) < 2
    (batch,) = eval_batches(data_config, batch_size=8)
    assert batch["mask"].tolist() == [True] * 3 + [False] * 5


def test_the_real_images(real_samples, data_config, tmp_path):
    listing = coco.find(str(real_samples / "data" / "coco"))
    assert listing.config == "2017" and listing.ignored == 0
    prepared = write_dataset(listing, name="coco", data_dir=tmp_path)
    assert prepared.images == {"train": 56, "validation": 49} and not prepared.refused
    captions = [
        len(record["captions"]) for record in records(tmp_path, "train").values()
    ]
    assert sorted(captions) == [0] * 30 + [5] * 26
    labels = tfds.builder_from_directory(prepared.folder).info.features["labels"]
    assert len(labels.feature.names) == 80 and labels.feature.names[16] == "dog"
    data_config.update(dataset="coco", data_dir=str(tmp_path), image_size=64)
    data_config["train"]["resize"] = {"name": "short_side"}
    with train_batches(data_config, seed=0, batch_size=64, start=0) as batches:
        images = next(batches)["image"]
    assert images.shape == (64, 64, 64, 3) and images.std() > 20
    masks = [batch["mask"].sum() for batch in eval_batches(data_config, batch_size=64)]
    assert masks == [49]
