import itertools
import subprocess
import sys
import threading
from collections import Counter

import numpy as np
import pytest

from movq_jax.data import rows
from movq_jax.data.builders.listing import Example, Listing
from movq_jax.data.order import Order
from movq_jax.data.pipeline import batch_at, eval_batches, train_batches
from movq_jax.data.preparing import writing
from movq_jax.errors import UserError

TRAIN = 13  # pictures in the training set: no batch size divides it
# Size of a set -> who stands at positions 0, 1, 2, two in epoch 1, and at 10**9.
GOLDEN_ORDERS = {
    7: [2, 4, 3, 1, 4, 2],
    50_000: [35694, 44283, 23373, 15016, 19866, 48552],
    1_281_167: [935244, 429936, 155524, 97273, 158308, 511457],
}


def images_of(config, count, **arguments):
    """Return the next `count` training batches, [count, batch, S, S, 3]."""
    options = {"seed": 0, "batch_size": 4, "start": 0, **arguments}
    with train_batches(config, **options) as batches:
        return np.stack([next(batches)["image"] for _ in range(count)])


def numbers(images):
    """Return which picture each crop is from: the blue channel tells."""
    return images[..., 0, 0, 2] // 11


def test_shape_and_type(data_config):
    images = images_of(data_config, 2)
    assert images.shape == (2, 4, 16, 16, 3)
    assert images.dtype == np.uint8


@pytest.mark.parametrize("start", [1, 3, 7, 1000])
def test_batch_n_is_the_same_from_any_start(data_config, start):
    from_start = images_of(data_config, 3, start=start)
    for offset, batch in enumerate(from_start):
        alone = batch_at(data_config, start + offset, seed=0, batch_size=4)
        np.testing.assert_array_equal(batch, alone["image"])
    if start < 10:  # across the end of the first epoch, which is in batch 3
        np.testing.assert_array_equal(
            from_start, images_of(data_config, start + 3)[start:]
        )


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_take_slices_of_the_global_batch(data_config, process_count):
    whole = images_of(data_config, 5, start=2)
    slices = [
        images_of(
            data_config, 5, start=2, process_index=index, process_count=process_count
        )
        for index in range(process_count)
    ]
    np.testing.assert_array_equal(np.concatenate(slices, axis=1), whole)


@pytest.mark.parametrize("num_threads, prefetch", [(0, 1), (1, 1), (5, 3)])
def test_threads_do_not_change_the_batches(data_config, num_threads, prefetch):
    expected = images_of(data_config, 8)
    data_config.update(num_threads=num_threads, prefetch=prefetch)
    np.testing.assert_array_equal(images_of(data_config, 8), expected)


def test_decoding_once_does_not_change_the_batches(data_config):
    expected = images_of(data_config, 8)
    data_config["decode_once"] = True
    np.testing.assert_array_equal(images_of(data_config, 8), expected)


def test_decoding_once_decodes_once(data_config, monkeypatch):
    decoded = Counter()
    decode = rows.decode_image

    def count(data, name, **options):
        decoded[name] += 1
        return decode(data, name, **options)

    monkeypatch.setattr(rows, "decode_image", count)
    data_config.update(num_threads=0, decode_once=True)
    images_of(data_config, 10)
    assert len(decoded) == TRAIN and set(decoded.values()) == {1}


def test_the_batch_size_does_not_change_the_row_of_images(data_config):
    row = images_of(data_config, 6, batch_size=4).reshape(24, 16, 16, 3)
    again = images_of(data_config, 4, batch_size=6).reshape(24, 16, 16, 3)
    np.testing.assert_array_equal(row, again)


@pytest.mark.parametrize("batch_size", [TRAIN + 1, 2 * TRAIN + 4])
@pytest.mark.parametrize("process_count", [1, 2])
def test_a_split_smaller_than_the_batch_wraps_round(
    data_config, batch_size, process_count
):
    row = images_of(data_config, 3 * batch_size, batch_size=1)[:, 0]
    batches = np.concatenate(
        [
            images_of(
                data_config,
                3,
                batch_size=batch_size,
                process_index=index,
                process_count=process_count,
            )
            for index in range(process_count)
        ],
        axis=1,
    )
    np.testing.assert_array_equal(batches.reshape(row.shape), row)
    whole_epochs = numbers(row)[: 3 * TRAIN].reshape(3, TRAIN)
    for epoch in whole_epochs:
        assert sorted(epoch) == list(range(TRAIN))


