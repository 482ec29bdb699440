import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict
from ml_collections import ConfigDict

from movq_jax.pretrained.fingerprint import canonical_json, fingerprint

MODEL = {"width": 8, "multipliers": (1, 2), "norm": {"name": "spatial", "eps": 1e-6}}


def arrays():
    rng = np.random.default_rng(0)
    return {
        "a.kernel": rng.standard_normal((3, 4), dtype=np.float32),
        "a.bias": np.zeros(4, np.float32),
        "b": np.arange(6, dtype=np.int32),
    }


BEFORE = fingerprint(arrays(), MODEL)


def test_it_stays_what_it_was():
    """Indices on disk carry it: it must be the same in every version."""
    zeros = {"w": np.zeros((2, 3), np.float32)}
    assert fingerprint(zeros, {"b": [1, 2], "a": "x"}) == (
        "d696639aab1c4033d42249e9f8c8479978e6d1226bd55d66fa6def899ad85eac"
    )


def test_order_and_containers_do_not_matter():
    backwards = dict(reversed(arrays().items()))
    assert fingerprint(backwards, dict(reversed(MODEL.items()))) == BEFORE
    assert fingerprint(arrays(), json.loads(json.dumps(MODEL))) == BEFORE
    on_device = {name: jnp.asarray(array) for name, array in arrays().items()}
    assert fingerprint(on_device, MODEL) == BEFORE
    in_fortran = {name: np.asfortranarray(array) for name, array in arrays().items()}
    assert fingerprint(in_fortran, MODEL) == BEFORE
    swapped = {
        name: array.astype(array.dtype.newbyteorder(">"))
        for name, array in arrays().items()
    }
    assert fingerprint(swapped, MODEL) == BEFORE


@pytest.mark.parametrize("name", arrays())
def test_every_parameter_counts(name):
    def differs(changed):
        others = {key: array for key, array in arrays().items() if key != name}
        return fingerprint(others | changed, MODEL) != BEFORE

    array = arrays()[name]
    for index in range(array.size):
        other = array.copy()
        other.flat[index] += 1
        assert differs({name: other})
    assert differs({})
    assert differs({f"{name}.x": array})
    assert differs({name: array[None]})
    assert differs({name: array.view(np.uint32)})
    assert differs({name: array, "more": np.zeros(1)})


@pytest.mark.parametrize(
    "change",
    [
        {"width": 9},
        {"width": "8"},
        {"multipliers": [2, 1]},
        {"multipliers": [1, 2, 2]},
        {"norm": {"name": "group", "eps": 1e-6}},
        {"norm": {"name": "spatial", "eps": 1e-5}},
        {"norm": {"name": "spatial"}},
        {"dropout": 0.0},
    ],
)
def test_every_value_of_the_config_counts(change):
    assert fingerprint(arrays(), MODEL | change) != BEFORE


def test_bfloat16_parameters():
    array = np.asarray(jnp.ones(3, jnp.bfloat16))
    half = fingerprint({"a": array}, {})
    assert half != fingerprint({"a": array.astype(np.float32)}, {})
    assert half != fingerprint({"a": array.view(np.uint16)}, {})


def test_a_config_dict_is_what_it_holds():
    assert fingerprint(arrays(), ConfigDict(MODEL)) == BEFORE
    assert fingerprint(arrays(), FrozenDict(MODEL)) == BEFORE


def test_canonical_json():
    assert canonical_json({"b": (1, 2), "a": {"d": None, "c": 0.1}}) == (
        '{"a":{"c":0.1,"d":null},"b":[1,2]}'
    )
