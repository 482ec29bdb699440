"""Preparations that are stopped at any moment, and what becomes of them."""

import errno
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from types import SimpleNamespace

import pytest
from PIL import Image

from movq_jax.data.builders import folder
from movq_jax.data.images import ImageError
from movq_jax.data.preparing import prepared, shards, working_folder, writing
from movq_jax.data.preparing.writing import find_prepared, unfinished, write_dataset
from movq_jax.data.sources import open_split
from movq_jax.errors import UserError

SHARD_BYTES = 100  # two pictures
# Run by `exec` in a process of its own, which ends itself at the step `stop_at`.
WRITE = """
import os, signal, sys
from movq_jax.data.preparing import writing

steps = 0

def count(event, args):
    global steps
    paths = [os.fspath(a) for a in args[:2] if isinstance(a, (str, os.PathLike))]
    if any(str(data_dir) in path for path in paths):
        steps += 1
        if steps == stop_at:
            os.kill(os.getpid(), signal.SIGKILL)

if stop_at:
    sys.addaudithook(count)
writing.SHARD_BYTES = shard_bytes
writing.write_dataset(
    listing, name="set", data_dir=data_dir, skip_broken=True, jobs=jobs
)
"""


@pytest.fixture(autouse=True)
def tiny_shards(monkeypatch):
    monkeypatch.setattr(writing, "SHARD_BYTES", SHARD_BYTES)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures in two classes, a few of them broken; one is more than a shard."""
    root = tmp_path_factory.mktemp("source")
    for number in range(50):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 16), (number * 5, 0, 99)).save(path)
    (root / "a" / "empty.png").touch()
    (root / "b" / "text.png").write_text("no picture " * 50)
    (root / "a" / "cut.png").write_bytes((root / "a" / "0.png").read_bytes()[:60])
    return root


@pytest.fixture(scope="module")
def listing(pictures):
    return folder.find(str(pictures), validation_fraction=0.2)


@pytest.fixture(scope="module")
def clean(listing, tmp_path_factory):
    """Every file of a run that was not disturbed: name -> bytes."""
    data_dir = tmp_path_factory.mktemp("clean")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "SHARD_BYTES", SHARD_BYTES)
        write(listing, data_dir)
    files = content(data_dir)
    assert len(files) > 20
    return files


@pytest.fixture(scope="module")
def processes():
    """A function that starts `WRITE` in a process that does not import anything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["movq_jax.data.preparing.writing"])

    def start(listing, data_dir, jobs=1, stop_at=0):
        names = {
            "listing": listing,
            "data_dir": data_dir,
            "jobs": jobs,
            "stop_at": stop_at,
            "shard_bytes": SHARD_BYTES,
        }
        process = context.Process(target=exec, args=(WRITE, names))
        process.start()
        return process

    return start


def write(listing, data_dir, **kwargs):
    return write_dataset(
        listing, name="set", data_dir=data_dir, skip_broken=True, **kwargs
    )


def content(data_dir):
    assert [path.name for path in (data_dir / "set").iterdir()] == ["1.0.0"]
    files = (data_dir / "set" / "1.0.0").iterdir()
    return {path.name: path.read_bytes() for path in files}


def check_nothing_is_read(listing, data_dir):
    assert find_prepared("set", data_dir, listing) is None
    with pytest.raises(UserError, match="is not prepared"):
        open_split(SimpleNamespace(dataset="set", data_dir=str(data_dir)), "train")


def finished_shards(data_dir):
    return len(list(data_dir.glob("set/.1.0.0.incomplete/notes/*-of-*[0-9]")))


def kill_many_times(processes, listing, clean, tmp_path, *, kills, jobs):
    """Kill and go on until there were so many kills; each result must be the same."""
    rng = random.Random(kills * jobs)
    killed = rounds = 0
    while killed < kills:
        data_dir = tmp_path / f"data{rounds}"
        rounds += 1
        while killed < kills:
            enough = finished_shards(data_dir) + rng.randrange(12)
            process = processes(listing, data_dir, jobs)
            while process.is_alive() and (
                finished_shards(data_dir) < enough
                or not unfinished("set", data_dir, listing)
            ):
                time.sleep(0.001)
            time.sleep(rng.random() * 0.03)
            process.kill()
            process.join()
            if (data_dir / "set" / "1.0.0").exists():
                break
            assert process.exitcode == -signal.SIGKILL
            killed += 1
            check_nothing_is_read(listing, data_dir)
        if find_prepared("set", data_dir, listing) is None:
            write(listing, data_dir, jobs=jobs)
        assert content(data_dir) == clean
    return rounds


