import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from PIL import Image

from movq_jax.data.preparing import writing
from movq_jax.data.sources import open_split
from movq_jax.tools import command, prepare


@pytest.fixture
def pictures(tmp_path):
    """Six pictures in two classes."""
    for number in range(6):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), (number * 40, 0, 0)).save(path)
    return tmp_path / "pictures"


@pytest.fixture
def run(tmp_path, capsys):
    """A function that runs the command on `tmp_path / data`: code, stdout, stderr."""

    def run_command(*flags):
        code = command.run(prepare.main, [*flags, f"--data-dir={tmp_path / 'data'}"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_command


def test_a_folder_with_a_name(run, pictures, tmp_path):
    code, out, err = run("--dataset=folder", f"--source={pictures}", "--name=reds")
    assert (code, err) == (0, "")
    assert "classes: 2" in out
    assert f"--config.data.dataset=reds --config.data.data_dir={tmp_path}/data" in out
    place = SimpleNamespace(dataset="reds", data_dir=str(tmp_path / "data"))
    total = len(open_split(place, "train")) + len(open_split(place, "validation"))
    assert total == 6


def test_flags_with_underscores(pictures, tmp_path, capsys):
    flags = ["--dataset=folder", f"--source={pictures}", "--validation_fraction=0.5"]
    assert command.run(prepare.main, [*flags, f"--data_dir={tmp_path / 'data'}"]) == 0
    assert (tmp_path / "data" / "folder" / "1.0.0").is_dir()


def test_the_data_dir_of_the_environment(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "env"))
    assert command.run(prepare.main, ["--dataset=folder", f"--source={pictures}"]) == 0
    assert (tmp_path / "env" / "folder" / "1.0.0").is_dir()


def test_again_is_done_already(run, pictures):
    flags = ("--dataset=folder", f"--source={pictures}")
    first = run(*flags)
    code, out, err = run(*flags)
    assert (code, err) == (0, "")
    assert out.startswith("folder is already prepared in ")
    assert out.endswith(first[1])


def test_another_source_is_refused(run, pictures):
    run("--dataset=folder", f"--source={pictures}")
    code, _, err = run("--dataset=folder", f"--source={pictures / 'a'}")
    assert code == 2
    assert "holds another dataset: choose another --name" in err


def test_a_broken_file(run, pictures):
    (pictures / "a" / "2.png").write_bytes(b"no picture")
    flags = ("--dataset=folder", f"--source={pictures}")
    code, out, err = run(*flags)
    assert (code, out) == (2, "")
    assert "a/2.png is not an image that Pillow reads; nothing was prepared" in err
    assert "--skip-broken" in err and err.count("\n") == 1

    code, out, err = run(*flags, "--skip-broken")
    assert code == 4
    assert "refused: 1" in out
    assert err.count("2.png") == 2  # when it was met, and at the end
    # The dataset lacks the file for good, and says so again.
    code, out, err = run(*flags)
    assert code == 4 and "already prepared" in out and "2.png" in err


def test_json(run, pictures, tmp_path):
    flags = ("--dataset=folder", f"--source={pictures}", "--validation-fraction=0")
    code, out, err = run(*flags, "--json")
    assert code == 0
    record = json.loads(out)
    assert record["images"] == {"train": 6}
    assert record["classes"] == ["a", "b"]
    assert record["refused"] == [] and "6" in err
    code, out, _ = run(*flags, f"--json={tmp_path / 'record.json'}")
    assert json.loads((tmp_path / "record.json").read_text()) == record


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "--dataset"),
        (["--dataset=fotos"], "invalid choice: 'fotos'"),
        (["--dataset=folder"], "--dataset=folder needs --source"),
        (["--dataset=photos", "--source=x"], "--source is not for --dataset=photos"),
        (
            ["--dataset=photos", "--validation-fraction=0.5"],
            "--validation-fraction is not for --dataset=photos",
        ),
        (
            ["--dataset=folder", "--source=.", "--split-list=x"],
            "--split-list is not for --dataset=folder",
        ),
        (["--dataset=coco"], "--dataset=coco needs --source=DIR, a folder: get train2"),
        (["--dataset=coco/2014"], "get train2014.zip, val2014.zip and"),
        (["--dataset=coco/2015"], "invalid choice: 'coco/2015'"),
        (
            ["--dataset=coco", "--source=/nowhere/x"],
            "/nowhere/x does not exist: get train2017.zip",
        ),
        (
            ["--dataset=coco/2017", "--source=.", "--name=photos"],
            "--name=photos is what another kind of dataset is called",
        ),
        (
            ["--dataset=coco", "--source=.", "--validation-fraction=0.5"],
            "--validation-fraction is not for --dataset=coco",
        ),
        (["--dataset=folder", "--sauce=x"], "--sauce (did you mean '--source'?)"),
        (["--dataset=folder", "--source=/nowhere/x"], "/nowhere/x does not exist"),
        (
            ["--dataset=folder", "--source=.", "--name=photos"],
            "--name=photos is what another kind of dataset is called",
        ),
    ],
)
def test_wrong_flags(run, flags, message):
    code, out, err = run(*flags)
    assert (code, out) == (2, "")
    assert message in err and err.startswith("error: ")


