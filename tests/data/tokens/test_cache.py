import itertools
import json
from collections import Counter

import numpy as np
import pytest

from movq_jax.data.tokens import shards as token_shards
from movq_jax.data.tokens.cache import (
    TokenCache,
    eval_token_batches,
    token_batches,
)
from movq_jax.data.tokens.manifest import Refused, read_manifest
from movq_jax.data.tokens.plan import MAX_SHARDS, Plan
from movq_jax.errors import UserError

MODEL = "a" * 64
H, W, M = 2, 2, 3


def make_plan(**changes):
    fields = {
        "fingerprint": MODEL,
        "codebook_sizes": (40, 20, 40),
        "channel_books": ("codebook", "local_codebook", "codebook"),
        "factor": 4,
        "image_size": 8,
        "preprocessing": {"resize": {"name": "squash"}, "image_size": 8},
        "flip": False,
        "micro_batch": 2,
        "dataset": "small/1.0.0",
        "dataset_fingerprint": "c" * 64,
        "split": "train",
        "num_examples": 13,
        "num_shards": 3,
        "classes": ("cat", "dog"),
    }
    return Plan(**fields | changes)


def ids_of(plan, number):
    """The number is the first index of the image, and 19 - number of its mirror."""
    ids = np.zeros((plan.variants, H, W, len(plan.codebook_sizes)), np.int32)
    ids[0, ..., 0] = number
    ids[1:, ..., 0] = 39 - number
    ids[..., 1:] = np.arange(W)[:, None]
    return ids


def label_of(number):
    return number % 3 - 1


def fill(folder, plan, shards=None, refuse=()):
    """Write shards of a cache, and the manifest once all are there."""
    missing = token_shards.begin(folder, plan)
    for shard in missing if shards is None else shards:
        records = [
            Refused(f"{number}.png", "no image")
            if number in refuse
            else plan.pack(label_of(number), ids_of(plan, number))
            for number in range(*plan.bounds(shard))
        ]
        token_shards.write_shard(folder, plan, shard, records)
    return token_shards.complete(folder, plan)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "tokens"


@pytest.fixture
def plan():
    return make_plan()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def batches(folder, count, **changes):
    """Return `count` batches."""
    keywords = {"fingerprint": MODEL, "seed": 0, "batch_size": 4, "start": 0}
    with token_batches(folder, **keywords | changes) as iterator:
        return list(itertools.islice(iterator, count))


def numbers_of(some):
    return np.concatenate([batch["ids"][:, 0, 0, 0] for batch in some])


def test_what_was_written_is_read(folder, plan):
    fill(folder, plan)
    cache = TokenCache.open(folder)
    assert len(cache) == 13 and cache.manifest.plan == plan
    for number in range(13):
        record = cache[number]
        assert record["ids"].dtype == np.int32 and record["ids"].shape == (H, W, M)
        np.testing.assert_array_equal(record["ids"], ids_of(plan, number)[0])
        assert record["label"] == label_of(number)
    assert list(cache.problems()) == []
    for number in (-1, 13):
        with pytest.raises(IndexError):
            cache[number]


def test_the_files_are_read_with_numpy_as_the_docs_say(folder):
    plan = make_plan(flip=True)
    fill(folder, plan)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["num_channels"], manifest["grid"]) == (M, [H, W])
    record = plan.pack(1, ids_of(plan, 7))
    assert len(record) == 8 + 2 * H * W * M * 2
    assert np.frombuffer(record, "<i8", count=1)[0] == 1
    ids = np.frombuffer(record, manifest["dtype"], offset=8)
    ids = ids.reshape(-1, *manifest["grid"], manifest["num_channels"])
    np.testing.assert_array_equal(ids, ids_of(plan, 7))


@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [((2**16, 2), "uint16"), ((2, 2**16 + 1), "uint32"), ((2**31,), "uint32")],
)
def test_the_dtype_follows_from_the_largest_codebook(folder, sizes, dtype):
    plan = make_plan(codebook_sizes=sizes, channel_books=("a",) * len(sizes))
    assert plan.dtype == dtype
    ids = np.zeros((1, H, W, len(sizes)), np.int32)
    ids[0, 0, 1] = np.array(sizes) - 1
    label, (read,) = plan.unpack(plan.pack(-1, ids))
    np.testing.assert_array_equal(read, ids[0])
    assert label == -1 and read.dtype == np.int32


