from pathlib import Path

import pytest

from movq_jax.errors import UserError
from movq_jax.pretrained.refusals import Refused, as_user_errors

PATH = Path("weights.pth")


@pytest.mark.parametrize(
    "error, reason",
    [
        (Refused("it is big-endian"), "it is big-endian"),
        (FileNotFoundError(2, "No such file"), "No such file"),
        (OSError("odd"), "it is damaged (odd)"),
        (KeyError("a"), "it is damaged ('a')"),
        (EOFError(), "it is damaged"),
    ],
)
def test_sentences(error, reason):
    with pytest.raises(UserError) as raised:
        with as_user_errors(PATH, "it is damaged"):
            raise error
    assert str(raised.value) == f"cannot read weights.pth: {reason}"
    assert raised.value.__cause__ is error


def test_users_errors_pass():
    with pytest.raises(UserError, match="^as it is$"):
        with as_user_errors(PATH, "it is damaged"):
            raise UserError("as it is")
