import json
import os
from pathlib import Path

import pytest
from PIL import Image

from movq_jax.data.builders import folder
from movq_jax.data.preparing import writing
from movq_jax.data.preparing.verifying import verify_dataset
from movq_jax.data.preparing.writing import write_dataset
from movq_jax.errors import UserError


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """The folder of a dataset `set` of 30 pictures in several shards."""
    monkeypatch.setattr(writing, "SHARD_BYTES", 3000)
    for number in range(30):
        path = tmp_path / "pictures" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.effect_noise((20, 20), number + 1).save(path)
    listing = folder.find(str(tmp_path / "pictures"), validation_fraction=0.3)
    return write_dataset(listing, name="set", data_dir=tmp_path).folder


def verify(dataset, **kwargs):
    return verify_dataset("set", dataset.parents[1], **kwargs)


def shards(dataset):
    return sorted(dataset.glob("*.array_record*"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_whole_dataset(dataset, jobs):
    starts, seen = [], []
    verified = verify(dataset, jobs=jobs, on_start=starts.append, on_image=seen.append)
    assert verified.problems == [] and verified.folder == dataset
    assert starts == [30] and seen == [None] * 30
    assert verified.images == verified.prepared.images
    assert verified.bytes == verified.prepared.bytes
    assert sum(verified.shards.values()) == len(shards(dataset)) > 4


def test_a_byte_that_changed(dataset):
    shard = shards(dataset)[0]
    content = bytearray(shard.read_bytes())
    content[shard.read_bytes().index(b"IDAT") + 40] ^= 1
    shard.write_bytes(content)
    first, second = verify(dataset).problems
    assert first == f"{shard.name} is not as it was written (its SHA-256 differs)"
    assert second.startswith("record ") and f"of {shard.name} cannot be read" in second


def test_a_byte_that_no_record_has(dataset):
    with shards(dataset)[0].open("ab") as file:
        file.write(b"\0")
    assert "its SHA-256 differs" in verify(dataset).problems[0]


def test_missing_and_cut_off_shards(dataset):
    missing, cut, empty = shards(dataset)[:3]
    missing.unlink()
    os.truncate(cut, 1000)
    os.truncate(empty, 0)
    problems = verify(dataset).problems
    assert f"{missing.name} is missing" in problems
    for shard in (cut, empty):
        assert any(p.startswith(f"{shard.name} has 0 of ") for p in problems)
    assert len(problems) == 5


def test_counts_that_contradict_each_other(dataset):
    manifest = dataset / "prepared.json"
    content = json.loads(manifest.read_text())
    content["images"]["train"] += 1
    manifest.write_text(json.dumps(content))
    [problem] = verify(dataset).problems
    assert problem.startswith("prepared.json says {'train': ")


def test_files_that_contradict_each_other(dataset):
    manifest = dataset / "prepared.json"
    content = json.loads(manifest.read_text())
    del content["sha256"][shards(dataset)[0].name]
    manifest.write_text(json.dumps(content))
    [problem] = verify(dataset).problems
    assert problem == "prepared.json and dataset_info.json name different files"
    manifest.write_text("{")
    assert verify(dataset).problems == ["prepared.json cannot be read"]


@pytest.mark.parametrize("manifest", ["early", "none"])
def test_a_dataset_without_hashes(dataset, manifest):
    path = dataset / "prepared.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    path.unlink() if manifest == "none" else path.write_text(json.dumps(content))
    verified = verify(dataset)
    assert verified.problems == [] and (verified.prepared is None) == (
        manifest == "none"
    )


def test_a_stored_file_that_is_no_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "decode_image", lambda data, name: None)
    (tmp_path / "pictures").mkdir()
    for name in ("good", "bad"):
        Image.new("RGB", (9, 9)).save(tmp_path / "pictures" / f"{name}.png")
    (tmp_path / "pictures" / "bad.png").write_bytes(b"no picture")
    listing = folder.find(str(tmp_path / "pictures"), validation_fraction=0)
    write_dataset(listing, name="set", data_dir=tmp_path)
    seen = []
    [problem] = verify(Path(tmp_path / "set" / "1.0.0"), on_image=seen.append).problems
    assert "-of-00001 (bad.png) is not an image that Pillow reads" in problem
    assert sorted(seen, key=str) == [None, problem]


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_metadata_that_cannot_be_read(dataset, name):
    (dataset / name).write_text("{")
    with pytest.raises(UserError, match="metadata of .* cannot be read|is not a datas"):
        verify(dataset)


def test_no_dataset(tmp_path):
    with pytest.raises(UserError, match="dataset 'set' is not prepared in"):
        verify_dataset("set", tmp_path)
