import pytest

from movq_jax import atomic
from movq_jax.errors import UserError


def test_a_failed_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), atomic.replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    atomic.write_text(path, "text")
    assert path.read_text() == "text"
    assert list(path.parent.iterdir()) == [path]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.txt", tmp_path):
        with pytest.raises(UserError, match="cannot write"):
            atomic.write_text(path, "text")


def test_a_place_is_tried_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("kept")
    atomic.check_writable(tmp_path / "file")
    atomic.check_writable(tmp_path / "new" / "deep" / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"
    for path, reason in (
        (tmp_path, "it is a folder"),
        (tmp_path / "file" / "a", "Not a directory"),
    ):
        with pytest.raises(UserError, match=f"cannot write {path}: {reason}"):
            atomic.check_writable(path)


def test_folders_that_take_anothers_place(tmp_path, monkeypatch):
    atomic.check_folder_to_replace(tmp_path / "new" / "folder")
    atomic.check_folder_to_replace(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: it is a file; name a folder"):
        atomic.check_folder_to_replace(tmp_path / "file")
    with pytest.raises(UserError, match="cannot write .*: Not a directory"):
        atomic.check_folder_to_replace(tmp_path / "file" / "below" / "it")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the folder that you are in"):
        atomic.check_folder_to_replace(".")