@pytest.mark.parametrize("process_count", [1, 2])
def test_evaluation_of_fewer_images_than_a_batch(data_config, process_count):
    slices = [
        list(
            eval_batches(
                data_config,
                batch_size=16,
                process_index=index,
                process_count=process_count,
            )
        )
        for index in range(process_count)
    ]
    assert [len(batches) for batches in slices] == [1] * process_count
    mask = np.concatenate([batch["mask"] for (batch,) in slices])
    assert mask.tolist() == [True] * 5 + [False] * 11


@pytest.mark.parametrize("drawn_below", [0, 100])
def test_an_epoch_has_every_image_once_and_the_next_another_order(
    data_config, monkeypatch, drawn_below
):
    monkeypatch.setattr(Order, "_DRAWN_BELOW", drawn_below)
    order = numbers(images_of(data_config, 3 * TRAIN, batch_size=1)).reshape(3, TRAIN)
    for epoch in order:
        assert sorted(epoch) == list(range(TRAIN))
    for one, other in itertools.combinations(order, 2):
        assert (one != other).any()


def test_the_same_image_is_cropped_anew_in_each_epoch(data_config):
    images = images_of(data_config, 4 * TRAIN, batch_size=1)[:, 0]
    of_one = images[numbers(images) == 3]
    assert len({image.tobytes() for image in of_one}) > 1


def test_seeds_differ_in_order_and_crops(data_config):
    one, other = (images_of(data_config, 6, seed=seed) for seed in (0, 1))
    assert (numbers(one) != numbers(other)).any()
    # Not the order of seed 0 an epoch later, either.
    later = images_of(data_config, TRAIN, seed=0, batch_size=1, start=TRAIN)
    first = images_of(data_config, TRAIN, seed=1, batch_size=1)
    assert (numbers(later) != numbers(first)).any()


@pytest.mark.parametrize("count, golden", GOLDEN_ORDERS.items())
def test_golden_order(count, golden):
    """A resumed run relies on the order, also under another release of Grain."""
    order = Order(count, seed=5)
    positions = [0, 1, 2, count, count + 1, 10**9]
    assert [order[position] for position in positions] == golden


def test_evaluation_yields_each_image_once_and_masks_the_rest(data_config):
    with eval_batches(data_config, batch_size=4) as batches:
        first, last = list(batches)
    assert first["image"].shape == last["image"].shape == (4, 16, 16, 3)
    assert first["mask"].tolist() == [True] * 4
    assert last["mask"].tolist() == [True, False, False, False]
    assert not last["image"][1:].any()
    images = np.concatenate([first["image"], last["image"]])[:5]
    assert len({image.tobytes() for image in images}) == 5


def test_evaluation_is_the_same_each_time(data_config):
    data_config["eval"]["crop"] = {"name": "random"}
    once, again = (
        np.stack([batch["image"] for batch in eval_batches(data_config, batch_size=2)])
        for _ in range(2)
    )
    np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("num_examples, masks", [(3, [3]), (4, [4]), (99, [4, 1])])
def test_evaluation_of_some(data_config, num_examples, masks):
    batches = eval_batches(data_config, batch_size=4, num_examples=num_examples)
    assert [batch["mask"].sum() for batch in batches] == masks


def test_evaluation_of_another_split(data_config):
    batches = eval_batches(data_config, batch_size=4, split="train[:6]")
    assert sum(batch["mask"].sum() for batch in batches) == 6


def test_processes_evaluate_slices_and_the_same_number(data_config):
    whole = list(eval_batches(data_config, batch_size=4))
    halves = [
        list(eval_batches(data_config, batch_size=4, process_index=i, process_count=2))
        for i in range(2)
    ]
    assert len(halves[0]) == len(halves[1]) == len(whole)
    for batch, *parts in zip(whole, *halves, strict=True):
        for key, value in batch.items():
            joined = np.concatenate([part[key] for part in parts])
            np.testing.assert_array_equal(joined, value)


