import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.pretrained.formats.accounting import check_account, filled
from movq_jax.pretrained.formats.vqgan_names import Place


def test_all_there_is_nothing_to_say():
    check_account({"a": (1,), "b": (2, 3)}, {"b": (2, 3), "a": (1,)})
    check_account({"a": (1,)}, {"a": (1,)}, {"a": "float16"})


def test_everything_that_is_wrong_is_in_one_message():
    wanted = {f"w{i}": (4, 4) for i in range(30)}
    found = {"w0": (4, 5), "w1": (4, 4), **{f"x{i}": (1,) for i in range(11)}}
    with pytest.raises(UserError) as error:
        check_account(wanted, found, {"w1": "int64"})
    said = str(error.value)
    assert "28 tensors are missing (w2, w3, " in said and "w11, and 18 more)" in said
    assert "11 tensors are unexpected (x0, " in said and "x9, and 1 more)" in said
    assert "1 tensor is misshapen (w0 is [4, 5] instead of [4, 4])" in said
    assert "1 tensor is of no floats (w1 is int64)" in said


def test_parameters_are_laid_out_and_single():
    stored = {"a": np.arange(6.0).reshape(2, 3), "b": np.ones(2, np.float32)}
    places = {"x.kernel": Place("a", "linear"), "x.bias": Place("b", "plain")}
    params = filled(places, stored.get)
    assert params["x"]["kernel"].dtype == np.float32
    assert params["x"]["kernel"].flags.c_contiguous
    np.testing.assert_array_equal(params["x"]["kernel"], stored["a"].T)


def test_numbers_that_are_none():
    stored = {"a": np.array([1.0, np.nan]), "b": np.ones(2), "c": np.array([np.inf])}
    places = {name: Place(name, "plain") for name in stored}
    with pytest.raises(UserError, match=r"2 tensors are damaged \(a, c\)"):
        filled(places, stored.get)