def test_refused_images_leave_no_gap(folder, plan):
    fill(folder, plan, refuse=[0, 4, 5, 6, 7])  # the second shard is empty
    cache = TokenCache.open(folder)
    assert [shard.records for shard in cache.manifest.shards] == [3, 0, 5]
    assert cache.manifest.refused[0] == Refused("0.png", "no image")
    numbers = [cache[i]["ids"][0, 0, 0] for i in range(len(cache))]
    assert numbers == [1, 2, 3, 8, 9, 10, 11, 12]
    assert set(numbers_of(batches(folder, 2))) == set(numbers)
    assert list(cache.problems()) == []


def test_without_any_image_there_is_no_cache(folder, plan):
    with pytest.raises(UserError, match="no image of small/1.0.0 train can be used"):
        fill(folder, plan, refuse=range(13))
    with pytest.raises(UserError):
        TokenCache.open(folder)


@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_an_epoch_has_each_image_once(folder, plan, process_count):
    """13 images in batches of 4: the fourth begins the second epoch."""
    fill(folder, plan)
    parts = [
        batches(folder, 13, process_index=index, process_count=process_count)
        for index in range(process_count)
    ]
    rows = [numbers_of(batch).tolist() for batch in zip(*parts, strict=True)]
    numbers = list(itertools.chain(*rows))
    for epoch in range(4):
        assert sorted(numbers[13 * epoch : 13 * (epoch + 1)]) == list(range(13))
    assert numbers == numbers_of(batches(folder, 13)).tolist()
    assert numbers[:13] != numbers[13:26]


@pytest.mark.parametrize("start", [1, 3, 7, 1000])
def test_a_run_continues_anywhere_also_on_more_processes(folder, start):
    fill(folder, make_plan(flip=True))
    whole = batches(folder, 4, start=start)
    if start < 1000:
        whole = batches(folder, start + 4)[start:]
    for count in (1, 2, 4):
        parts = [
            batches(folder, 4, start=start, process_index=i, process_count=count)
            for i in range(count)
        ]
        for n, batch in enumerate(whole):
            for key in ("ids", "label"):
                joined = np.concatenate([part[n][key] for part in parts])
                np.testing.assert_array_equal(joined, batch[key])
                assert joined.dtype == np.int32


def test_threads_and_seeds(folder):
    fill(folder, make_plan(flip=True))
    expected = numbers_of(batches(folder, 6))
    for num_threads in (0, 1, 5):
        same = numbers_of(batches(folder, 6, num_threads=num_threads))
        np.testing.assert_array_equal(same, expected)
    assert np.any(numbers_of(batches(folder, 6, seed=1)) != expected)


def test_the_mirror_image_is_taken_half_of_the_time_and_keeps_its_label(folder):
    fill(folder, make_plan(flip=True))
    some = batches(folder, 100)
    numbers = numbers_of(some)
    mirrored = numbers >= 20
    assert 150 < mirrored.sum() < 250
    images = np.where(mirrored, 39 - numbers, numbers)
    labels = np.concatenate([batch["label"] for batch in some])
    np.testing.assert_array_equal(labels, images % 3 - 1)
    assert set(Counter(images[: 13 * 30].tolist()).values()) == {30}
    both = {(image, flip) for image, flip in zip(images, mirrored, strict=True)}
    assert len(both) == 26


def test_a_cache_of_another_tokenizer_is_refused(folder, plan):
    fill(folder, plan)
    cache = TokenCache.open(folder)
    cache.check_fits(MODEL)
    cache.check_fits(MODEL, grid=(2, 2))
    other = "b" * 64
    with pytest.raises(UserError, match=f"{MODEL}, not by {other}: make one with"):
        cache.check_fits(other)
    with pytest.raises(UserError, match="2 x 2 .* not 4 x 4: .*--image-size=16"):
        cache.check_fits(MODEL, grid=(4, 4))
    with pytest.raises(UserError, match="tokens was made by the tokenizer"):
        batches(folder, 1, fingerprint=other)


@pytest.mark.parametrize("size", [0, 5])
def test_a_batch_that_cannot_be_cut_is_refused(folder, plan, size):
    fill(folder, plan)
    with pytest.raises(UserError, match=f"a batch of {size} cannot be cut into 2"):
        batches(folder, 1, batch_size=size, process_count=2)


