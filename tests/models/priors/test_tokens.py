import pytest

from movq_jax.errors import UserError
from movq_jax.models.priors import Tokens

DUAL = {"grid": (4, 6), "codebook_sizes": (32, 16), "books": ("global", "local")}


def test_what_follows_from_the_fields():
    tokens = Tokens((4, 6), (32, 16, 32), ("a", "b", "a"))
    assert tokens.num_positions == 24
    assert tokens.num_channels == 3
    assert tokens.units == 72
    assert tokens.size == 32
    assert tokens.book_names == ("a", "b")
    assert tokens.book_sizes == (32, 16)
    assert tokens.channel_book == (0, 1, 0)


def test_from_a_section():
    section = {**DUAL, "grid": [4, 6], "fingerprint": "x", "factor": 16}
    tokens = Tokens.of(section)
    assert tokens == Tokens(**DUAL)
    assert hash(tokens) == hash(Tokens(**DUAL))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": (0, 0)}, r"config.tokens.grid is \(0, 0\); give 2 whole numbers"),
        ({"grid": (4,)}, r"config.tokens.grid is \(4,\)"),
        ({"grid": (4.0, 4)}, "grid is .* whole numbers from 1"),
        ({"grid": 16}, "grid is 16; give a tuple"),
        ({"codebook_sizes": ()}, r"codebook_sizes is \(\); give one or more whole"),
        ({"codebook_sizes": (32, True)}, "codebook_sizes is .* whole numbers"),
        ({"books": ("a",)}, "books has 1 names and codebook_sizes 2 numbers"),
        ({"books": ("a", "a")}, "several sizes for the book 'a'"),
    ],
)
def test_bad_fields_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        Tokens.of(DUAL | change)


@pytest.mark.parametrize("field", DUAL)
def test_a_missing_field_is_named(field):
    section = {name: value for name, value in DUAL.items() if name != field}
    with pytest.raises(UserError, match=f"config.tokens has no {field}; give it"):
        Tokens.of(section)


def test_a_section_has_keys():
    with pytest.raises(UserError, match="config.tokens is 3; it must be a section"):
        Tokens.of(3)
