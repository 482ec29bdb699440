import concurrent.futures
import shutil
import zipfile

import pytest

from movq_jax.data.builders.archives import ZipMember, find_file, list_files
from movq_jax.errors import UserError

CONTENT = {f"images/{n // 10}/{n}.jpg": bytes([n]) * 999 for n in range(30)}


@pytest.fixture
def unpacked(tmp_path):
    """Thirty files in three folders, and what is none of them."""
    extra = {"images/.hidden": b"", "images/.git/x": b"", "imagesb/1": b"", "note": b""}
    for name, data in {**CONTENT, **extra}.items():
        path = tmp_path / "unpacked" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "unpacked"


@pytest.fixture
def packed(unpacked, tmp_path):
    """A folder with a zip of the same."""
    (tmp_path / "packed").mkdir()
    shutil.make_archive(tmp_path / "packed" / "all", "zip", unpacked)
    return tmp_path / "packed"


def contents(files):
    return {f"images/{name}": file.read_bytes() for name, file in files.items()}


def test_a_folder_and_a_zip_list_the_same(unpacked, packed):
    on_disk = list_files(unpacked, "images", "all.zip")
    in_zip = list_files(packed, "images", "all.zip")
    assert contents(on_disk) == contents(in_zip) == CONTENT
    assert str(in_zip["0/7.jpg"]) == f"{packed}/all.zip/images/0/7.jpg"
    assert in_zip["0/7.jpg"].size == 999
    assert [path.name for path in packed.iterdir()] == ["all.zip"]


def test_a_folder_inside_a_zip(packed):
    files = list_files(packed, "images/2", "all.zip")
    assert sorted(files) == [f"{n}.jpg" for n in range(20, 30)]


def test_what_is_unpacked_comes_first_unless_it_is_empty(packed):
    (packed / "images").mkdir()
    assert len(list_files(packed, "images", "all.zip")) == 30
    (packed / "images" / "1.jpg").touch()
    assert list(list_files(packed, "images", "all.zip")) == ["1.jpg"]


def test_nothing_there(unpacked, packed):
    assert list_files(packed, "images", "other.zip") == {}
    assert list_files(packed, "image", "all.zip") == {}
    assert find_file(packed, "images", "all.zip") is None
    assert find_file(packed, "images/0/7.jpg", "other.zip") is None


def test_one_file(unpacked, packed):
    assert find_file(unpacked, "note", "all.zip") == unpacked / "note"
    member = find_file(packed, "images/0/7.jpg", "all.zip")
    assert isinstance(member, ZipMember)
    assert member.read_bytes() == CONTENT["images/0/7.jpg"]


def test_threads_may_share_a_zip(packed):
    files = list_files(packed, "images", "all.zip")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            read = pool.map(ZipMember.read_bytes, files.values())
            assert list(read) == [CONTENT[f"images/{name}"] for name in files]


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_zip_that_is_none(packed, damage):
    archive = packed / "all.zip"
    whole = archive.read_bytes()
    damaged = {"cut": whole[: len(whole) // 2], "empty": b"", "other": b"<html>" * 99}
    archive.write_bytes(damaged[damage])
    for look in (list_files, find_file):
        with pytest.raises(UserError, match=r"all\.zip is not a whole zip .*again"):
            look(packed, "images", "all.zip")


def test_a_zip_that_cannot_be_read(packed, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    with pytest.raises(UserError, match=r"cannot read .*all\.zip: Permission denied"):
        list_files(packed, "images", "all.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_is_an_error_of_its_own(tmp_path, method):
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("images/1", bytes(range(256)) * 4)
        archive.writestr("images/2", b"whole")
    data = bytearray(path.read_bytes())
    data[60:100] = b"\xff" * 40
    path.write_bytes(data)
    files = list_files(tmp_path, "images", "all.zip")
    assert files["2"].read_bytes() == b"whole"
    with pytest.raises(OSError):
        files["1"].read_bytes()
