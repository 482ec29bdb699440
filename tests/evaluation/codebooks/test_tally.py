import numpy as np
import pytest

from movq_jax.evaluation.codebooks import tally as codebook_tally
from movq_jax.evaluation.codebooks.counts import count_codes
from movq_jax.evaluation.codebooks.tally import CodeTally, Counts, PairCounts


def ids_of(seed=0, shape=(50, 4, 4, 2), size=8):
    return np.random.default_rng(seed).integers(size, size=shape).astype(np.int32)


@pytest.mark.parametrize("most_entries", [2**24, 4])  # a table, or what was seen
def test_counts_agree_with_the_metric(most_entries, monkeypatch):
    monkeypatch.setattr(codebook_tally, "PENDING", 10)
    ids = ids_of()[..., :1] // 2 * 2
    counts = Counts(8, most_entries)
    for image in ids:
        counts.add(image)
    values, times = counts.seen()
    assert values.tolist() == [0, 2, 4, 6] and times.sum() == ids.size
    metric = count_codes(ids, sizes=[8], books=["book"]).compute()
    numbers = counts.numbers()
    for name in ("usage", "perplexity", "entropy", "dead"):
        assert numbers[name] == pytest.approx(metric[f"book_{name}"], rel=1e-6)
    assert (numbers["size"], numbers["used"], numbers["bits"]) == (8, 4, 3)
    assert numbers["entropy_share"] == numbers["entropy"] / 3


def test_counts_of_books_that_no_table_would_hold():
    counts = Counts(2**30)
    counts.add(np.array([2**30 - 1, 5, 5]))
    assert counts.seen()[0].tolist() == [5, 2**30 - 1]
    assert counts.seen()[1].tolist() == [2, 1]
    assert counts.numbers()["dead"] == 2**30 - 2


def test_nothing_counted():
    numbers = Counts(1).numbers()
    assert (numbers["usage"], numbers["entropy"], numbers["perplexity"]) == (0, 0, 1)
    assert numbers["entropy_share"] is None


def test_channels_of_a_shared_book_are_added_up():
    ids = ids_of()
    tally = CodeTally([8, 8], ["codebook", "codebook"])
    for image in ids:
        tally.add(image)
    assert tally.positions == 50 * 16
    assert tally.book_names == ("codebook",)
    assert tally.channels_of("codebook") == [0, 1]
    assert tally.book("codebook").seen()[1].tolist() == np.bincount(ids.flat).tolist()
    assert tally.channels[1].numbers()["positions"] == 800


def test_books_of_several_sizes_stay_apart():
    tally = CodeTally([4, 8], ["global", "local"])
    tally.add(ids_of(size=4))
    assert tally.book_names == ("global", "local")
    assert tally.book("global").numbers()["usage"] == 1
    assert tally.book("local").numbers()["usage"] == 0.5


@pytest.mark.parametrize("limit", [64, 63])  # a table; what was seen, of all images
def test_what_two_channels_tell_of_each_other(limit):
    first = np.arange(8).repeat(7)
    copies = PairCounts((8, 8), limit)
    copies.add(first, first)
    numbers = copies.numbers()
    assert (numbers["pairs"], numbers["most"], numbers["positions"]) == (8, 56, 56)
    assert numbers["mutual_information"] == pytest.approx(3)

    independent = PairCounts((8, 8), 64)
    a, b = np.meshgrid(np.arange(8), np.arange(8))
    independent.add(a, b)
    assert independent.numbers()["pairs"] == 64
    assert independent.numbers()["mutual_information"] == pytest.approx(0, abs=1e-9)


def test_the_correction_takes_the_bias_off():
    rng = np.random.default_rng(0)
    pairs = PairCounts((16, 16), 2**10)
    pairs.add(*rng.integers(16, size=(2, 2000)))
    numbers = pairs.numbers()
    assert numbers["mutual_information"] > 0.05
    assert abs(numbers["corrected"]) < 0.02


def test_pairs_beyond_the_limit_are_not_counted():
    pairs = PairCounts((8, 8), 20)
    for image in ids_of():
        pairs.add(image[..., 0], image[..., 1])
    numbers = pairs.numbers()
    assert numbers["positions"] == numbers["most"] == 32
