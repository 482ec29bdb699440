import argparse
from types import SimpleNamespace

import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.progress import Progress
from movq_jax.tools import image_data
from movq_jax.tools.feeding import Refusals

EVAL = {"resize": {"name": "squash"}, "crop": {"name": "none"}, "image_size": 0}


def tokenizer(**protocol):
    return SimpleNamespace(protocol=protocol)


@pytest.mark.parametrize(
    ("size", "protocol", "config", "said"),
    [
        ("whole", {"eval": EVAL | {"image_size": 8}}, None, "images as they are"),
        (8, {"eval": EVAL}, None, "resize short side, crop center, to 8 x 8"),
        (
            None,
            {"eval": EVAL},
            {"data": {"image_size": 8}},
            "resize squash, crop none, to 8 x 8, as in training",
        ),
        (
            None,
            {"eval": EVAL | {"image_size": 8}},
            {"data": {"image_size": 4}},
            "resize squash, crop none, to 8 x 8, as in training",
        ),
        (None, {"eval": EVAL}, None, "images as they are"),
        (None, {}, {"data": {"image_size": 8}}, "images as they are"),
    ],
)
def test_what_is_done_to_images(size, protocol, config, said):
    transform, text = image_data.make_transform(size, tokenizer(**protocol), config)
    assert text == said
    if transform is not None:
        image = np.zeros((10, 20, 3), np.uint8)
        assert transform(image, np.random.default_rng(0)).shape == (8, 8, 3)


def parse(*argv):
    parser = argparse.ArgumentParser()
    image_data.add_flags(parser)
    return parser.parse_args(argv)


def images_of(data, transform=None, max_side=2048):
    refusals = Refusals(total=len(data))
    with Progress(len(data), "images") as progress:
        images = data.images(
            transform, max_side=max_side, refusals=refusals, progress=progress
        )
        return list(images), refusals.reasons


def test_files(photos, tmp_path):
    args = parse("--data", str(photos / "trip"), str(photos / "a.*"), "--num=2")
    data = image_data.find_images(args, output=tmp_path / "out")
    assert (len(data), data.split, data.names(1)) == (2, None, "a.jpg")
    images, refused = images_of(data, max_side=24)
    assert not images and len(refused) == 2
    assert "above --max-side=24" in next(iter(refused.values()))


def test_a_transform_that_does_not_fit_refuses_the_image(photos, tmp_path):
    args = parse("--data", str(photos / "a.*"))
    data = image_data.find_images(args, output=tmp_path / "out")
    config = EVAL | {"resize": {"name": "none"}, "image_size": 8}
    transform, _ = image_data.make_transform(None, tokenizer(eval=config), None)
    images, refused = images_of(data, transform)
    assert not images and "after resize and crop" in next(iter(refused.values()))


def test_a_folder_may_be_called_as_a_dataset(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = image_data.find_images(parse("--data=photos"), output=tmp_path / "out")
    assert found.split is None
    args = parse("--data=photos", "--split=train", f"--data-dir={tmp_path / 'none'}")
    with pytest.raises(UserError, match="dataset 'photos' is not prepared"):
        image_data.find_images(args, output=tmp_path / "out")