def test_killed_a_few_times(processes, listing, clean, tmp_path):
    kill_many_times(processes, listing, clean, tmp_path, kills=3, jobs=1)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_twenty_times(processes, listing, clean, tmp_path, jobs):
    kill_many_times(processes, listing, clean, tmp_path, kills=20, jobs=jobs)


def kill_at_steps(processes, pictures, tmp_path, step):
    """Kill at every n-th change of, or look at, the disk, of a run of few shards."""
    listing = folder.find(str(pictures / "a"), validation_fraction=0.9)
    write(listing, tmp_path / "clean")
    expected = content(tmp_path / "clean")
    for stop_at in itertools.count(1, step):
        data_dir = tmp_path / f"data{stop_at}"
        process = processes(listing, data_dir, stop_at=stop_at)
        process.join()
        if process.exitcode == 0:
            return stop_at
        assert process.exitcode == -signal.SIGKILL
        if find_prepared("set", data_dir, listing) is None:
            check_nothing_is_read(listing, data_dir)
            write(listing, data_dir)
        assert content(data_dir) == expected
        shutil.rmtree(data_dir)


def test_killed_at_some_steps(processes, pictures, tmp_path):
    assert kill_at_steps(processes, pictures, tmp_path, step=37) > 100


@pytest.mark.slow
def test_killed_at_many_steps(processes, pictures, tmp_path):
    assert kill_at_steps(processes, pictures, tmp_path, step=3) > 100


