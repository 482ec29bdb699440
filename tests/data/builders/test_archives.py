import concurrent.futures
import multiprocessing
import operator
import os
import pickle
import shutil
import zipfile

import pytest

from movq_jax.data.builders.archives import (
    ZipMember,
    find_file,
    list_files,
    list_tar,
    list_zip,
    source_folder,
    walk,
)
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


def test_an_encrypted_member_is_an_error_of_its_own(packed):
    path = packed / "all.zip"
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2", data.index(b"images/.hidden"))
    while b".jpg" not in data[entry : entry + 70]:
        entry = data.index(b"PK\1\2", entry + 4)
    data[entry + 8] |= 1
    path.write_bytes(data)
    problems = []
    for member in list_zip(path).values():
        try:
            member.read_bytes()
        except OSError as error:
            problems.append(str(error))
    assert problems == ["it is encrypted, or not packed by deflate: unpack the zip"]


@pytest.fixture
def tar_of_tars(pack, tmp_path):
    """Thirty files in three tars inside one, as ImageNet comes."""
    inner = {
        f"{n}.tar": pack.tar(
            {name[9:]: data for name, data in CONTENT.items() if name[7] == str(n)}
        )
        for n in range(3)
    }
    path = tmp_path / "all.tar"
    path.write_bytes(pack.tar({**inner, ".DS_Store": b"x", "./note": b"a note"}))
    return path


def members(path):
    tars = [m for name, m in list_tar(path).items() if name.endswith(".tar")]
    return [member for tar in tars for member in list_tar(tar).values()]


def test_a_tar_inside_a_tar(tar_of_tars):
    outer = list_tar(tar_of_tars)
    assert list(outer) == ["0.tar", "1.tar", "2.tar", "note"]
    assert outer["note"].read_bytes() == b"a note"
    inner = list_tar(outer["1.tar"])
    assert sorted(inner) == [f"{n}.jpg" for n in range(10, 20)]
    assert str(inner["17.jpg"]) == f"{tar_of_tars}/1.tar/17.jpg"
    for name, member in inner.items():
        content = CONTENT[f"images/1/{name}"]
        assert (member.size, member.read_bytes()) == (999, content)


def test_long_names_in_a_tar(pack, tmp_path):
    name = "a" * 150 + "/é.jpg"
    (tmp_path / "long.tar").write_bytes(pack.tar({name: b"data"}))
    (member,) = list_tar(tmp_path / "long.tar").values()
    assert member.name == name and member.read_bytes() == b"data"


def read(member):
    return member.read_bytes()


def test_members_can_be_read_by_other_processes(packed, tar_of_tars):
    of_zip = list(list_files(packed, "images", "all.zip").values())
    files = [*of_zip, *members(tar_of_tars)]
    assert pickle.loads(pickle.dumps(files)) == files
    # A pool of multiprocessing would wait for ever for a process that died; and other
    # processes may find another package that is called `tests`.
    read_bytes = operator.methodcaller("read_bytes")
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        assert list(pool.map(read_bytes, files)) == list(map(read_bytes, files))


def test_threads_may_share_a_tar(tar_of_tars):
    files = members(tar_of_tars)
    assert len(files) == 30
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, files)) == [read(file) for file in files]


def damaged(path, damage):
    whole = path.read_bytes()
    cut = {"in data": 20_000, "in a header": 10_240 + 700, "at once": 300}
    if damage in cut:
        return whole[: cut[damage]]
    if damage == "header":  # of the second inner tar
        start = whole.index(b"1.tar")
        return whole[:start] + b"\xff" * 512 + whole[start + 512 :]
    # Space that a download has reserved, and not yet filled.
    reserved = {"zeros": bytes(2**21), "half": whole[:15_360] + bytes(2**21)}
    return {"empty": b"", "other": b"<html>" * 999, **reserved}[damage]


@pytest.mark.parametrize(
    "damage",
    "in data,in a header,at once,header,zeros,half,empty,other".split(","),
)
def test_a_tar_that_is_none(tar_of_tars, damage):
    tar_of_tars.write_bytes(damaged(tar_of_tars, damage))
    with pytest.raises(UserError, match=r"all\.tar.* is not a whole tar .*again$"):
        members(tar_of_tars)


def test_an_inner_tar_that_is_cut_off(pack, tmp_path):
    inner = pack.tar({"1.jpg": bytes(9999), "2.jpg": bytes(9999)})
    for length in (1000, 11_000, 12_000):
        content = {"a.tar": inner[:length], "b.tar": inner}
        (tmp_path / "all.tar").write_bytes(pack.tar(content))
        with pytest.raises(UserError, match=r"all\.tar/a\.tar is not a whole tar"):
            members(tmp_path / "all.tar")


def test_a_tar_that_shrinks_after_the_listing(tar_of_tars):
    files = members(tar_of_tars)
    tar_of_tars.write_bytes(tar_of_tars.read_bytes()[:15_360])
    with pytest.raises(OSError, match="cut off"):
        files[-1].read_bytes()
    tar_of_tars.unlink()
    with pytest.raises(UserError, match=r"cannot read .*all\.tar: No such file"):
        list_tar(tar_of_tars)


@pytest.fixture
def closed(unpacked, monkeypatch):
    """A folder with one folder inside that may not be opened."""
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("images/1"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    return unpacked


def test_a_folder_that_cannot_be_read(closed):
    expected = r"cannot read the folder .*images/1: Permission denied"
    with pytest.raises(UserError, match=expected):
        list(walk(closed))
    with pytest.raises(UserError, match=expected):
        list_files(closed, "images", "all.zip")
    with pytest.raises(UserError, match=r"source=.*images/1 cannot be read: Perm"):
        source_folder(str(closed / "images" / "1"), "coco", "get it")


def test_the_folder_of_a_source(unpacked):
    assert source_folder(str(unpacked), "coco", "get it") == unpacked
    expected = {
        None: "--dataset=coco needs --source=DIR, a folder: get it",
        unpacked / "no": f"--source={unpacked}/no does not exist: get it",
        unpacked / "note": f"--source={unpacked}/note is a file, not a folder: get it",
    }
    for source, message in expected.items():
        with pytest.raises(UserError) as caught:
            source_folder(source and str(source), "coco", "get it")
        assert str(caught.value) == message
