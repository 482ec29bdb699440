import os

import numpy as np
import pytest
from PIL import Image

from movq_jax.errors import UserError
from movq_jax.tools import files

GREY = np.full((4, 4, 3), 128, np.uint8)


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names_of(*inputs, output):
    return [file.name for file in files.find_files(inputs, output=output)]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_a_folder_is_walked_in_order_without_hidden_files(folder, out):
    touch(folder, "b.jpg", "a.png", "z/c.d.gif", ".DS_Store", ".git/x", "notes")
    assert names_of(str(folder), output=out) == ["a", "b", "notes", "z/c.d"]


def test_files_folders_and_patterns_go_together_each_file_once(folder, out):
    touch(folder, "a.jpg", "b.jpg", "c.png")
    inputs = (str(folder / "c.png"), str(folder / "*.jpg"), str(folder))
    found = files.find_files(inputs, output=out)
    assert [file.path.name for file in found] == ["c.png", "a.jpg", "b.jpg"]


def test_names_never_meet(folder, out):
    touch(folder, "a.jpg", "a.png", "A.gif", "a.jpg.png", "b.png", "x/a.jpg")
    touch(folder.parent / "other", "b.png")
    names = names_of(str(folder), str(folder.parent / "other"), output=out)
    assert names == ["A.gif", "a.jpg", "a.jpg-2", "a.png", "b.png", "x/a", "b.png-2"]


def test_the_output_inside_the_input_is_left_out(folder):
    touch(folder, "a.jpg", "out/b.jpg", "codes")
    assert names_of(str(folder), output=folder / "out") == ["a", "codes"]
    assert names_of(str(folder), output=folder / "codes") == ["a", "out/b"]


def test_what_is_no_image_by_name_is_passed_over_and_counted(folder, out, capsys):
    touch(folder, "a.JPG", "b.heic", "notes.txt", "sub/notes.TXT", "codes.npz")
    assert names_of(str(folder), output=out) == ["a", "b"]
    line = "passed over: 3 files, no images by name (.npz, .txt)\n"
    assert capsys.readouterr().err == line
    # One that is named by itself, or by a pattern, is meant.
    inputs = (str(folder), str(folder / "notes.txt"), str(folder / "*.npz"))
    assert names_of(*inputs, output=out) == ["a", "b", "notes", "codes"]
    assert "1 file that is no image by name (.txt)" in capsys.readouterr().err
    for path in folder.glob("[ab].*"):
        path.unlink()
    with pytest.raises(UserError, match=r"no files in .*, only 3 files, no images"):
        names_of(str(folder), output=out)


def test_inputs_that_are_not_there(folder, out):
    with pytest.raises(UserError, match="nowhere does not exist"):
        names_of("nowhere", output=out)
    folder.mkdir()
    with pytest.raises(UserError, match="no files in"):
        names_of(str(folder), output=out)
    with pytest.raises(UserError, match=r"no file matches .*\*\.jpg"):
        names_of(str(folder / "*.jpg"), output=out)
    touch(folder, "a.jpg")
    with pytest.raises(UserError, match="--output is the input"):
        names_of(str(folder), output=folder)


def test_a_picture_is_not_written_over_an_input(folder):
    touch(folder, "a.png")
    found = files.find_files([str(folder / "a.png")], output=folder)
    with pytest.raises(UserError, match="would overwrite an input"):
        files.refuse_overwriting([folder / "a.png"], inputs=found)
    link = folder.parent / "link"
    link.symlink_to(folder, target_is_directory=True)
    with pytest.raises(UserError, match="would overwrite an input"):
        files.refuse_overwriting([link / "a.png"], inputs=found)


def test_only_own_pictures_are_replaced(tmp_path):
    ours, foreign, text = (tmp_path / name for name in ("a.png", "b.png", "c.png"))
    files.write_png(ours, GREY)
    files.refuse_overwriting([ours, tmp_path / "new.png"])
    Image.fromarray(GREY).save(foreign)
    text.write_text("a letter")
    pipe = tmp_path / "d.png"
    os.mkfifo(pipe)  # which would be waited for if it were opened
    for path in (foreign, text, pipe):
        with pytest.raises(UserError, match="is not a result of movq"):
            files.refuse_overwriting([path])


def test_a_png_comes_back_as_it_went(tmp_path):
    path = tmp_path / "new" / "a.png"
    files.write_png(path, GREY)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), GREY)


def test_a_place_that_cannot_be_written_is_met_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "out" / "b").mkdir(parents=True)
    files.check_places(tmp_path / name for name in ("new/deep/a.png", "out/b/a.png"))
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {"file", "out", "out/b"}
    with pytest.raises(UserError, match=r"cannot write .*file/a.png: Not a directory"):
        files.check_places([tmp_path / "out/b/a.png", tmp_path / "file" / "a.png"])


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        files.write_png(tmp_path / "file" / "a.png", GREY)
    with pytest.raises(UserError, match="is a file: name a folder"):
        files.output_folder(str(tmp_path / "file"))


def test_results_over_inputs_or_one_another(tmp_path):
    touch(tmp_path, "in.png", "old.json")
    os.symlink("in.png", tmp_path / "link")
    place = {name: tmp_path / name for name in ("in.png", "link", "old.json", "new")}
    outputs = {"--json": place["old.json"], "--html": place["new"]}
    files.refuse_same_file(outputs, [place["in.png"]])
    with pytest.raises(UserError, match="--html and --json are one file"):
        files.refuse_same_file({"--json": place["new"], "--html": place["new"]}, [])
    with pytest.raises(UserError, match="--json would overwrite the input .*in.png"):
        files.refuse_same_file({"--json": place["link"]}, [place["in.png"]])


def test_links_to_folders_are_named(tmp_path, capsys):
    touch(tmp_path, "photos/a.png", "other/b.png")
    os.symlink(tmp_path / "other", tmp_path / "photos" / "more")
    assert len(files.find_files([str(tmp_path / "photos")], output=tmp_path / "o")) == 1
    assert "more is a link to a folder; name it itself" in capsys.readouterr().err
