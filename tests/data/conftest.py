"""A folder of small pictures, prepared as a dataset."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from movq_jax.data.builders import folder
from movq_jax.data.builders.writing import write_dataset


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
        },
        "eval": {
            "resize": {"name": "short_side"},
            "crop": {"name": "center"},
            "image_size": 0,
        },
        "num_threads": 2,
        "prefetch": 2,
        "decode_once": False,
    }
