"""A folder of small pictures, prepared as a dataset, and a damaged copy of it."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import (
    ArrayRecordReader,
    ArrayRecordWriter,
)
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from movq_jax.data.builders import folder
from movq_jax.data.preparing.writing import write_dataset


def picture(number, height=40, width=48):
    """Return uint8 [H, W, 3]: every picture differs, and so does every pixel in it."""
    y, x = np.mgrid[:height, :width]
    channels = [x * 5, y * 6, np.full_like(x, number * 11)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def save_pictures(root: Path, names):
    """Write a PNG for each name."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(path)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A data dir with the dataset `small`: 13 training and 5 validation pictures."""
    source = tmp_path_factory.mktemp("pictures")
    save_pictures(source / "train", [f"{'ab'[i % 2]}/{i}.png" for i in range(13)])
    save_pictures(source / "val", [f"a/{i}.png" for i in range(5)])
    data_dir = tmp_path_factory.mktemp("data")
    write_dataset(folder.find(str(source)), name="small", data_dir=data_dir)
    return data_dir


def read_shard(path: Path):
    """Return its records, with None for those that cannot be read."""
    reader = ArrayRecordReader(os.fspath(path))
    records = []
    for number in range(reader.num_records()):
        try:
            records.append(reader.read([number])[0])
        except RuntimeError:
            records.append(None)
    reader.close()
    return records


def replace_images(path: Path, images):
    """Write a shard anew with other bytes as the image of some records."""
    records = read_shard(path)
    writer = ArrayRecordWriter(os.fspath(path), "group_size:1")
    for number, record in enumerate(records):
        example = tf_example_pb2.Example.FromString(record)
        if number in images:
            example.features.feature["image"].bytes_list.value[0] = images[number]
        writer.write(example.SerializeToString())
    writer.close()


def flip_a_byte(path: Path):
    """Damage one record, and return its number."""
    content = bytearray(path.read_bytes())
    content[2000] ^= 255
    path.write_bytes(content)
    records = read_shard(path)
    assert records.count(None) == 1
    return records.index(None)


@pytest.fixture(scope="session")
def damaged(data_dir, tmp_path_factory):
    """A data dir with `small`, and the numbers of two training images broken in it.

    The first is no image, the second a record with bits that have flipped.
    """
    copy = tmp_path_factory.mktemp("damaged")
    shutil.copytree(data_dir, copy, dirs_exist_ok=True)
    (shard,) = copy.glob("small/1.0.0/small-train.array_record*")
    replace_images(shard, {2: b"no picture"})
    return copy, [2, flip_a_byte(shard)]


@pytest.fixture(scope="session")
def ruined(data_dir, tmp_path_factory):
    """A data dir with `small`, of which no training image can be decoded."""
    copy = tmp_path_factory.mktemp("ruined")
    shutil.copytree(data_dir, copy, dirs_exist_ok=True)
    (shard,) = copy.glob("small/1.0.0/small-train.array_record*")
    replace_images(shard, dict.fromkeys(range(13), b"no picture"))
    return copy


@pytest.fixture
def data_config(data_dir):
    """The `data` section that trains on `small`; a test may change it."""
    return {
        "dataset": "small",
        "split_train": "train",
        "split_eval": "validation",
        "data_dir": str(data_dir),
        "image_size": 16,
        "train": {
            "resize": {"name": "none"},
            "crop": {"name": "random"},
            "flip": True,
            "permute_channels": False,
            "reduced_decoding": False,
        },
        "eval": {
            "resize": {"name": "short_side"},
            "crop": {"name": "center"},
            "image_size": 0,
        },
        "num_threads": 2,
        "num_workers": 0,
        "prefetch": 2,
        "decode_once": False,
        "max_broken_share": 0.01,
    }