def test_a_wrong_name(run, pictures):
    code, _, err = run("--dataset=folder", f"--source={pictures}", "--name=My-Set")
    assert code == 2 and "'My-Set' cannot be the name of a dataset" in err


@pytest.fixture
def coco(tmp_path):
    """COCO 2014 with a picture in each split, and without annotations."""
    for part in ("train2014", "val2014"):
        path = tmp_path / "coco" / part / f"COCO_{part}_000000000007.jpg"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (20, 16)).save(path)
    return tmp_path / "coco"


@pytest.mark.parametrize("kind", ["coco", "coco/2014"])
def test_an_edition_is_part_of_the_name(run, coco, tmp_path, kind):
    code, out, err = run(f"--dataset={kind}", f"--source={coco}")
    assert code == 0
    flags = f"--config.data.dataset=coco/2014 --config.data.data_dir={tmp_path}/data"
    assert f"in {tmp_path}/data/coco/2014/1.0.0; to train on it:\n  {flags}\n" in out
    first, *others = err.splitlines()
    assert first == (
        "warning: a part of COCO 2014: train has 1 of 82,783 images, validation has 1 "
        "of 40,504 images"
    )
    kinds = [other.partition("_")[0].partition("annotations/")[2] for other in others]
    assert kinds == ["captions", "instances"] * 2
    for dataset in ("coco", "coco/2014"):
        place = SimpleNamespace(dataset=dataset, data_dir=str(tmp_path / "data"))
        source = open_split(place, "train")
        assert len(source) == 1 and source.name == "coco/2014/1.0.0 train"
    code, again, err = run(f"--dataset={kind}", f"--source={coco}", "--json")
    assert "coco/2014 is already prepared in" in err
    record = json.loads(again)
    assert record["dataset"] == "coco/2014" and len(record["notes"]) == 5


def test_an_edition_under_another_name(run, coco, tmp_path):
    code, out, _ = run("--dataset=coco", f"--source={coco}", "--name=seven")
    assert code == 0 and "--config.data.dataset=seven/2014 " in out
    assert (tmp_path / "data" / "seven" / "2014" / "1.0.0").is_dir()


def test_photos(run, tmp_path):
    for package in ("skimage", "sklearn"):
        pytest.importorskip(package, reason="needs the extra `photos`")
    code, _, err = run("--dataset=photos")
    assert (code, err) == (0, "")
    place = SimpleNamespace(dataset="photos", data_dir=str(tmp_path / "data"))
    assert len(open_split(place, "train")) == 6
    assert len(open_split(place, "validation")) == 2


