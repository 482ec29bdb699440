from pathlib import Path

import pytest

from movq_jax.data.builders import BUILDERS, celebahq
from movq_jax.data.images import ImageError
from movq_jax.data.preparing.writing import find_prepared, write_dataset
from movq_jax.errors import UserError

# Number -> number of the original in CelebA: the bounds of the three splits.
ORIGINALS = {0: 119_613, 1: 162_770, 2: 162_771, 3: 182_637, 7: 182_638, 29_999: 7}
VALIDATION = [2, 29_999]
MASK = "CelebAMask-HQ"
MAPPING = f"{MASK}/CelebA-HQ-to-CelebA-mapping.txt"


@pytest.fixture(scope="module")
def images(faces):
    """Number -> JPEG."""
    return {number: faces.jpeg(number) for number in ORIGINALS}


@pytest.fixture(scope="module")
def mapping():
    """The file of the originals, with the blanks of the published one."""
    lines = [f"{n:<8}{o:<13}{o + 1:06d}.jpg   \n" for n, o in ORIGINALS.items()]
    return ("idx     orig_idx     orig_file\n" + "".join(lines)).encode()


@pytest.fixture(scope="module")
def official(images, mapping):
    """Name -> data, as in CelebAMask-HQ.zip."""
    files = {f"{MASK}/CelebA-HQ-img/{n}.jpg": data for n, data in images.items()}
    other = {f"{MASK}/CelebAMask-HQ-mask-anno/0/00000_hair.png": b"", MAPPING: mapping}
    return files | other


@pytest.fixture
def source(pack, official, tmp_path):
    """Six images in the layout of CelebAMask-HQ."""
    return pack.folder(tmp_path / "source", official)


@pytest.fixture
def split_list(publish):
    """A file with `VALIDATION`, which counts as published."""
    return publish(celebahq, "CELEBAHQ_TAMING", VALIDATION)


def numbers(listing):
    return {
        split: [int(Path(example.key).stem) for example in examples]
        for split, examples in listing.splits.items()
    }


def test_taming(source, split_list, tmp_path, read_records):
    listing = celebahq.find_taming(str(source), split_list)
    assert numbers(listing) == {"train": [0, 1, 3, 7], "validation": VALIDATION}
    assert listing.notes == [
        "a part of CelebA-HQ: train has 4 of 25,000 images, validation has 2 of 5,000 "
        "images"
    ]
    assert "the VQ papers' random split" in listing.description
    assert BUILDERS["celebahq"] is BUILDERS["celebahq/taming"]
    prepared = write_dataset(listing, name="celebahq", data_dir=tmp_path)
    assert prepared.folder == tmp_path / "celebahq" / "taming" / "1.0.0"
    stored = read_records(tmp_path, "celebahq", "validation")
    place = source / MASK / "CelebA-HQ-img"
    assert {name: record["image"] for name, record in stored.items()} == {
        f"{n}.jpg": (place / f"{n}.jpg").read_bytes() for n in VALIDATION
    }


def test_celebamask(source):
    listing = celebahq.find_celebamask(str(source))
    assert listing.config == "celebamask"
    assert numbers(listing) == {
        "train": [0, 1, 29_999],
        "validation": [2, 3],
        "test": [7],
    }
    assert listing.notes == [
        "a part of CelebA-HQ: train has 3 of 24,183 images, validation has 2 of 2,993 "
        "images, test has 1 of 2,824 images"
    ]


def layouts(pack, images, official, mapping):
    """Yield name of a layout -> (files, where in it the source is)."""
    flat = {f"{number}.jpg": data for number, data in images.items()}
    beside = {"CelebA-HQ-to-CelebA-mapping.txt": mapping}
    inside = {f"CelebA-HQ-img/{name}": data for name, data in flat.items()}
    yield "official", official, "."
    yield "zip", {f"{MASK}.zip": pack.zip(official)}, "."
    yield "its folder", official, MASK
    yield "its images", official, f"{MASK}/CelebA-HQ-img"
    yield "one folder", inside | beside, "."
    yield "zip of the images", {"CelebA-HQ-img.zip": pack.zip(inside)} | beside, "."
    yield "flat", flat | beside, "."


