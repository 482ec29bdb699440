import dataclasses
import fcntl
import io
import json
import multiprocessing
import os
import re
import shutil
import struct
import zlib
from types import SimpleNamespace

import pytest
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image

from movq_jax.data.builders import folder
from movq_jax.data.images import ImageError
from movq_jax.data.preparing import writing
from movq_jax.data.preparing.writing import find_prepared, write_dataset
from movq_jax.data.sources import open_split
from movq_jax.errors import UserError


@pytest.fixture
def pictures(tmp_path):
    """Twelve pictures of different kinds and colours."""
    root = tmp_path / "pictures"
    root.mkdir()
    for number in range(12):
        suffix = ("jpg", "png", "webp")[number % 3]
        colour = (number * 20, 255 - number * 20, 99)
        Image.new("RGB", (20, 16), colour).save(root / f"{number}.{suffix}")
    return root


def list_pictures(root):
    return folder.find(str(root), validation_fraction=0.3)


def read(data_dir, name, split):
    source = open_split(SimpleNamespace(dataset=name, data_dir=str(data_dir)), split)
    return [source[index] for index in range(len(source))]


def left_in(data_dir, name):
    folder = data_dir / name
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_files_are_stored_untouched(pictures, tmp_path):
    listing = list_pictures(pictures)
    prepared = write_dataset(listing, name="set", data_dir=tmp_path)
    for split, examples in listing.splits.items():
        stored = {r["filename"]: r["image"] for r in read(tmp_path, "set", split)}
        assert stored == {e.key: e.path.read_bytes() for e in examples}
        assert prepared.images[split] == len(examples)
        assert prepared.bytes[split] == sum(map(len, stored.values()))
    assert left_in(tmp_path, "set") == ["1.0.0"]


def test_the_order_is_by_hash_wherever_the_files_lie(pictures, tmp_path):
    moved = shutil.copytree(pictures, tmp_path / "moved" / "elsewhere")
    orders = []
    for name, root in (("one", pictures), ("two", moved)):
        write_dataset(list_pictures(root), name=name, data_dir=tmp_path)
        orders.append([r["filename"] for r in read(tmp_path, name, "train")])
    assert orders[0] == orders[1] != sorted(orders[0])


def test_records_can_be_read_one_by_one(pictures, tmp_path):
    write_dataset(list_pictures(pictures), name="set", data_dir=tmp_path)
    for shard in (tmp_path / "set" / "1.0.0").glob("*.array_record*"):
        reader = ArrayRecordReader(str(shard))
        assert "group_size:1," in reader.writer_options_string()
        reader.close()


def test_many_shards(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "SHARD_BYTES", 300)
    listing = list_pictures(pictures)
    write_dataset(listing, name="set", data_dir=tmp_path)
    names = [p.name for p in (tmp_path / "set" / "1.0.0").glob("set-train*")]
    assert len(names) > 2
    assert all(name.endswith(f"-of-{len(names):05d}") for name in names)
    stored = [record["filename"] for record in read(tmp_path, "set", "train")]
    assert sorted(stored) == sorted(e.key for e in listing.splits["train"])


def test_a_broken_file_stops_the_preparation(pictures, tmp_path):
    (pictures / "4.png").write_bytes(b"broken")
    with pytest.raises(ImageError, match=r"4\.png is not an image"):
        write_dataset(list_pictures(pictures), name="set", data_dir=tmp_path)
    assert left_in(tmp_path, "set") == []


def test_broken_files_can_be_left_out(pictures, tmp_path):
    (pictures / "4.png").write_bytes(b"broken")
    (pictures / "6.jpg").write_bytes((pictures / "6.jpg").read_bytes()[:300])
    (pictures / "list.txt").write_text("0.jpg\n4.png\n6.jpg\n7.png\nmissing.png\n")
    listing = folder.find(str(pictures / "list.txt"), validation_fraction=0)
    seen = []
    prepared = write_dataset(
        listing, name="set", data_dir=tmp_path, skip_broken=True, on_image=seen.append
    )
    refused = {os.path.basename(path): why for path, why in prepared.refused.items()}
    assert set(refused) == {"4.png", "6.jpg", "missing.png"}
    assert "No such file" in refused["missing.png"]
    assert sorted(filter(None, seen)) == sorted(refused.values())
    assert seen.count(None) == prepared.images["train"] == 2
    assert len(read(tmp_path, "set", "train")) == 2
    assert find_prepared("set", tmp_path, listing) == prepared


def save_bomb(path):
    """Write the beginning of a PNG of 30,000 x 30,000 pixels."""
    header = struct.pack(">2I5B", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(90_001)))]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data))
            + name
            + data
            + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )


