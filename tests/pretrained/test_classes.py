import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.pretrained.classes import balanced_labels, class_numbers, split_names

NAMES = ["cat", "dog", "goose, grey", "grey"]


def test_names_with_commas():
    found = split_names("Cat,goose, grey, 7,grey", NAMES)
    assert found == ["Cat", "goose, grey", "7", "grey"]


def test_names_and_numbers():
    assert class_numbers(["DOG", " grey ", 0, "2"], NAMES, 4) == [1, 3, 0, 2]
    assert class_numbers([5], (), 6) == [5]
    numbers = ["3", "1"]  # names that look like numbers go first
    assert class_numbers(["3", "0"], numbers, 2) == [0, 0]
    names = sorted(map(str, range(1, 12)))  # 1, 10, 11, 2, ...
    assert class_numbers(range(11), names, 11) == list(range(11))
    assert class_numbers([np.int32(1), "10"], names, 11) == [1, 1]


@pytest.mark.parametrize(
    ("wanted", "names", "count", "message"),
    [
        ("dgo", NAMES, 4, "no class 'dgo'; did you mean 'dog'? Known: cat, dog"),
        ("4", NAMES, 4, "no class 4: give numbers 0 to 3"),
        ("-1", NAMES, 4, "no class -1: give numbers 0 to 3"),
        ("cat", (), 4, "no class cat: give numbers 0 to 3"),
        ("zebra", [f"n{i:03d}" for i in range(50)], 50, "n011, ...$"),
        ("", NAMES, 4, "no class ''; give numbers 0 to 3, or a name: cat, dog"),
        ("cat", (), 0, "this prior is unconditional"),
    ],
)
def test_what_is_refused(wanted, names, count, message):
    with pytest.raises(UserError, match=message.replace("?", "[?]")):
        class_numbers([wanted], names, count)


def test_labels_are_balanced_at_every_number():
    labels = balanced_labels([4, 7, 9], np.arange(300), seed=1)
    for count in (1, 2, 50, 299):
        numbers = [np.sum(labels[:count] == k) for k in (4, 7, 9)]
        assert max(numbers) - min(numbers) <= 1
    firsts = labels[::3]
    assert all(20 < np.sum(firsts == k) < 50 for k in (4, 7, 9))  # shuffled
