import os
from pathlib import Path

import pytest

from movq_jax.data.builders import BUILDERS, ffhq
from movq_jax.data.images import ImageError
from movq_jax.data.preparing.writing import find_prepared, write_dataset
from movq_jax.errors import UserError

NUMBERS = [0, 1, 2, 999, 1000, 59_999, 60_000, 69_999]
VALIDATION = [1, 999, 69_999]


@pytest.fixture(scope="module")
def images(faces):
    """Name in the official folder -> PNG."""
    return {
        f"{number // 1000 * 1000:05d}/{number:05d}.png": faces.png(number)
        for number in NUMBERS
    }


@pytest.fixture
def source(pack, images, tmp_path):
    """Eight images of FFHQ in the official layout, and its licence."""
    files = {f"images1024x1024/{name}": data for name, data in images.items()}
    other = {"LICENSE.txt": b"", "images1024x1024/LICENSE.txt": b"CC"}
    return str(pack.folder(tmp_path / "ffhq", files | other))


@pytest.fixture
def split_list(publish):
    """A file with `VALIDATION`, which counts as published."""
    return publish(ffhq, "FFHQ_TAMING", VALIDATION)


def numbers(listing):
    return {
        split: [int(example.key[:5]) for example in examples]
        for split, examples in listing.splits.items()
    }


def test_three_editions(source, split_list):
    taming = ffhq.find_taming(source, split_list)
    assert taming.config == "taming" and taming.ignored == 1
    assert numbers(taming) == {
        "train": [0, 2, 1000, 59_999, 60_000],
        "validation": VALIDATION,
    }
    assert taming.notes == [
        "a part of FFHQ: train has 5 of 60,000 images, validation has 3 of 10,000 "
        "images"
    ]
    nvidia = ffhq.find_nvidia(source)
    assert nvidia.config == "nvidia"
    assert numbers(nvidia) == {"train": NUMBERS[:6], "validation": NUMBERS[6:]}
    everything = ffhq.find_all(source)
    assert numbers(everything) == {"train": NUMBERS}
    assert everything.notes == ["a part of FFHQ: train has 8 of 70,000 images"]
    assert len({e.fingerprint() for e in (taming, nvidia, everything)}) == 3
    assert BUILDERS["ffhq"] is BUILDERS["ffhq/taming"]


def layouts(pack, images):
    """Yield name of a layout -> files that are the same dataset."""
    flat = {name[6:]: data for name, data in images.items()}
    inside = {f"images1024x1024/{name}": data for name, data in images.items()}
    yield "official", inside
    yield "itself", images
    yield "flat", {f"images1024x1024/{name}": data for name, data in flat.items()}
    yield "flat itself", flat
    yield "zip", {"images1024x1024.zip": pack.zip(inside)}
    yield "zip without the folder", {"images1024x1024.zip": pack.zip(images)}
    yield "flat zip", {"images1024x1024.zip": pack.zip(flat)}
    yield "thumbnails", {f"thumbnails128x128/{n}": d for n, d in images.items()}
    yield "zip of thumbnails", {"thumbnails128x128.zip": pack.zip(images)}


def test_every_layout_is_the_same_dataset(pack, images, tmp_path):
    fingerprints = set()
    for name, files in layouts(pack, images):
        listing = ffhq.find_nvidia(str(pack.folder(tmp_path / name, files)))
        fingerprints.add(listing.fingerprint())
        stored = {e.key: e.path.read_bytes() for e in listing.splits["train"]}
        assert stored["01000.png"] == images["01000/01000.png"]
    assert len(fingerprints) == 1


def test_zips_are_written_as_folders_are(pack, images, source, tmp_path):
    zipped = {"images1024x1024.zip": pack.zip(images)}
    listings = [
        ffhq.find_nvidia(source),
        ffhq.find_nvidia(str(pack.folder(tmp_path / "zipped", zipped))),
    ]
    prepared = write_dataset(listings[0], name="ffhq", data_dir=tmp_path / "data")
    assert prepared.images == {"train": 6, "validation": 2}
    assert prepared.folder == tmp_path / "data" / "ffhq" / "nvidia" / "1.0.0"
    assert find_prepared("ffhq", tmp_path / "data", listings[1]) == prepared


