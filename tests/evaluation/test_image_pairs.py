from pathlib import Path

import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.image_pairs import in_pairs
from movq_jax.evaluation.image_sets import DatasetImages, FileImages, NpzImages


def files(name, *names):
    return FileImages(name, [(Path(name) / each, each) for each in names])


class Source(list):
    name = "small validation"
    has_file_names = True


def dataset(*names):
    records = [{"image": b"", "filename": n, "label": -1} for n in names]
    return DatasetImages(Source(records))


def matched(images, partners, most=None):
    first, second, note = in_pairs(images, partners, most)
    assert not note
    return list(zip(first.file_names(), second.file_names(), strict=True))


def test_files_are_matched_by_name():
    pairs = matched(files("a", "1", "2"), files("b", "2", "1"))
    assert pairs == [("1", "1"), ("2", "2")]


def test_the_first_are_taken_once_they_are_matched():
    some, others = files("a", "2", "3"), files("b", "1", "2", "3", "4")
    assert matched(some, others, 1) == [("2", "2")]
    assert matched(some, others, 9) == [("2", "2"), ("3", "3")]


def test_a_shuffled_split_is_matched_by_the_files_names():
    split = dataset("c.jpg", "a.jpg", "b.JPEG")
    pairs = matched(files("made", "a", "b", "c"), split)
    assert pairs == [("a", "a.jpg"), ("b", "b.JPEG"), ("c", "c.jpg")]
    assert matched(split, files("made", "a", "b", "c")) == [
        (right, left) for left, right in (pairs[2], pairs[0], pairs[1])
    ]
    with pytest.raises(UserError, match="made has no partner for c of small val"):
        in_pairs(files("made", "a", "b"), split)


def test_folders_of_one_side_do_not_matter():
    split = dataset("n02/b.jpg", "n01/a.jpg")
    assert matched(files("made", "a", "b"), split) == [
        ("a", "n01/a.jpg"),
        ("b", "n02/b.jpg"),
    ]
    twins = dataset("n02/a.jpg", "n01/a.jpg")
    with pytest.raises(UserError, match="no partner for a, b of made"):
        in_pairs(files("made", "a", "b"), twins)


def test_a_split_without_names_has_no_known_order(monkeypatch):
    monkeypatch.setattr(Source, "has_file_names", False)
    with pytest.raises(UserError, match="does not say what its images' files were"):
        in_pairs(files("made", "a"), dataset("record 0"))


def test_names_that_several_have():
    with pytest.raises(UserError, match="has several images called a.png"):
        in_pairs(files("made", "a"), dataset("a.png", "a.png"))


def test_letters_may_be_written_in_two_ways():
    one, two = "caf\u00e9", "cafe\u0301"
    assert matched(files("a", one), files("b", two)) == [(one, two)]


def test_a_missing_partner_is_named():
    some, all_of_them = files("a", "1", "2"), files("b", *"123456")
    for sides in ((some, all_of_them), (all_of_them, some)):
        message = "a has no partner for 3, 4, 5 and 1 more of b"
        with pytest.raises(UserError, match=message):
            in_pairs(*sides)
    twins = files("c", "1.jpg", "1.png", "2")
    with pytest.raises(UserError, match="c has several files called 1, so their suff"):
        in_pairs(twins, some)


@pytest.fixture
def npz(tmp_path):
    def write(name, count):
        np.savez(tmp_path / name, arr_0=np.zeros((count, 4, 4, 3), np.uint8))
        return NpzImages(tmp_path / name)

    return write


def test_others_are_matched_by_order(npz):
    two, three = npz("2.npz", 2), npz("3.npz", 3)
    with pytest.raises(UserError, match=r"a has 2 images and .*3\.npz 3"):
        in_pairs(files("a", "1", "2"), three)
    *pair, note = in_pairs(three, two, 2)
    assert [len(images) for images in pair] == [2, 2] and not note
    with pytest.raises(UserError, match=r"3\.npz has 3 images and .*2\.npz 2"):
        in_pairs(three, two, 5)
    *_, note = in_pairs(two, dataset("b.png", "a.png"))
    assert note.endswith("by their order alone: make sure that it is the same")