def test_what_is_no_cache_is_refused(folder, plan, tmp_path):
    (tmp_path / "codes.npz").write_bytes(b"")
    for place, message in {
        folder: "there is no token cache in .*: `movq tokenize --out=",
        tmp_path: "there is no token cache",
        tmp_path / "codes.npz": "is a file.*`movq encode` is for `movq decode`",
        "gs://bucket/tokens": "is a bucket: copy the cache",
    }.items():
        with pytest.raises(UserError, match=message):
            TokenCache.open(place)
    fill(folder, plan, shards=[0, 2])
    with pytest.raises(UserError, match="is not finished: 1 of 3 shards are missing"):
        TokenCache.open(folder)


def damage(path, how):
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "longer":
        path.write_bytes(data + b"x")
    else:
        path.write_bytes(data[: {"short": -1, "half": len(data) // 2, "empty": 0}[how]])


@pytest.mark.parametrize("how", ["gone", "short", "half", "empty", "longer"])
def test_a_shard_that_is_not_whole_is_refused_and_made_anew(folder, plan, how):
    fill(folder, plan)
    clean = contents(folder)
    shard = folder / plan.shard_file(1)
    damage(shard, how)
    with pytest.raises(
        UserError, match=r"-00001-of-00003 is not the file of .* that shard"
    ):
        TokenCache.open(folder)
    assert token_shards.begin(folder, plan) == [1]
    assert not (folder / "manifest.json").exists()
    fill(folder, plan)
    assert contents(folder) == clean


def test_changed_bytes_are_found(folder):
    """One record of many: the others are read all the same."""
    plan = make_plan(num_shards=2, num_examples=40)
    fill(folder, plan)
    path = folder / plan.shard_file(1)
    data = bytearray(path.read_bytes())
    at = data.rindex(plan.pack(label_of(39), ids_of(plan, 39))) + 10
    data[at] ^= 1
    path.write_bytes(data)
    cache = TokenCache.open(folder)
    np.testing.assert_array_equal(cache[0]["ids"], ids_of(plan, 0)[0])
    with pytest.raises(
        UserError, match=r"is damaged in record 39: .*movq tokenize --v"
    ):
        cache[39]
    problems = list(cache.problems())
    assert len(problems) == 2 and all(plan.shard_file(1) in p for p in problems)
    assert "its bytes are not those that were written" in problems[0]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (lambda plan: plan.pack(0, ids_of(plan, 0) + 20), "channel 1 has an index out"),
        (lambda plan: plan.pack(0, ids_of(plan, 0))[:-1], "it has 31 bytes, not 32"),
        (lambda plan: plan.pack(7, ids_of(plan, 0)), "a label .* has no class"),
        (lambda plan: plan.pack(-2, ids_of(plan, 0)), "a label .* has no class"),
    ],
)
def test_records_that_make_no_sense_are_found(folder, record, message):
    plan = make_plan(num_shards=1, num_examples=2, image_size=8)
    token_shards.begin(folder, plan)
    good = plan.pack(1, ids_of(plan, 1))
    bad = record(plan)
    token_shards.write_shard(folder, plan, 0, [good, bad])
    token_shards.complete(folder, plan)
    cache = TokenCache.open(folder)
    assert cache[0]["label"] == 1
    (problem,) = cache.problems()
    assert plan.shard_file(0) in problem
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(problem)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "has format 2, newer than the 1"),
        ({"format_version": "1"}, "'format_version' is '1'"),
        ({"fingerprint": ""}, "'fingerprint' is ''; give a text"),
        ({"fingerprint": None}, "it lacks fingerprint"),
        ({"codebook_sizes": []}, "'codebook_sizes' is \\[\\]; give a list"),
        ({"codebook_sizes": [40, 20]}, "need one entry a channel"),
        ({"codebook_sizes": [40, 20, 2**40]}, "give a list of codebook sizes"),
        ({"codebook_sizes": [40, 20, 2**20]}, "'dtype' is 'uint16', not 'uint32'"),
        ({"codebook_sizes": [40, 20, True]}, "give a list of codebook sizes"),
        ({"channel_books": "abc"}, "give a list of texts"),
        ({"num_channels": 4}, "'num_channels' is 4, not 3"),
        ({"factor": 0}, "'factor' is 0; 1 is the least"),
        ({"factor": 3}, "'image_size' is no multiple of 3"),
        ({"image_size": 8.0}, "'image_size' is 8.0; give a whole number"),
        ({"image_size": 800}, "'grid' is \\[2, 2\\], not \\[200, 200\\]"),
        ({"image_size": 800, "grid": [200, 200]}, "a shard has too few bytes"),
        ({"grid": "2x2"}, "'grid' is '2x2', not"),
        ({"dtype": "float32"}, "'dtype' is 'float32', not 'uint16'"),
        ({"preprocessing": []}, "'preprocessing' is \\[\\]"),
        ({"flip": 1}, "'flip' is 1; use true or false"),
        ({"micro_batch": 2**40}, "'micro_batch' is 1099511627776, above 1024"),
        ({"dataset": 5}, "'dataset' is 5; give a text"),
        ({"dataset_fingerprint": 5}, "'dataset_fingerprint' is 5"),
        ({"num_examples": 14}, "'num_examples' is 14, with 13 records and 0 refused"),
        (
            {"num_shards": 4},
            "shards\\[0\\].file is 'tokens.array_record-00000-of-00003'",
        ),
        ({"num_shards": 10**12}, f"'num_shards' is above .* {MAX_SHARDS}"),
        ({"classes": [1]}, "'classes' is \\[1\\]; give a list of texts"),
        ({"count": 12}, "'count' is 12, the shards have 13"),
        ({"shards": {}}, "'shards' is no list"),
        ({"shards": []}, "'num_shards' is 3, and 0 are listed"),
        ({"shards": ["x"]}, "shards\\[0\\] is 'x'; it needs file, records"),
        ({"refused": None}, "'refused' is no list"),
        ({"refused": [{"file": "a"}]}, "no file with a reason"),
    ],
)
def test_a_damaged_manifest_is_refused(folder, plan, changes, message):
    fill(folder, plan)
    path = folder / "manifest.json"
    good = path.read_bytes()
    record = json.loads(good) | changes
    text = {key: value for key, value in record.items() if value is not None}
    path.write_text(json.dumps(text))
    with pytest.raises(UserError, match=message):
        TokenCache.open(folder)
    # The command that made the cache mends it.
    fill(folder, plan)
    assert path.read_bytes() == good


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "../../etc/passwd"}, "shards\\[1\\].file is '../../etc/passwd'"),
        ({"records": -1}, "shards\\[1\\].records is -1"),
        ({"records": 5}, "'count' is 13, the shards have 14"),
        ({"bytes": "5"}, "shards\\[1\\].bytes is '5'; give a whole number"),
        ({"sha256": "abc"}, "shards\\[1\\].sha256 is no SHA-256: 'abc'"),
    ],
)
def test_a_damaged_shard_in_the_manifest_is_refused(folder, plan, changes, message):
    fill(folder, plan)
    path = folder / "manifest.json"
    record = json.loads(path.read_text())
    record["shards"][1] |= changes
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=message):
        TokenCache.open(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 10_000, "\udcff"])