def test_two_sizes_in_one_folder(pack, images, source):
    pack.folder(Path(source, "thumbnails128x128"), images)
    (note, _) = ffhq.find_nvidia(source).notes
    assert note == (
        f"{source} has images1024x1024, which is taken, and thumbnails128x128: "
        f"--source={source}/thumbnails128x128 takes that"
    )


def test_the_whole_is_not_noted(source, monkeypatch, split_list):
    assert ffhq.OFFICIAL["taming"] == {"train": 60_000, "validation": 10_000}
    whole = {"train": 5, "validation": 3}
    monkeypatch.setitem(ffhq.OFFICIAL, "taming", whole)
    assert ffhq.find_taming(source, split_list).notes == []


def test_without_a_source(tmp_path, source):
    how = r"get images1024x1024 \(89 GB\).*NVlabs/ffhq-dataset \(CC BY-NC-SA 4\.0"
    for name in ("ffhq", "ffhq/nvidia", "ffhq/all"):
        with pytest.raises(UserError, match=f"={name} needs --source=DIR.*: {how}"):
            BUILDERS[name]()
        with pytest.raises(UserError, match=f"nowhere does not exist: {how}"):
            BUILDERS[name](str(tmp_path / "nowhere"))
        with pytest.raises(UserError, match=f"txt is a file, not a folder: {how}"):
            BUILDERS[name](source + "/LICENSE.txt")


@pytest.mark.parametrize(
    "name", ["in-the-wild-images/00000/00000.png", "a.png", "1.png", "00000.txt"]
)
def test_another_layout(pack, tmp_path, name):
    root = pack.folder(tmp_path / "other", {name: b"x"})
    with pytest.raises(UserError) as caught:
        ffhq.find_nvidia(str(root))
    assert str(caught.value).startswith(
        f"{root} has no image that is called like those of FFHQ, as 00000/00000.png, "
        f"but {name}: get images1024x1024"
    )
    (tmp_path / "empty" / "images1024x1024").mkdir(parents=True)
    with pytest.raises(UserError, match=r"images1024x1024 has no image that .*png: ge"):
        ffhq.find_nvidia(str(tmp_path / "empty"))


def test_numbers_that_cannot_be(pack, source):
    pack.folder(Path(source), {"images1024x1024/70000.png": b"x"})
    with pytest.raises(
        UserError, match=r"70000\.png is not of FFHQ, whose numbers run"
    ):
        ffhq.find_nvidia(source)
    os.remove(source + "/images1024x1024/70000.png")
    pack.folder(Path(source), {"images1024x1024/01000.jpg": b"x"})
    with pytest.raises(UserError, match=r"two images of number 1000, .*: remove one"):
        ffhq.find_nvidia(source)


def test_a_zip_that_is_cut_off(pack, images, tmp_path):
    data = pack.zip(images)[:-200]
    root = pack.folder(tmp_path / "cut", {"images1024x1024.zip": data})
    with pytest.raises(UserError, match=r"x1024\.zip is not a whole zip .*again"):
        ffhq.find_nvidia(str(root))


def test_a_text_file_is_refused_by_name(pack, source, tmp_path):
    pack.folder(Path(source), {"images1024x1024/00000/00003.png": b"not found"})
    listing = ffhq.find_nvidia(source)
    with pytest.raises(ImageError, match=r"00000/00003\.png is not an image"):
        write_dataset(listing, name="ffhq", data_dir=tmp_path / "data")
    prepared = write_dataset(
        listing, name="ffhq", data_dir=tmp_path / "data", skip_broken=True
    )
    assert list(prepared.refused) == [f"{source}/images1024x1024/00000/00003.png"]
    assert prepared.images == {"train": 6, "validation": 2}


def test_the_list_is_asked_for_after_the_source(tmp_path, split_list):
    with pytest.raises(UserError, match="does not exist"):
        ffhq.find_taming(str(tmp_path / "nowhere"), "no list")


def test_the_published_split(real_samples, source):
    path = real_samples / "reference" / "splits" / "ffhq_taming_validation_ids.txt"
    if not path.is_file():
        pytest.skip(f"{path}, the published list, is not there")
    listing = ffhq.find_taming(source, str(path))
    assert numbers(listing)["validation"] == [0]
