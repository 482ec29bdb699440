"""Images and records that cannot be read, in training and in evaluation."""

import numpy as np
import pytest

from movq_jax.data import rows
from movq_jax.data.pipeline import batch_at, eval_batches, train_batches
from movq_jax.errors import UserError

TRAIN = 13


@pytest.fixture
def config(data_config):
    """The section without random crops and flips."""
    data_config["train"].update(
        resize={"name": "squash"}, crop={"name": "none"}, flip=False
    )
    return data_config


@pytest.fixture
def damaged_config(config, damaged):
    return config | {"data_dir": str(damaged[0])}


def read(config, count, **arguments):
    """Return the next batches, [count, batch, S, S, 3], and what was refused."""
    options = {"seed": 0, "batch_size": 4, "start": 0, **arguments}
    with train_batches(config, **options) as batches:
        return np.stack([next(batches)["image"] for _ in range(count)]), batches.refused


def test_others_stand_in_for_them(config, damaged_config):
    whole, _ = read(config, 30)
    found, refused = read(damaged_config, 30)
    replaced = (whole != found).any((2, 3, 4))
    # Two of 13, in nine epochs and three more images. One may stand in for the other.
    assert refused.seen == 120 and 18 <= refused.replaced <= 20
    assert replaced.sum() == refused.replaced
    pictures = {image.tobytes() for image in whole.reshape(-1, 16, 16, 3)}
    there = {image.tobytes() for image in found.reshape(-1, 16, 16, 3)}
    assert len(pictures) == TRAIN and len(there) == TRAIN - 2 and there < pictures


def test_they_are_told_by_name(damaged_config, damaged):
    _, refused = read(damaged_config, 10)
    no_image, no_record = damaged[1]
    assert set(refused.reasons) == {no_image, no_record}
    assert refused.reasons[no_image].endswith(
        ".png of small/1.0.0 train is not an image that Pillow reads"
    )
    assert refused.reasons[no_record].startswith(
        f"record {no_record} of small/1.0.0 train cannot be read ("
    )
    assert refused.epoch == TRAIN


@pytest.mark.parametrize(
    "options", [{"num_threads": 0}, {"num_workers": 2}, {"decode_once": True}]
)
def test_who_reads_does_not_matter(damaged_config, options):
    expected, refused = read(damaged_config, 8)
    found, again = read(damaged_config | options, 8)
    np.testing.assert_array_equal(found, expected)
    assert (again.seen, again.replaced) == (refused.seen, refused.replaced)
    assert again.reasons == refused.reasons


@pytest.mark.parametrize("process_count", [2, 4])
def test_nor_how_many_processes_and_from_where(damaged_config, process_count):
    expected, refused = read(damaged_config, 8, start=3)
    parts = [
        read(
            damaged_config,
            8,
            start=3,
            process_index=index,
            process_count=process_count,
        )
        for index in range(process_count)
    ]
    joined = np.concatenate([images for images, _ in parts], axis=1)
    np.testing.assert_array_equal(joined, expected)
    assert sum(part.replaced for _, part in parts) == refused.replaced
    alone = batch_at(damaged_config, 5, seed=0, batch_size=4)
    np.testing.assert_array_equal(alone["image"], expected[2])


def test_another_seed_replaces_by_others(damaged_config, damaged):
    order = rows.TrainRows
    images = type("Images", (), {"__len__": lambda self: 1000})()
    one, other = (
        list(order(images, None, crop_key=0, other_key=key)._others(7))
        for key in (0, 1)
    )
    assert one != other and len(set(one)) > 8


def test_when_nothing_can_be_read(data_config, ruined):
    data_config["data_dir"] = str(ruined)
    for options in ({"num_threads": 0}, {"num_workers": 1}):
        with pytest.raises(
            UserError, match=r"png of small/1\.0\.0 train is not an.*16"
        ):
            read(data_config | options, 1)


def test_in_evaluation_they_are_errors(damaged_config, damaged):
    no_image, no_record = damaged[1]
    for index, words in (
        (no_image, "png of small/1.0.0 train.* is not an image"),
        (no_record, "cannot be read"),
    ):
        split = f"train[{index}:{index + 1}]"
        with eval_batches(damaged_config, batch_size=4, split=split) as batches:
            assert batches.refused is None
            with pytest.raises(UserError, match=words):
                next(batches)


def test_what_can_be_read_the_second_time(config, monkeypatch):
    """A network that failed for a moment, for example."""
    failed = []
    read_image = rows.Images.read

    def fail_once(self, index):
        if not failed:
            failed.append(index)
            raise UserError("no route to host")
        return read_image(self, index)

    monkeypatch.setattr(rows.Images, "read", fail_once)
    _, refused = read(config | {"num_threads": 0}, 2)
    assert refused.replaced == 1
    assert refused.reasons[failed[0]].endswith("the disk or the network is at fault")


def test_a_lack_of_memory_is_no_broken_image(config, monkeypatch):
    def decode(data, name, least_side):
        raise MemoryError

    monkeypatch.setattr(rows, "decode_image", decode)
    with pytest.raises(MemoryError):
        read(config | {"num_threads": 0}, 1)