def test_every_layout_is_the_same_dataset(
    pack, images, official, mapping, split_list, tmp_path
):
    finders = [celebahq.find_celebamask, lambda s: celebahq.find_taming(s, split_list)]
    found = {find: [] for find in finders}
    for name, files, place in layouts(pack, images, official, mapping):
        source = pack.folder(tmp_path / name, files) / place
        for find, listings in found.items():
            listings.append(find(str(source)))
            assert listings[-1].fingerprint() == listings[0].fingerprint(), name
    for listings in found.values():
        kind = listings[0].config
        place = tmp_path / kind
        prepared = write_dataset(listings[0], name="celebahq", data_dir=place)
        assert find_prepared("celebahq", place, listings[1]) == prepared
        again = write_dataset(listings[1], name="celebahq", data_dir=tmp_path / "again")
        assert again.bytes == prepared.bytes


@pytest.mark.parametrize("zipped", [False, True])
def test_files_that_count_from_one(pack, images, split_list, tmp_path, zipped):
    files = {f"data256x256/{n + 1:05d}.jpg": data for n, data in images.items()}
    if zipped:
        files = {"data256x256.zip": pack.zip(files)}
    root = pack.folder(tmp_path / "small", files)
    listing = celebahq.find_taming(str(root), split_list)
    assert listing.notes[0] == f"{root}/data256x256 counts from 1: 00001.jpg is image 0"
    keys = [example.key for example in listing.splits["validation"]]
    assert keys == ["00003.jpg", "30000.jpg"]
    if not zipped:
        itself = celebahq.find_taming(str(root / "data256x256"), split_list)
        assert itself.fingerprint() == listing.fingerprint()


def test_two_sizes_in_one_folder(pack, source):
    pack.folder(source, {"data256x256/00001.jpg": b"x"})
    assert celebahq.find_celebamask(str(source)).notes[0] == (
        f"{source}/CelebAMask-HQ/CelebA-HQ-img is taken; --source={source}/data256x256 "
        f"takes the images there"
    )


def test_names_of_taming(pack, images, split_list, tmp_path):
    files = {f"imgHQ{number:05d}.jpg": data for number, data in images.items()}
    listing = celebahq.find_taming(str(pack.folder(tmp_path / "t", files)), split_list)
    keys = [example.key for example in listing.splits["validation"]]
    assert keys == ["imgHQ00002.jpg", "imgHQ29999.jpg"]


@pytest.mark.parametrize("inside", ["", "celeba-HQ-1024/", "celeba_hq/"])
def test_folders(pack, images, tmp_path, inside, read_records):
    files = {
        f"{inside}{split}/{'female' if number % 2 else 'male'}/{number:06d}.jpg": data
        for split, (number, data) in zip(
            ["train", "train", "val", "val", "test", "test"],
            images.items(),
            strict=True,
        )
    }
    listing = celebahq.find_folders(str(pack.folder(tmp_path / "source", files)))
    assert listing.config == "folders" and listing.classes == ["female", "male"]
    assert {split: len(e) for split, e in listing.splits.items()} == dict.fromkeys(
        ("train", "validation", "test"), 2
    )
    write_dataset(listing, name="celebahq", data_dir=tmp_path / "data")
    assert len(read_records(tmp_path / "data", "celebahq/folders", "test")) == 2


@pytest.mark.parametrize("names", [["train/1.jpg"], ["a/1.jpg"], ["1.jpg"], []])
def test_without_the_folders(pack, tmp_path, names, faces):
    root = pack.folder(tmp_path, {name: faces.jpeg(0) for name in names})
    with pytest.raises(UserError, match="no images in train/ and val/: the images lie"):
        celebahq.find_folders(str(root))


def test_the_whole_is_not_noted(source, monkeypatch):
    assert celebahq.OFFICIAL == {
        "taming": {"train": 25_000, "validation": 5_000},
        "celebamask": {"train": 24_183, "validation": 2_993, "test": 2_824},
    }
    whole = {"train": 3, "validation": 2, "test": 1}
    monkeypatch.setitem(celebahq.OFFICIAL, "celebamask", whole)
    assert celebahq.find_celebamask(str(source)).notes == []


