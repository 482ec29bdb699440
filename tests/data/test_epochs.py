"""Over an epoch each image is there once, on however many processes, and resumed."""

from collections import Counter

import numpy as np
import pytest

from movq_jax.data import pipeline
from movq_jax.data.order import Order
from movq_jax.data.pipeline import train_batches
from movq_jax.data.settings import read_settings

TRAIN = 13  # pictures
BATCH = 8  # of which an epoch is one and five eighths


def numbers(images):
    """Return which picture each image is from: its blue channel tells."""
    return images[..., 0, 0, 2] // 11


def read(config, numbers_of_batches, process_count):
    """Return the pictures in global batches, as `process_count` processes read them."""
    start = numbers_of_batches[0]
    parts = []
    for index in range(process_count):
        with train_batches(
            config,
            seed=3,
            batch_size=BATCH,
            start=start,
            process_index=index,
            process_count=process_count,
        ) as batches:
            images = [next(batches)["image"] for _ in numbers_of_batches]
        parts.append(numbers(np.stack(images)))
    return np.concatenate(parts, axis=1).reshape(-1).tolist()


def assert_epochs(row):
    for start in range(0, len(row) - TRAIN + 1, TRAIN):
        assert sorted(row[start : start + TRAIN]) == list(range(TRAIN))


@pytest.mark.parametrize("process_count", [1, 2, 4])
@pytest.mark.parametrize("options", [{}, {"num_threads": 7, "prefetch": 5}])
def test_every_image_once_an_epoch(data_config, process_count, options):
    data_config["train"]["flip"] = False
    row = read(data_config | options, range(13), process_count)  # eight epochs
    assert_epochs(row)
    assert set(Counter(row).values()) == {BATCH}


@pytest.mark.parametrize("before, after", [(2, 4), (4, 1), (1, 8)])
@pytest.mark.parametrize("stop", [1, 2, 5])
def test_on_another_number_of_processes_the_epoch_goes_on(
    data_config, before, after, stop
):
    data_config["train"]["flip"] = False
    row = read(data_config, range(stop), before)
    row += read(data_config, range(stop, 13), after)
    assert_epochs(row)
    assert row == read(data_config, range(13), 1)


@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_every_index_of_a_large_set_once_an_epoch(
    data_config, monkeypatch, process_count
):
    """As many as are not drawn as a whole, and batches that do not divide them."""
    count, batch_size = 2**16 + 5, 4096
    monkeypatch.setattr(pipeline, "Order", lambda _, seed: Order(count, seed))
    settings = read_settings(data_config)
    slices = pipeline._TrainSlices(settings, 3, batch_size // process_count)
    jobs = [slices.job(number) for number in range(17 * process_count)]
    firsts = [first for first, _ in jobs]
    assert firsts == [n * batch_size // process_count for n in range(len(jobs))]
    row = [index for _, indices in jobs for index in indices]
    assert sorted(row[:count]) == list(range(count))
    assert len(set(row[count:])) == len(row) - count
