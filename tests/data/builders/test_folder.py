import os

import pytest

from movq_jax.data.builders import folder
from movq_jax.data.builders.listing import NO_LABEL
from movq_jax.errors import UserError


@pytest.fixture
def make_files(tmp_path):
    """A function that makes empty files below `tmp_path`: nothing is opened here."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def keys(listing):
    return {
        split: sorted(example.key for example in examples)
        for split, examples in listing.splits.items()
    }


def classes_of(listing):
    return {
        example.key: "" if example.label == NO_LABEL else listing.classes[example.label]
        for examples in listing.splits.values()
        for example in examples
    }


def test_classes_are_the_first_folders(make_files):
    root = make_files("cat/1.jpg", "cat/deep/er/2.PNG", "dog/1.webp", "loose.jpeg")
    listing = folder.find(str(root))
    assert listing.classes == ["cat", "dog"]
    assert classes_of(listing) == {
        "cat/1.jpg": "cat",
        "cat/deep/er/2.PNG": "cat",
        "dog/1.webp": "dog",
        "loose.jpeg": "",
    }


def test_other_files_are_counted_and_hidden_ones_not_seen(make_files):
    root = make_files(
        "1.jpg", "2.jpg", "notes.txt", "list.tsv", ".hidden.jpg", ".x/3.jpg"
    )
    listing = folder.find(str(root))
    assert sorted(sum(keys(listing).values(), [])) == ["1.jpg", "2.jpg"]
    assert listing.ignored == 2


def test_splits_as_given(make_files):
    root = make_files(
        "train/cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg", "test/3.jpg", "logo.png"
    )
    listing = folder.find(str(root))
    assert keys(listing) == {
        "train": ["train/cat/1.jpg", "train/dog/1.jpg"],
        "validation": ["val/cat/2.jpg"],
        "test": ["test/3.jpg"],
    }
    assert list(listing.splits) == ["train", "validation", "test"]
    assert classes_of(listing)["val/cat/2.jpg"] == "cat"
    assert classes_of(listing)["test/3.jpg"] == ""
    assert listing.ignored == 1


def test_a_class_may_be_called_train(make_files):
    listing = folder.find(str(make_files("train/1.jpg", "plane/1.jpg", "car/1.jpg")))
    assert listing.classes == ["car", "plane", "train"]


def test_training_without_validation_gives_some_of_it(make_files):
    root = make_files(*(f"train/{i}.jpg" for i in range(20)), "test/x.jpg")
    listing = folder.find(str(root), validation_fraction=0.25)
    assert set(listing.splits) == {"train", "validation", "test"}
    assert keys(listing)["test"] == ["test/x.jpg"]


def test_the_fraction_is_about_right(make_files):
    root = make_files(*(f"{i}.jpg" for i in range(400)))
    held_out = keys(folder.find(str(root), validation_fraction=0.25))["validation"]
    assert 70 < len(held_out) < 130


def test_an_image_more_moves_no_other(make_files):
    root = make_files(*(f"{i}.jpg" for i in range(50)))
    before = set(keys(folder.find(str(root)))["validation"])
    make_files("new/one.jpg", "zebra.jpg")
    after = set(keys(folder.find(str(root)))["validation"])
    assert before - {"new/one.jpg", "zebra.jpg"} == after - {"new/one.jpg", "zebra.jpg"}


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
def test_neither_split_is_empty(make_files, count, fraction):
    root = make_files(*(f"{i}.jpg" for i in range(count)))
    splits = keys(folder.find(str(root), validation_fraction=fraction))
    assert splits["train"] and splits["validation"]
    assert len(splits["train"]) + len(splits["validation"]) == count


def test_one_image_or_a_fraction_of_nothing(make_files):
    assert keys(folder.find(str(make_files("1.jpg")))) == {"train": ["1.jpg"]}
    root = make_files("2.jpg", "3.jpg")
    assert set(folder.find(str(root), validation_fraction=0).splits) == {"train"}


@pytest.mark.parametrize("fraction", [-0.1, 1, 7])
def test_a_fraction_out_of_range(make_files, fraction):
    with pytest.raises(UserError, match="validation fraction"):
        folder.find(str(make_files("1.jpg")), validation_fraction=fraction)


def test_a_list_of_paths(make_files, tmp_path_factory):
    root = make_files("cat/1.jpg", "dog/no_suffix", "other/3.jpg")
    paths = root / "list.txt"
    paths.write_text(
        f"# chosen\ncat/1.jpg\n\n  {root}/dog/no_suffix \ncat/../cat/1.jpg\n"
    )
    listing = folder.find(str(paths), validation_fraction=0)
    assert keys(listing) == {"train": ["cat/1.jpg", "dog/no_suffix"]}
    assert classes_of(listing)["dog/no_suffix"] == "dog"
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "list.txt"
    elsewhere.write_text(f"{root}/cat/1.jpg\n{root}/other/3.jpg\n")
    listing = folder.find(str(elsewhere), validation_fraction=0)
    assert classes_of(listing) == {"cat/1.jpg": "cat", "other/3.jpg": "other"}


def test_a_pattern(make_files):
    root = make_files("cat/1.jpg", "cat/2.png", "cat/3.txt", "dog/4.jpg", "5.jpg")
    listing = folder.find(f"{root}/*/*", validation_fraction=0)
    assert keys(listing) == {"train": ["cat/1.jpg", "cat/2.png", "dog/4.jpg"]}
    assert listing.classes == ["cat", "dog"]
    listing = folder.find(f"{root}/**/*.jpg", validation_fraction=0)
    assert keys(listing) == {"train": ["5.jpg", "cat/1.jpg", "dog/4.jpg"]}


def test_links_are_followed_but_not_in_circles(make_files):
    root = make_files("a/1.jpg", "b/2.jpg")
    os.symlink(root / "b", root / "a" / "linked")
    os.symlink(root, root / "b" / "circle")
    found = sum(keys(folder.find(str(root))).values(), [])
    assert "a/1.jpg" in found and "a/linked/2.jpg" in found
    assert not any("circle" in key for key in found)


def test_a_name_that_is_not_utf_8(make_files):
    root = make_files("good.jpg")
    try:
        (root / os.fsdecode(b"caf\xe9.jpg")).touch()
    except OSError:
        pytest.skip("this file system wants UTF-8 names")
    found = sum(keys(folder.find(str(root))).values(), [])
    assert sorted(found) == ["caf\\xe9.jpg", "good.jpg"]


def test_sources_that_are_none(make_files):
    root = make_files("notes.txt", "picture.jpg", "empty/readme.md")
    (root / "binary.dat").write_bytes(b"\xff\xfe\x00")
    for source, message in {
        "missing": "does not exist",
        "picture.jpg": "is an image: give its folder",
        "notes.txt": "names no files",
        "binary.dat": "is not a text file",
        "empty": "no images in .*, only 1 other files",
        "*.gif": "no images in",
    }.items():
        with pytest.raises(UserError, match=message):
            folder.find(str(root / source))


def test_a_folder_that_cannot_be_read(make_files, monkeypatch):
    root = make_files("train/a/1.jpg", "train/b/2.jpg")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("train/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"the folder .*train/b: Permission denied"):
        folder.find(str(root))


def test_a_source_inside_a_folder_that_cannot_be_read(make_files, monkeypatch):
    root = make_files("1.jpg")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folder.Path, "is_dir", refuse)
    with pytest.raises(UserError, match=f"source={root} cannot be read: Permission"):
        folder.find(str(root))
