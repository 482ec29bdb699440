import math

from movq_jax.evaluation.extremes import Extremes, Means
from movq_jax.evaluation.rows import Row, summary


def test_the_means_are_those_of_the_rows():
    rows = [
        Row("a", 8, 8, 20.0, None),
        Row("b", 8, 8, math.inf, 0.5),
        Row("c", 8, 8, 30.0, 1.0),
    ]
    means = Means()
    for row in rows:
        means.add(row)
    assert means.summary() == summary(rows)
    assert Means().summary()["psnr"] is None


def collect(scores, most):
    extremes = Extremes(most)
    for number, score in enumerate(scores):
        if extremes.wants(score, number):
            extremes.add(score, number, f"item {number}")
    return extremes.best_and_worst()


def test_the_best_first_and_the_worst_first():
    best, worst = collect([5.0, 1.0, 9.0, 3.0, math.inf, 7.0, 2.0], most=2)
    assert best == ["item 4", "item 2"]
    assert worst == ["item 1", "item 6"]


def test_of_equal_ones_the_earlier_is_the_better():
    best, worst = collect([1.0] * 6, most=2)
    assert best == ["item 0", "item 1"]
    assert worst == ["item 5", "item 4"]


def test_none_is_in_both():
    assert collect([], most=9) == ([], [])
    assert collect([1.0], most=9) == (["item 0"], [])
    assert collect([1.0, 2.0, 3.0], most=9) == (["item 2", "item 1"], ["item 0"])
