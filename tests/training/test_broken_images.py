"""Training images that cannot be read: told, logged, and a stop above a share."""

import json
import types

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from movq_jax.data.images import ImageError
from movq_jax.data.pipeline import Batches
from movq_jax.data.refused import Refused
from movq_jax.data.rows import Images
from movq_jax.errors import UserError
from movq_jax.training import loop
from movq_jax.training.broken_images import ENOUGH, BrokenImages


class Split:
    """A split of images that cannot be read."""

    def __init__(self, count):
        self._count = count

    def __len__(self):
        return self._count

    def read(self, index):
        raise UserError(f"image {index} is broken")


class Listener:
    """A console."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def watching(refused, most=0.01):
    config = types.SimpleNamespace(data=types.SimpleNamespace(max_broken_share=most))
    broken = BrokenImages(config, Listener())
    broken.watch(refused)
    return broken


def rows(*broken, of=100):
    """Numbers of the broken images of a batch."""
    return np.pad(np.int32(broken), (0, of - len(broken)), constant_values=-1)


def test_each_is_told_once_and_each_time_counted():
    refused = Refused(Split(10_000))
    broken = watching(refused)
    refused.add(rows(5, 7))
    broken.look()
    broken.look()
    assert broken.take() == 2 and broken.take() == 0
    refused.add(rows(7, 9))
    broken.look()
    assert broken.take() == 2
    said = "replaced by another image: image {} is broken"
    assert broken._console.said == [said.format(index) for index in (5, 7, 9)]


def test_too_many_of_many():
    refused = Refused(Split(10_000))
    broken = watching(refused)
    for index in range(ENOUGH - 1):  # of 950 images: 2 %, but of few
        refused.add(rows(index, of=50))
    broken.look()
    refused.add(rows(77, of=50))
    words = r"20 of 1000 .*\(2\.00%\).*max_broken_share=0\.01.*\n  image 0 is broken\n"
    with pytest.raises(UserError, match=words):
        broken.look()


def test_a_list_of_very_many_is_cut_short():
    refused = Refused(Split(10_000))
    broken = watching(refused)
    refused.add(rows(*range(100)))
    with pytest.raises(UserError, match="image 19 is broken\n  and 80 more$"):
        broken.look()


def test_a_whole_epoch_of_few():
    refused = Refused(Split(60))
    broken = watching(refused)
    refused.add(rows(3, of=50))
    broken.look()
    refused.add(rows(of=10))
    with pytest.raises(UserError, match=r"1 of 60 training images \(1\.67%\)"):
        broken.look()


def test_few_of_many_never_stop_a_run():
    refused = Refused(Split(60))
    broken = watching(refused)
    for epoch in range(100):
        refused.add(rows(epoch))
        broken.look()
    assert broken.take() == 100


@pytest.mark.parametrize(("most", "stops"), [(0, True), (1, False)])
def test_none_and_any(most, stops):
    refused = Refused(Split(2))
    broken = watching(refused, most)
    refused.add(rows(of=50))
    broken.look()
    refused.add(rows(1, of=1))
    if stops:
        with pytest.raises(UserError, match="image 1 is broken"):
            broken.look()
    else:
        refused.add(rows(*[0] * 100))
        broken.look()


def test_all_processes_know_of_all(monkeypatch):
    """As two processes that meet the same images."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        multihost_utils, "process_allgather", lambda array: np.stack([array, array])
    )
    refused = Refused(Split(10_000))
    broken = watching(refused)
    for index in range(ENOUGH // 2):
        refused.add(rows(index, of=60))
    with pytest.raises(UserError, match=r"(?s)20 of 1200 .*image 9 is broken$"):
        broken.look()
    assert len(broken._console.said) == 10


@pytest.fixture
def config(tiny_config, photos_dir):
    def make(*overrides):
        return tiny_config(f"data.data_dir={photos_dir}", *overrides)

    return make


def break_one(monkeypatch):
    read = Images.read

    def read_all_but_one(self, index):
        decoded = read(self, index)
        if index == 1 and "train" in decoded.name:
            raise ImageError(f"{decoded.name} is cut off")
        return decoded

    monkeypatch.setattr(Images, "read", read_all_but_one)


def test_a_run_with_a_broken_image(config, stage, tmp_path, capsys, monkeypatch):
    break_one(monkeypatch)
    loop.train(config("data.max_broken_share=1.0"), tmp_path, task=stage)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    counts = [r["data/broken"] for r in map(json.loads, lines) if "data/broken" in r]
    assert len(counts) == 6 and 0 < sum(counts) < 24
    errors = capsys.readouterr().err
    assert errors.count("replaced by another image: ") == 1
    assert errors.count("train is cut off") == 1


def test_a_run_that_stops_for_them_and_goes_on(config, stage, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        break_one(patch)
        with pytest.raises(UserError, match=r"(?s)The state is saved.*is cut off$"):
            loop.train(config("data.max_broken_share=0.0"), tmp_path, task=stage)
    assert stage.saved == []
    steps = [int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*")]
    assert len(steps) == 1 and steps[0] <= 2
    loop.train(config(), tmp_path, task=stage)
    assert stage.saved == [3, 6]


def test_a_run_without_broken_images_says_so(config, stage, tmp_path):
    loop.train(config("data.num_workers=1"), tmp_path, task=stage)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    counts = [r["data/broken"] for r in map(json.loads, lines) if "data/broken" in r]
    assert counts == [0.0] * 6


def test_data_that_fail_do_not_lose_what_was_learned(
    config, stage, tmp_path, monkeypatch
):
    following = Batches.__next__
    given = []

    def three(self):
        given.append(1)
        if len(given) > 3:
            raise UserError("the disk is gone")
        return following(self)

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "__next__", three)
        with pytest.raises(UserError, match="the disk is gone"):
            loop.train(config("eval.every=0"), tmp_path, task=stage)
    steps = [int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*")]
    assert len(steps) == 1 and 0 < steps[0] < 6
    loop.train(config("eval.every=0"), tmp_path, task=stage)
    assert stage.saved == [6]