def test_every_way_of_being_broken(pictures, tmp_path):
    whole = io.BytesIO()
    Image.effect_noise((200, 200), 50).save(whole, "JPEG")
    (pictures / "cut.jpg").write_bytes(whole.getvalue()[: whole.tell() // 2])
    (pictures / "empty.jpg").touch()
    (pictures / "text.jpg").write_text("This is a text.")
    save_bomb(pictures / "bomb.png")
    reasons = {
        "cut.jpg": "truncated",
        "empty.jpg": "is empty",
        "text.jpg": "is not an image that Pillow reads",
        "bomb.png": "is too large to decode",
    }
    if os.geteuid():  # the administrator reads everything
        (pictures / "0.jpg").chmod(0)
        reasons["0.jpg"] = "Permission denied"
    listing = list_pictures(pictures)
    prepared = write_dataset(listing, name="set", data_dir=tmp_path, skip_broken=True)
    refused = {os.path.basename(path): why for path, why in prepared.refused.items()}
    assert refused.keys() == reasons.keys()
    for name, why in reasons.items():
        assert why in refused[name] and str(pictures / name) in refused[name]
    assert sum(prepared.images.values()) == 16 - len(reasons)


def test_a_disk_too_small_for_a_shard(pictures, tmp_path):
    """The system refuses to let files grow: in a process of its own, for its life."""
    context = multiprocessing.get_context("spawn")
    messages = context.SimpleQueue()
    names = {
        "listing": list_pictures(pictures),
        "data_dir": tmp_path,
        "messages": messages,
    }
    process = context.Process(target=exec, args=(WRITE_ON_A_FULL_DISK, names))
    process.start()
    process.join()
    message = messages.get()
    assert re.search(r"was not written in full \(.*File too large.*\)", message)
    assert message.endswith("is the disk full?")
    assert left_in(tmp_path, "set") == []


WRITE_ON_A_FULL_DISK = """
import resource
from movq_jax.data.preparing.writing import write_dataset
from movq_jax.errors import UserError

resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    write_dataset(listing, name="set", data_dir=data_dir)
except UserError as error:
    messages.put(str(error))
else:
    messages.put("no error")
"""


def test_a_version_without_hashes_is_still_read(pictures, tmp_path):
    listing = list_pictures(pictures)
    prepared = write_dataset(listing, name="set", data_dir=tmp_path)
    assert len(prepared.sha256) == 2
    manifest = prepared.folder / "prepared.json"
    content = json.loads(manifest.read_text())
    del content["sha256"]
    manifest.write_text(json.dumps(content))
    found = find_prepared("set", tmp_path, listing)
    assert found == dataclasses.replace(prepared, sha256={})


def test_as_many_processes_as_the_bytes_are_worth(monkeypatch):
    monkeypatch.setattr(writing, "usable_cores", lambda: 4)
    sizes = (0, 2**28 - 1, 2**28, 3 * 2**28, 2**40)
    assert [writing.suitable_jobs(size) for size in sizes] == [1, 1, 1, 3, 4]


def test_nothing_but_broken_files(pictures, tmp_path):
    for path in pictures.iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match="no image of train can be decoded"):
        write_dataset(
            list_pictures(pictures), name="set", data_dir=tmp_path, skip_broken=True
        )
    assert left_in(tmp_path, "set") == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_of_a_preparation_that_stops(pictures, tmp_path, error):
    calls = []

    def stop_at_the_fifth(refusal):
        calls.append(refusal)
        if len(calls) == 5:
            raise error

    listing = list_pictures(pictures)
    with pytest.raises(error):
        write_dataset(
            listing, name="set", data_dir=tmp_path, on_image=stop_at_the_fifth
        )
    assert left_in(tmp_path, "set") == []
    assert find_prepared("set", tmp_path, listing) is None


def test_what_a_killed_process_left_is_removed(pictures, tmp_path):
    leftover = tmp_path / "set" / ".1.0.0.incomplete"
    leftover.mkdir(parents=True)
    (leftover / "set-train.array_record-00000-of-00001").write_bytes(b"half")
    listing = list_pictures(pictures)
    assert find_prepared("set", tmp_path, listing) is None
    with pytest.raises(UserError, match="is not prepared"):
        read(tmp_path, "set", "train")
    write_dataset(listing, name="set", data_dir=tmp_path)
    assert left_in(tmp_path, "set") == ["1.0.0"]
    assert len(read(tmp_path, "set", "train")) == len(listing.splits["train"])


def test_two_at_a_time_are_one_too_many(pictures, tmp_path):
    (tmp_path / "set").mkdir()
    other = os.open(tmp_path / "set", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    try:
        with pytest.raises(UserError, match="another process is preparing"):
            write_dataset(list_pictures(pictures), name="set", data_dir=tmp_path)
    finally:
        os.close(other)


def test_a_place_that_cannot_be_written(pictures, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/set/1\.0\.0: Not a dir"):
        write_dataset(list_pictures(pictures), name="set", data_dir=tmp_path / "file")


def test_files_that_were_not_written_in_full(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "count_records", lambda path: 3)
    with pytest.raises(UserError, match="is the disk full"):
        write_dataset(list_pictures(pictures), name="set", data_dir=tmp_path)
    assert left_in(tmp_path, "set") == []


def test_the_same_source_is_recognised_and_another_refused(pictures, tmp_path):
    listing = list_pictures(pictures)
    assert find_prepared("set", tmp_path, listing) is None
    prepared = write_dataset(listing, name="set", data_dir=tmp_path)
    moved = shutil.copytree(pictures, tmp_path / "moved")
    assert find_prepared("set", tmp_path, list_pictures(moved)) == prepared

    others = [folder.find(str(pictures), validation_fraction=0.5)]
    (moved / "0.jpg").write_bytes((moved / "3.jpg").read_bytes() + b" ")
    others.append(list_pictures(moved))
    (moved / "0.jpg").unlink()
    others.append(list_pictures(moved))
    for other in others:
        with pytest.raises(UserError, match="holds another dataset: choose another"):
            find_prepared("set", tmp_path, other)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"classes": []}'])
def test_a_folder_of_someone_else(pictures, tmp_path, content):
    place = tmp_path / "set" / "1.0.0"
    place.mkdir(parents=True)
    if content is not None:
        (place / "prepared.json").write_text(content)
    with pytest.raises(UserError, match="holds another dataset"):
        find_prepared("set", tmp_path, list_pictures(pictures))


@pytest.mark.parametrize("name", ["", "Set", "1set", "my-set", "a/b", "..", "sét"])
def test_names_that_cannot_be(pictures, tmp_path, name):
    with pytest.raises(UserError, match="cannot be the name of a dataset"):
        find_prepared(name, tmp_path, list_pictures(pictures))