def test_what_is_no_json_is_refused(folder, plan, text):
    fill(folder, plan)
    path = folder / "manifest.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match="manifest.json is damaged or was changed"):
        read_manifest(path)


def ordered(folder, **changes):
    """Return all batches of an evaluation."""
    keywords = {"fingerprint": MODEL, "batch_size": 4}
    with eval_token_batches(folder, **keywords | changes) as iterator:
        return list(iterator)


@pytest.mark.parametrize(("num_examples", "count"), [(None, 13), (6, 6), (99, 13)])
def test_evaluation_has_each_record_once_and_in_order(folder, num_examples, count):
    plan = make_plan(flip=True)  # of which the mirrored ones are left out
    fill(folder, plan)
    found = ordered(folder, num_examples=num_examples)
    assert len(found) == -(-count // 4)
    mask = np.concatenate([batch["mask"] for batch in found])
    assert mask.sum() == count and mask[:count].all()
    assert numbers_of(found)[mask].tolist() == list(range(count))
    labels = np.concatenate([batch["label"] for batch in found])
    assert labels[:count].tolist() == [label_of(number) for number in range(count)]
    assert not numbers_of(found)[~mask].any() and (labels[~mask] == -1).all()


def test_processes_share_an_evaluation(folder, plan):
    fill(folder, plan)
    whole = ordered(folder)
    parts = [ordered(folder, process_index=i, process_count=2) for i in range(2)]
    assert len(parts[0]) == len(parts[1]) == len(whole)
    for first, second, both in zip(*parts, whole, strict=True):
        for name in both:
            together = np.concatenate([first[name], second[name]])
            np.testing.assert_array_equal(together, both[name])


def test_an_evaluation_of_another_tokenizer_is_refused(folder, plan):
    fill(folder, plan)
    with pytest.raises(UserError, match="was made by the tokenizer"):
        ordered(folder, fingerprint="b" * 64)