def test_a_batch_that_cannot_be_cut(data_config):
    with pytest.raises(UserError, match="a batch of 4 cannot be cut into 3"):
        train_batches(data_config, seed=0, batch_size=4, start=0, process_count=3)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_do_not_change_the_batches(data_config, num_workers):
    expected = images_of(data_config, 8)
    data_config["num_workers"] = num_workers
    np.testing.assert_array_equal(images_of(data_config, 8), expected)
    halves = [
        images_of(data_config, 8, process_index=i, process_count=2) for i in range(2)
    ]
    np.testing.assert_array_equal(np.concatenate(halves, axis=1), expected)


def test_an_error_in_a_worker_is_the_same_error(data_config):
    data_config["train"]["crop"] = {"name": "none"}
    data_config["num_workers"] = 1
    with train_batches(data_config, seed=0, batch_size=2, start=0) as batches:
        with pytest.raises(UserError, match=r"png of small/1\.0\.0 train is 48 x 40"):
            next(batches)


def test_decoding_at_a_fraction_is_for_training_alone(data_config, monkeypatch):
    asked = []
    decode = rows.decode_image

    def remember(data, name, *, least_side):
        asked.append(least_side)
        return decode(data, name, least_side=least_side)

    monkeypatch.setattr(rows, "decode_image", remember)
    data_config["num_threads"] = 0
    data_config["train"].update(resize={"name": "short_side"}, reduced_decoding=True)
    images_of(data_config, 1)
    assert set(asked) == {16}
    with eval_batches(data_config, batch_size=4) as batches:
        next(batches)
    data_config["train"]["reduced_decoding"] = False
    images_of(data_config, 1)
    assert set(asked[4:]) == {None} and len(asked) == 12


def test_an_image_of_the_wrong_size_is_named(data_config):
    data_config["train"]["crop"] = {"name": "none"}
    with train_batches(data_config, seed=0, batch_size=2, start=0) as batches:
        with pytest.raises(UserError, match=r"png of small/1\.0\.0 train is 48 x 40"):
            next(batches)


def test_closing_ends_the_threads(data_config):
    before = set(threading.enumerate())
    batches = train_batches(data_config, seed=0, batch_size=4, start=0)
    next(batches)
    started = set(threading.enumerate()) - before
    assert started
    batches.close()
    batches.close()
    for thread in started:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_plain_scripts_need_no_absl_and_leave_no_noise(data_config):
    script = f"""
from movq_jax.data.pipeline import train_batches
batches = train_batches({data_config!r}, seed=0, batch_size=4, start=0)
print(next(batches)["image"].shape)
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "(4, 16, 16, 3)\n"
    assert (result.returncode, result.stderr) == (0, "")


def test_real_photographs(real_samples, data_config, tmp_path):
    files = sorted((real_samples / "data" / "clothing" / "test").rglob("*.jpg"))[:12]
    listing = Listing("", {"train": [Example(path, path.name) for path in files]})
    writing.write_dataset(listing, name="real", data_dir=tmp_path)
    data_config.update(dataset="real", data_dir=str(tmp_path), image_size=224)
    images = images_of(data_config, 3, batch_size=8)
    assert images.shape == (3, 8, 224, 224, 3)
    assert 40 < images.mean() < 240 and images.std() > 20


@pytest.mark.parametrize(
    "options", [{"num_threads": 0}, {"num_workers": 2}, {"decode_once": True}]
)
def test_each_image_comes_with_its_label(data_config, options):
    config = data_config | options
    with train_batches(config, seed=0, batch_size=4, start=1) as batches:
        for n in range(4):
            batch = next(batches)
            assert set(batch) == {"image", "label"}
            assert batch["label"].dtype == np.int32
            assert batch["label"].tolist() == (numbers(batch["image"]) % 2).tolist()
            alone = batch_at(config, 1 + n, seed=0, batch_size=4)
            np.testing.assert_array_equal(alone["label"], batch["label"])
    with eval_batches(config, batch_size=4, split="train") as batches:
        found = list(batches)
    mask, labels, images = (
        np.concatenate([batch[name] for batch in found])
        for name in ("mask", "label", "image")
    )
    assert labels[mask].tolist() == (numbers(images[mask]) % 2).tolist()
    assert (labels[~mask] == -1).all()
