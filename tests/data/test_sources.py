import io
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow_datasets as tfds
from PIL import Image

from movq_jax.data.images import decode_image
from movq_jax.data.sources import (
    find_dataset,
    open_split,
    read_classes,
    resolve_data_dir,
)
from movq_jax.errors import UserError


def place(data_dir, dataset="small"):
    return SimpleNamespace(dataset=dataset, data_dir=str(data_dir))


def test_records_hold_the_files_as_they_were(data_dir):
    source = open_split(place(data_dir), "validation")
    assert len(source) == 5
    for index in range(5):
        record = source[index]
        assert sorted(record) == ["filename", "image", "label"]
        assert record["filename"].startswith("val/a/")
        assert record["label"] == 0
        assert decode_image(record["image"]).shape == (40, 48, 3)


def test_splits_can_be_sliced(data_dir):
    def names(split):
        source = open_split(place(data_dir), split)
        return [source[index]["filename"] for index in range(len(source))]

    assert names("train[:3]") + names("train[3:]") == names("train")
    assert sorted(names("train+validation")) == sorted(
        names("train") + names("validation")
    )


def test_threads_may_share_a_source(data_dir):
    source = open_split(place(data_dir), "train")
    expected = [source[index] for index in range(13)]
    found = []
    threads = [
        threading.Thread(
            target=lambda: found.extend(map(source.__getitem__, range(13)))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 * 13
    assert all(record in expected for record in found)


def test_a_dataset_that_is_not_there(data_dir, tmp_path):
    with pytest.raises(UserError) as caught:
        open_split(place(data_dir, "smal"), "train")
    assert str(caught.value) == (
        f"dataset 'smal' is not prepared in {data_dir}; did you mean 'small'? Known: "
        f"small. Prepare it: python -m movq_jax.tools.prepare --dataset=folder "
        f"--source=DIR --name=smal --data-dir={data_dir}"
    )
    with pytest.raises(UserError, match="where no dataset is.*--dataset=photos --data"):
        open_split(place(tmp_path / "nowhere", "photos"), "train")


def test_a_split_that_is_not_there(data_dir):
    with pytest.raises(UserError, match="no split 'test'; it has train, validation"):
        open_split(place(data_dir), "test")
    with pytest.raises(UserError, match="no split 'train\\[oops'"):
        open_split(place(data_dir), "train[oops")
    with pytest.raises(UserError, match="no images in the split"):
        open_split(place(data_dir), "train[:0]")


@pytest.mark.parametrize("damage", ["empty", "cut", "gone"])
def test_files_that_are_not_whole(data_dir, tmp_path, damage):
    copy = shutil.copytree(data_dir, tmp_path / "data")
    (shard,) = copy.glob("small/1.0.0/small-train.array_record*")
    if damage == "gone":
        shard.unlink()
    else:
        content = shard.read_bytes()
        shard.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.raises(UserError, match="damaged, delete its folder and prepare it"):
        open_split(place(copy), "train")[12]


def test_versions(tmp_path):
    for version in ("1.0.0", "1.10.0", "1.9.0", ".2.0.0.incomplete"):
        (tmp_path / "set" / version).mkdir(parents=True)
        (tmp_path / "set" / version / "dataset_info.json").touch()
    (tmp_path / "set" / "3.0.0").mkdir()  # no metadata: not prepared
    assert find_dataset("set", tmp_path) == tmp_path / "set" / "1.10.0"
    assert find_dataset("set:1.9.0", tmp_path) == tmp_path / "set" / "1.9.0"
    with pytest.raises(UserError, match=r"set 3\.0\.0 is not in .*1\.0\.0, 1\.9\.0, 1"):
        find_dataset("set:3.0.0", tmp_path)


def test_configurations(tmp_path):
    for config in ("2014", "2017"):
        (tmp_path / "coco" / config / "1.1.0").mkdir(parents=True)
        (tmp_path / "coco" / config / "1.1.0" / "dataset_info.json").touch()
    found = find_dataset("coco/2017", tmp_path)
    assert found == tmp_path / "coco" / "2017" / "1.1.0"
    assert find_dataset("coco/2017:1.1.0", tmp_path) == found
    with pytest.raises(UserError, match="comes as 2014, 2017: choose one"):
        find_dataset("coco", tmp_path)


def test_the_only_configuration_need_not_be_named(tmp_path):
    (tmp_path / "coco" / "2014" / "1.0.0").mkdir(parents=True)
    (tmp_path / "coco" / "2014" / "1.0.0" / "dataset_info.json").touch()
    found = tmp_path / "coco" / "2014" / "1.0.0"
    assert find_dataset("coco", tmp_path) == find_dataset("coco:1.0.0", tmp_path)
    assert find_dataset("coco", tmp_path) == found
    with pytest.raises(UserError, match=r"coco/2014 2\.0\.0 is not in .*is 1\.0\.0"):
        find_dataset("coco:2.0.0", tmp_path)


@pytest.mark.parametrize(
    "name, kind", [("coco/2017", "coco/2017"), ("coco/2071", "coco"), ("coco", "coco")]
)
def test_an_edition_that_is_not_there(data_dir, tmp_path, name, kind):
    with pytest.raises(UserError) as caught:
        find_dataset(name, tmp_path)
    assert str(caught.value) == (
        f"dataset '{name}' is not prepared in {tmp_path}, where no dataset is. Prepare "
        f"it: python -m movq_jax.tools.prepare --dataset={kind} --source=DIR "
        f"--data-dir={tmp_path}"
    )
    if "/" in name:
        other = tmp_path / "coco" / "2014" / "1.0.0"
        other.mkdir(parents=True)
        (other / "dataset_info.json").touch()
        with pytest.raises(UserError, match="did you mean 'coco/2014'"):
            find_dataset(name, tmp_path)


def test_data_dir(monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    assert resolve_data_dir("") == Path.home() / "tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", "/data")
    assert resolve_data_dir(None) == Path("/data")
    assert resolve_data_dir("~/sets") == Path.home() / "sets"
    with pytest.raises(UserError, match="gs://bucket/sets is a bucket"):
        resolve_data_dir("gs://bucket/sets")


class TheirBuilder(tfds.core.GeneratorBasedBuilder):
    """A dataset as TensorFlow Datasets writes it."""

    VERSION = tfds.core.Version("2.0.0")
    name = "theirs"

    def _info(self):
        features = {
            "image": tfds.features.Image(),
            "file_name": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number in range(4):
            file = io.BytesIO()
            Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "PNG")
            file.seek(0)
            name = f"{number}.png"
            yield number, {"image": file, "file_name": name, "label": number % 2}


def test_a_dataset_of_tensorflow_datasets(tmp_path):
    builder = TheirBuilder(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    source = open_split(place(tmp_path, "theirs"), "train")
    records = [source[index] for index in range(len(source))]
    for record in records:
        number = decode_image(record["image"])[0, 0, 0]
        assert record["filename"] == f"{number}.png"
        assert record["label"] == number % 2
    assert len(records) == 4


def test_our_datasets_are_read_by_tensorflow_datasets(data_dir):
    builder = tfds.builder_from_directory(data_dir / "small" / "1.0.0")
    decoders = {"image": tfds.decode.SkipDecoding()}
    theirs = builder.as_data_source("train", decoders=decoders)
    ours = open_split(place(data_dir), "train")
    assert builder.info.features["label"].names == ["a", "b"]
    for index in range(13):
        assert theirs[index]["image"] == ours[index]["image"]
        assert theirs[index]["label"] == ours[index]["label"]


def test_the_names_of_the_classes(data_dir):
    assert read_classes(place(data_dir)) == ("a", "b")
    with pytest.raises(UserError, match="is not prepared"):
        read_classes(place(data_dir, "smal"))