def test_without_a_source(source, tmp_path):
    how = r"get CelebAMask-HQ\.zip \(3 GB\).*for non-commercial research and education"
    for name in ("celebahq", "celebahq/taming", "celebahq/celebamask"):
        expected = f"={name.removesuffix('/taming')} needs --source=DIR.*: {how}"
        with pytest.raises(UserError, match=expected):
            BUILDERS[name]()
        with pytest.raises(UserError, match=f"does not exist: {how}"):
            BUILDERS[name](str(tmp_path / "nowhere"))
        with pytest.raises(UserError, match=f"is a file, not a folder: {how}"):
            BUILDERS[name](str(source / MAPPING))
    with pytest.raises(UserError, match="celebahq/folders needs --source.*DIR/train a"):
        BUILDERS["celebahq/folders"]()


@pytest.mark.parametrize("name", ["imgHQ00001.npy", "a.jpg", "1.txt"])
def test_another_layout(pack, tmp_path, split_list, name):
    root = pack.folder(tmp_path / "other", {name: b"x"})
    with pytest.raises(UserError) as caught:
        celebahq.find_taming(str(root), split_list)
    assert str(caught.value).startswith(
        f"{root} has no image that is called like those of CelebA-HQ, as 0.jpg, but "
        f"{name}: get CelebAMask-HQ.zip"
    )


def test_numbers_that_cannot_be(pack, source, split_list):
    pack.folder(source, {f"{MASK}/CelebA-HQ-img/30000.jpg": b"x"})
    with pytest.raises(
        UserError, match=r"30000\.jpg is not of CelebA-HQ, whose number"
    ):
        celebahq.find_taming(str(source), split_list)
    (source / MASK / "CelebA-HQ-img" / "30000.jpg").unlink()
    pack.folder(source, {f"{MASK}/CelebA-HQ-img/00002.png": b"x"})
    with pytest.raises(UserError, match="two images of number 2, .*: remove one"):
        celebahq.find_taming(str(source), split_list)


def test_without_the_mapping(source, split_list):
    (source / MAPPING).unlink()
    with pytest.raises(
        UserError, match=r"has no CelebA-HQ-to.*celebamask is split: it"
    ):
        celebahq.find_celebamask(str(source))
    celebahq.find_taming(str(source), split_list)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>\n", b"\xff\xfe", b"idx orig_idx orig_file\n1 2\n"]
    + [b"idx orig_idx orig_file\n1 a 2.jpg\n"],
)
def test_a_mapping_that_is_none(source, content):
    (source / MAPPING).write_bytes(content)
    with pytest.raises(UserError, match=r"mapping\.txt is not the mapping .*again"):
        celebahq.find_celebamask(str(source))


def test_a_mapping_that_is_cut_off(source, mapping):
    (source / MAPPING).write_bytes(mapping[: mapping.rindex(b"29999")])
    with pytest.raises(UserError, match="does not name image 29999: download it again"):
        celebahq.find_celebamask(str(source))


def test_a_zip_that_is_cut_off(pack, official, tmp_path, split_list):
    root = pack.folder(tmp_path / "cut", {f"{MASK}.zip": pack.zip(official)[:-100]})
    with pytest.raises(UserError, match=rf"{MASK}\.zip is not a whole zip .*again"):
        celebahq.find_taming(str(root), split_list)


def test_a_text_file_is_refused_by_name(source, split_list, tmp_path):
    path = source / MASK / "CelebA-HQ-img" / "3.jpg"
    path.write_text("not an image")
    listing = celebahq.find_taming(str(source), split_list)
    with pytest.raises(ImageError, match=r"CelebA-HQ-img/3\.jpg is not an image"):
        write_dataset(listing, name="celebahq", data_dir=tmp_path)
    prepared = write_dataset(
        listing, name="celebahq", data_dir=tmp_path, skip_broken=True
    )
    assert list(prepared.refused) == [str(path)]


def test_the_published_split(real_samples, source):
    path = real_samples / "reference" / "splits" / "celebahq_taming_validation_ids.txt"
    if not path.is_file():
        pytest.skip(f"{path}, the published list, is not there")
    listing = celebahq.find_taming(str(source), str(path))
    assert numbers(listing)["validation"] == [7]
