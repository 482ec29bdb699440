import io

import flax.serialization
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest

from movq_jax.pretrained.formats.flax_msgpack import MsgpackSource
from movq_jax.pretrained.refusals import DAMAGED, Refused


def source(data):
    return MsgpackSource(io.BytesIO(data))


def array(shape=(2,), dtype="float32", data=bytes(8), code=1):
    return msgpack.ExtType(code, msgpack.packb((shape, dtype, data)))


def test_what_flax_writes():
    names = "float64 float32 float16 bfloat16 int64 int8 uint16 bool".split()
    arrays = {name: np.asarray([[0, 1, 1]], jnp.dtype(name)) for name in names}
    tree = {"a": arrays, "scalar": np.float32(3), "big": np.ones((300, 300))}
    found = source(flax.serialization.msgpack_serialize(tree))
    for name, wanted in arrays.items():
        tensor = found.tree["a"][name]
        assert (tensor.shape, tensor.dtype) == (wanted.shape, wanted.dtype.name)
        np.testing.assert_array_equal(found.read(tensor), wanted)
    assert found.read(found.tree["scalar"]) == 3
    np.testing.assert_array_equal(found.read(found.tree["big"]), 1)


def test_what_is_no_array():
    long = {f"key {i}": i for i in range(70_000)}
    values = [None, True, False, -1, -33, 127, 128, 70_000, 2**40, -(2**40), 0.5]
    texts = ["", "ä" * 20, "x" * 300, "y" * 70_000]
    tree = {"values": values, "texts": texts, "long": long, "list": list(range(20))}
    found = source(msgpack.packb(tree))
    assert found.tree == tree
    assert not found.is_tensor(found.tree["values"])


def test_arrays_in_pieces(monkeypatch):
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 64)
    big = np.arange(60, dtype=np.float32).reshape(4, 15)
    found = source(flax.serialization.msgpack_serialize({"a": {"big": big}}))
    np.testing.assert_array_equal(found.read(found.tree["a"]["big"]), big)


def test_names_of_types_as_bytes():
    """As packers wrote texts before msgpack told them from bytes."""
    packed = msgpack.packb(((2,), "float32", bytes(8)), use_bin_type=False)
    # Without that type the numbers are a text, too, and are none: they are refused.
    with pytest.raises(DAMAGED):
        source(msgpack.packb({"a": msgpack.ExtType(1, packed)}))
    packed = msgpack.packb(((2,), b"float32", bytes(8)))
    found = source(msgpack.packb({"a": msgpack.ExtType(1, packed)}))
    assert found.tree["a"].dtype == "float32"


@pytest.mark.parametrize(
    "data",
    [
        msgpack.packb({"a": array(shape=(3,))}),
        msgpack.packb({"a": array(shape=(-2,))}),
        msgpack.packb({"a": array(shape=(True, 2))}),
        msgpack.packb({"a": array(shape=(1 << 62, 1 << 62))}),
        msgpack.packb({"a": array(shape="2")}),
        msgpack.packb({"a": array(data="text")}),
        msgpack.packb({"a": msgpack.ExtType(1, b"\xc0\xc0")}),
        msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb((1, 2)))}),
        msgpack.packb({1: 2}),
        msgpack.packb({"a": 1}) + b"\xc0",
        b"\x82\xa1a\xc0\xa1a\xc0",  # a name twice
        b"\x81\xa1a\xc1",  # a mark that means nothing
        b"\x81\xa1a\xa1\xff",  # no UTF-8
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1a\xdd\xff\xff\xff\xff",
        b"\x81\xa1a\xdb\xff\xff\xff\xff",
        b"\x81\xa1a\xc6\xff\xff\xff\xff",
        b"\x81\xa1a" * 100 + b"\xc0",
        b"\x81\xa1a" + b"\x91" * 10_000 + b"\xc0",
        msgpack.packb({"a": {"__msgpack_chunked_array__": True}}),
        msgpack.packb(
            {"a": {"__msgpack_chunked_array__": True, "shape": {}, "chunks": {}}}
        ),
    ],
)
def test_odd_and_huge_things(data):
    with pytest.raises(DAMAGED):
        source(data)


@pytest.mark.parametrize("dtype", ["object", "complex64", "V2", "float128", "<f4"])
def test_types_that_are_not_read(dtype):
    with pytest.raises(Refused, match="not read"):
        source(msgpack.packb({"a": array(dtype=dtype)}))


def test_no_dict():
    with pytest.raises(Refused, match="no dict"):
        source(msgpack.packb([1, 2]))


def test_every_cut_is_refused():
    whole = msgpack.packb({"a": array(), "b": {"c": array(), "d": [1.5, "text"]}})
    assert source(whole)
    for size in range(len(whole)):
        with pytest.raises(DAMAGED):
            source(whole[:size])


def test_other_extensions_are_passed_over():
    data = msgpack.packb({"a": msgpack.ExtType(2, b"xx"), "b": msgpack.Timestamp(1)})
    found = source(data)
    assert not any(found.is_tensor(value) for value in found.tree.values())