def test_a_shard_of_nothing_but_refused_files(listing, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "SHARD_BYTES", 1)
    prepared = write(listing, tmp_path)
    info = json.loads(content(tmp_path)["dataset_info.json"])
    lengths = [int(n) for split in info["splits"] for n in split["shardLengths"]]
    assert 0 in lengths and sum(lengths) == 50
    place = SimpleNamespace(dataset="set", data_dir=str(tmp_path))
    for split, count in prepared.images.items():
        source = open_split(place, split)
        names = [source[index]["filename"] for index in range(len(source))]
        assert len(set(names)) == len(names) == count
        assert len(open_split(place, f"{split}[:50%]")) in (count // 2, -(-count // 2))


def stop_after(count, error=KeyboardInterrupt):
    """Return an `on_image` that raises at the image after `count`."""
    seen = itertools.count(1)

    def on_image(refusal):
        if next(seen) > count:
            raise error

    return on_image


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_is_finished_is_not_done_again(listing, clean, tmp_path, jobs):
    with pytest.raises(KeyboardInterrupt):
        write(listing, tmp_path, jobs=jobs, on_image=stop_after(20))
    assert multiprocessing.active_children() == []
    work = unfinished("set", tmp_path, listing)
    assert not list(work.rglob("*.part")) and not list(work.rglob("*.tmp"))
    starts, seen = [], []
    result = write(
        listing,
        tmp_path,
        jobs=jobs,
        on_image=seen.append,
        on_start=lambda *counts: starts.append(counts),
    )
    [(to_do, kept)] = starts
    assert len(seen) == to_do and to_do + kept == 53 and 10 < kept < 30
    assert sum(result.images.values()) == 50 and len(result.refused) == 3
    assert content(tmp_path) == clean


def test_what_is_finished_of_another_listing_is_not_deleted(
    pictures, listing, clean, tmp_path
):
    other = folder.find(str(pictures), validation_fraction=0.3)
    with pytest.raises(KeyboardInterrupt):
        write(other, tmp_path, on_image=stop_after(20))
    with pytest.raises(UserError, match="finished files of another source, or of oth"):
        write(listing, tmp_path)
    shutil.rmtree(unfinished("set", tmp_path, other))
    write(listing, tmp_path)
    assert content(tmp_path) == clean


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json", "shard"])
def test_a_prepared_dataset_that_lacks_a_file_is_not_taken_for_whole(
    listing, tmp_path, file
):
    place = write(listing, tmp_path).folder
    path = min(place.glob("*array_record*")) if file == "shard" else place / file
    path.unlink()
    with pytest.raises(UserError, match="is damaged, .* is missing: delete that folde"):
        find_prepared("set", tmp_path, listing)


@pytest.mark.parametrize("damage", ["cut off", "no note", "no plan", "strange plan"])
def test_what_is_not_whole_is_done_again(listing, clean, tmp_path, damage):
    with pytest.raises(KeyboardInterrupt):
        write(listing, tmp_path, on_image=stop_after(20))
    work = unfinished("set", tmp_path, listing)
    shard = min((work / "dataset").iterdir())
    if damage == "cut off":
        os.truncate(shard, shard.stat().st_size // 2)
    elif damage == "no note":
        (work / "notes" / shard.name).write_text('{"images": ')
    else:
        (work / "plan.json").write_text("[1" if damage == "no plan" else "[1]")
    (work / "dataset" / "dataset_info.json").write_text("{")
    write(listing, tmp_path)
    assert content(tmp_path) == clean


def test_a_file_that_changed_is_read_again(pictures, tmp_path):
    """Of the same size, and as old as before: as an image that was replaced."""
    source = shutil.copytree(pictures, tmp_path / "source")
    listing = folder.find(str(source), validation_fraction=0)
    with pytest.raises(KeyboardInterrupt):
        write(listing, tmp_path / "data", on_image=stop_after(20))
    for path in source.glob("?/*.png"):
        status = path.stat()
        Image.new("RGB", (20, 16), (1, 2, 3)).save(path)
        os.truncate(path, status.st_size) if status.st_size else path.write_bytes(b"")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    write(listing, tmp_path / "data")
    write(listing, tmp_path / "clean")
    assert content(tmp_path / "data") == content(tmp_path / "clean")


def test_a_refused_file_gets_another_chance(listing, clean, tmp_path, monkeypatch):
    """As one that Pillow reads since it was updated."""

    def refuse(data, name):
        raise ImageError(f"{name} is of a new kind")

    with monkeypatch.context() as patch:
        patch.setattr(writing, "decode_image", refuse)
        with pytest.raises(KeyboardInterrupt):
            write(listing, tmp_path, on_image=stop_after(20))
        # Nothing is worth keeping where nothing was good.
        assert unfinished("set", tmp_path, listing) is None
    calls = itertools.count()
    decode = writing.decode_image

    def refuse_some(data, name):
        return refuse(data, name) if next(calls) % 3 == 0 else decode(data, name)

    with monkeypatch.context() as patch:
        patch.setattr(writing, "decode_image", refuse_some)
        with pytest.raises(KeyboardInterrupt):
            write(listing, tmp_path, on_image=stop_after(20))
    assert unfinished("set", tmp_path, listing)
    write(listing, tmp_path)
    assert content(tmp_path) == clean


def test_what_was_refused_before_is_an_error_now(listing, tmp_path):
    refused = []
    with pytest.raises(KeyboardInterrupt):

        def stop_after_a_refusal(refusal):
            refused.extend([refusal] if refusal else [])
            if refused and finished_shards(tmp_path) > len(refused) and not refusal:
                stop_after(0)(None)

        write(listing, tmp_path, on_image=stop_after_a_refusal)
    with pytest.raises(ImageError, match="text.png|cut.png|empty.png"):
        write_dataset(listing, name="set", data_dir=tmp_path)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_broken_file_does_not_cost_what_is_finished(listing, clean, tmp_path, jobs):
    with pytest.raises(ImageError, match=r"\.png (is empty|is not|cannot be)"):
        write_dataset(listing, name="set", data_dir=tmp_path, jobs=jobs)
    check_nothing_is_read(listing, tmp_path)
    write(listing, tmp_path)
    assert content(tmp_path) == clean


def test_a_helper_that_is_killed(listing, clean, tmp_path):
    def kill(refusal):
        for process in multiprocessing.active_children():
            process.kill()

    with pytest.raises(UserError, match=r"was killed \(signal 9\).*fewer --jobs"):
        write(listing, tmp_path, jobs=2, on_image=kill)
    check_nothing_is_read(listing, tmp_path)
    write(listing, tmp_path)
    assert content(tmp_path) == clean


def test_no_room(listing, tmp_path, monkeypatch):
    usage = SimpleNamespace(free=50_000)
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: usage)
    message = r"set/1\.0\.0 needs 0\.0\d+ GB, and 5e-05 GB are free there: make room"
    with pytest.raises(UserError, match=message):
        write(listing, tmp_path)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("call", [1, 2, 3, 10, 41, -1])
def test_a_disk_that_becomes_full(listing, clean, tmp_path, monkeypatch, call):
    calls = itertools.count(1)

    def sync(path):
        number = next(calls)
        if number == call or (call == -1 and path.name == "prepared.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        for module in (writing, shards, prepared, working_folder):
            patch.setattr(module, "sync", sync)
        with pytest.raises(UserError, match="cannot write .*: No space left on dev"):
            write(listing, tmp_path)
    check_nothing_is_read(listing, tmp_path)
    write(listing, tmp_path)
    assert content(tmp_path) == clean


def test_what_was_left_in_the_last_moment_is_removed(listing, clean, tmp_path):
    write(listing, tmp_path)
    (tmp_path / "set" / ".1.0.0.incomplete" / "notes").mkdir(parents=True)
    assert find_prepared("set", tmp_path, listing)
    assert content(tmp_path) == clean


def test_a_file_system_without_locks(listing, clean, tmp_path, monkeypatch):
    def fail(descriptor, how):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr("fcntl.flock", fail)
    write(listing, tmp_path)
    assert content(tmp_path) == clean