# Tests that were started in the background inherit a SIGINT that is ignored.
PREPARE = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("movq_jax.tools.prepare", run_name="__main__")
"""


STOPPED = {
    signal.SIGINT: (130, "stopped by Ctrl-C\n"),
    signal.SIGTERM: (75, "error: stopped by SIGTERM: start the same command again\n"),
}


@pytest.mark.parametrize(
    "number, jobs", [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 2)]
)
def test_a_signal_keeps_what_is_finished(run, pictures, tmp_path, number, jobs):
    """A group of processes: it is stopped while one of them waits for a named pipe."""
    shutil.copytree(pictures, tmp_path / "source" / "train")
    endless = tmp_path / "source" / "val" / "endless.png"
    endless.parent.mkdir()
    os.mkfifo(endless)
    flags = [f"--source={tmp_path / 'source'}", f"--data-dir={tmp_path / 'data'}"]
    process = subprocess.Popen(
        [sys.executable, "-c", PREPARE, "--dataset=folder", f"--jobs={jobs}", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    place = tmp_path / "data" / "folder"
    with open(endless, "wb"):  # waits for its reader
        while not list(place.glob(".1.0.0.incomplete/notes/*-of-00001")):
            time.sleep(0.01)
        os.killpg(process.pid, number)  # as a terminal does
        time.sleep(1)  # the signal comes first, then the end of the file
    out, err = process.communicate(timeout=60)
    code, message = STOPPED[number]
    assert (process.returncode, out) == (code, "")
    kept = "what is finished is kept: the same command goes on with it\n"
    assert err == kept + message
    assert [path.name for path in place.iterdir()] == [".1.0.0.incomplete"]
    assert run("--dataset=folder", "--verify")[0] == 2  # nobody takes it for whole


def test_going_on(run, pictures, monkeypatch):
    monkeypatch.setattr(writing, "SHARD_BYTES", 1)
    (pictures / "b" / "5.png").write_bytes(b"no picture")
    flags = ("--dataset=folder", f"--source={pictures}", "--jobs=1")
    code, out, err = run(*flags)
    kept, error = err.splitlines()
    assert (code, out) == (2, "")
    assert kept.startswith("what is finished is kept") and "5.png is not" in error
    code, out, err = run(*flags, "--skip-broken")
    assert code == 4 and re.match(r"\d images are done, \d to go\n", err)
    assert re.search(r"\ntrain +4 +1 +0\.0\n", out)


def test_many_broken_files(run, pictures):
    for number in range(25):
        (pictures / "a" / f"broken{number}.png").write_bytes(b"no picture")
    flags = ("--dataset=folder", f"--source={pictures}", "--validation-fraction=0")
    code, out, err = run(*flags, "--skip-broken", "--json")
    assert code == 4
    refused = json.loads(out)["refused"]
    assert len(refused) == 25
    assert all(entry["file"] in entry["reason"] for entry in refused)
    live, _, end = err.partition("error: ")
    assert live.count("refused: /") == 20 and "refused: more, see the end" in live
    assert end.count("is not an image") == 20
    assert end.endswith("\n  and 5 more (all of them: --json)\n")


def test_no_room(run, pictures, monkeypatch):
    usage = SimpleNamespace(free=10**5)
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: usage)
    code, out, err = run("--dataset=folder", f"--source={pictures}")
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and "GB are free there: make room" in err
    assert err.count("\n") == 1


def test_several_jobs(run, pictures, tmp_path):
    flags = ("--dataset=folder", f"--source={pictures}", "--jobs=2")
    code, _, err = run(*flags)
    assert (code, err) == (0, "")
    code, _, err = run(*flags[:2], "--jobs=0")
    assert code == 2 and "'0' is not a positive whole number" in err


def test_verify(run, pictures, tmp_path):
    run("--dataset=folder", f"--source={pictures}", "--name=reds")
    flags = ("--dataset=folder", "--name=reds", "--verify")
    code, out, err = run(*flags)
    assert (code, err) == (0, "")
    assert "1.0.0 is whole: counts, hashes and images" in out
    code, out, _ = run(*flags, "--json")
    record = json.loads(out)
    assert code == 0 and record["problems"] == [] and record["dataset"] == "reds"
    assert sum(record["images"].values()) == 6

    shard = tmp_path / "data/reds/1.0.0/reds-train.array_record-00000-of-00001"
    shard.unlink()
    code, out, err = run(*flags, "--json")
    assert code == 2
    assert json.loads(out)["problems"] == [f"{shard.name} is missing"]
    assert (
        f"is damaged; delete that folder and prepare the dataset again:\n  {shard.name}"
        in err
    )


def test_verify_an_edition(run, coco):
    run("--dataset=coco", f"--source={coco}")
    for kind in ("coco", "coco/2014"):
        assert run(f"--dataset={kind}", "--verify")[0] == 0
    code, _, err = run("--dataset=coco/2017", "--verify")
    assert code == 2 and "'coco/2017' is not prepared" in err


@pytest.mark.parametrize("flag", ["--source=.", "--skip-broken", "--split-list=x"])
def test_verify_needs_the_dataset_alone(run, flag):
    code, _, err = run("--dataset=folder", "--verify", flag)
    assert code == 2 and f"{flag.partition('=')[0]} is not for --verify" in err
