import os

import numpy as np
import pytest
from PIL import Image

from movq_jax.errors import UserError
from movq_jax.evaluation.image_sets import (
    DatasetImages,
    FileImages,
    NpzImages,
    in_chunks,
)


def picture(number):
    return np.full((4, 5, 3), number, np.uint8)


@pytest.fixture
def folder(tmp_path):
    """A function that writes numbered pictures and returns them as a set."""

    def write(name, *numbers, suffix=".png"):
        (tmp_path / name).mkdir()
        files = []
        for number in numbers:
            path = tmp_path / name / f"{number}{suffix}"
            Image.fromarray(picture(number)).save(path)
            files.append((path, f"{number}"))
        return FileImages(name, files)

    return write


def collect(images):
    refused = {}
    return list(images.items(refused.__setitem__)), refused


def test_files_may_be_read_again(folder):
    images = folder("a", 3, 1, 2)
    for _ in range(2):
        items, refused = collect(images)
        assert [item.name for item in items] == ["3", "1", "2"] and not refused
        np.testing.assert_array_equal(items[1].image, picture(1))
    assert [i.name for i in collect(images.take([2, 0]))[0]] == ["2", "3"]
    assert images.file_names() == ["3", "1", "2"] and len(images.paths) == 3


def test_a_file_that_is_no_image_keeps_its_place(folder, tmp_path):
    images = folder("a", 1, 2, 3)
    (tmp_path / "a" / "2.png").write_text("no image")
    (tmp_path / "a" / "3.png").unlink()
    os.mkfifo(tmp_path / "a" / "3.png")
    items, refused = collect(images)
    assert items[0].name == "1" and items[1:] == [None, None]
    assert sorted(refused) == [str(tmp_path / "a" / f"{n}.png") for n in (2, 3)]
    assert "pipe or a device" in refused[str(tmp_path / "a" / "3.png")]


def test_npz(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, arr_0=np.stack([picture(1), picture(2)]))
    assert len(NpzImages(path)) == 2
    assert len(NpzImages(path).take(range(1))) == 1
    items, _ = collect(NpzImages(path, 1))
    assert [item.name for item in items] == ["000000"]
    np.testing.assert_array_equal(items[0].image, picture(1))


class Source(list):
    name = "small validation"
    has_file_names = True


def test_dataset(folder, tmp_path):
    folder("a", 1)
    data = (tmp_path / "a" / "1.png").read_bytes()
    good = {"image": data, "filename": "one.png", "label": 4}
    bad = {"image": b"?", "filename": "two.png", "label": -1}
    images = DatasetImages(Source([good, bad, good]), 2)
    items, refused = collect(images)
    assert items[0].name == "one.png" and items[1] is None
    assert list(refused) == ["two.png of small validation"]
    assert images.labels().tolist() == [4, -1]
    assert images.file_names() == ["one.png", "two.png"]
    assert [item.name for item in collect(images.take([0, 0]))[0]] == ["one.png"] * 2
    assert len(images.take([])) == 0
    Source.has_file_names = False
    try:
        with pytest.raises(UserError, match="order is not known to be that of other"):
            images.file_names()
    finally:
        Source.has_file_names = True


def test_chunks():
    assert list(in_chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(in_chunks([], 2)) == []
