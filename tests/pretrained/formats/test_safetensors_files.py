import json
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from movq_jax.errors import UserError
from movq_jax.pretrained.formats.checkpoint_files import open_checkpoint


def write(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(start=0, end=8, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def refused(path):
    with pytest.raises(UserError) as error:
        open_checkpoint(path)
    return str(error.value)


def test_what_the_library_writes(tmp_path):
    rng = np.random.default_rng(0)
    names = "float64 float32 float16 int64 int32 int16 int8 uint64 uint8 bool".split()
    arrays = {name: rng.integers(0, 2, (3, 4)).astype(name) for name in names}
    arrays["bfloat16"] = arrays["float32"].astype(ml_dtypes.bfloat16)
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors.numpy.save(arrays, metadata={"format": "pt"}))
    with open_checkpoint(path) as checkpoint:
        assert set(checkpoint.shapes) == set(arrays)
        for name, array in arrays.items():
            assert checkpoint.dtypes[name] == name
            np.testing.assert_array_equal(checkpoint.read(name), array)


def test_order_of_the_header(tmp_path):
    header = {"b": entry(8, 16), "a": entry(0, 8)}
    data = np.arange(4, dtype=np.float32).tobytes()
    with open_checkpoint(write(tmp_path / "x", header, data)) as checkpoint:
        assert list(checkpoint.shapes) == ["b", "a"]
        np.testing.assert_array_equal(checkpoint.read("b"), [2, 3])


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(), "b": entry()},  # overlapping
        {"a": entry(8, 16)},  # with a gap
        {"a": entry(0, 16)},
        {"a": entry(shape=(1 << 62,))},
        {"a": entry(shape=(-2,))},
        {"a": entry(shape=("2",))},
        {"a": entry(0, 4, (1,))},  # numbers of no tensor
        {"a": {"dtype": "F32"}},
        {"a": []},
        b'{"a": ' + b"[" * 100_000,
        b'{"a": 1, "a": 2}',
        b'{"a": \xff}',
        b"{",
    ],
)
def test_headers_that_lie(tmp_path, header):
    assert "damaged" in refused(write(tmp_path / "x", header, bytes(8)))


def test_a_header_longer_than_the_file(tmp_path):
    path = tmp_path / "x"
    for length in (1 << 20, 1 << 31):
        path.write_bytes(struct.pack("<Q", length) + b'{"a": 1}')
        assert "damaged or cut off" in refused(path)


def test_types_that_are_not_read(tmp_path):
    path = write(tmp_path / "x", {"a": entry(dtype="F8_E4M3")}, bytes(8))
    message = refused(path)
    assert "'a'" in message and "F8_E4M3" in message


@pytest.fixture
def sharded(tmp_path):
    """A folder of two files of safetensors and their index."""
    places = {}
    for i, names in enumerate(("cb", "a")):
        file = f"model-{i}.safetensors"
        arrays = {name: np.float32([i, ord(name)]) for name in names}
        (tmp_path / file).write_bytes(safetensors.numpy.save(arrays))
        places |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": places}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def test_shards(sharded):
    for path in (sharded, sharded / "model.safetensors.index.json"):
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.kind == "safetensors"
            assert list(checkpoint.shapes) == ["c", "b", "a"]
            np.testing.assert_array_equal(checkpoint.read("a"), [1, ord("a")])
            np.testing.assert_array_equal(checkpoint.read("b"), [0, ord("b")])


def test_shards_that_are_missing_or_damaged(sharded):
    shard = sharded / "model-1.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    assert "model-1.safetensors that it names is damaged" in refused(sharded)
    shard.write_bytes(safetensors.numpy.save({"other": np.float32([1])}))
    assert "a is not in model-1.safetensors" in refused(sharded)
    shard.unlink()
    assert "model-1.safetensors that it names is missing" in refused(sharded)


@pytest.mark.parametrize(
    "index",
    [
        {},
        {"weight_map": []},
        {"weight_map": {}},
        {"weight_map": {"a": "../x.safetensors"}},
        {"weight_map": {"a": "/etc/passwd"}},
        {"weight_map": {"a": ".."}},
        {"weight_map": {"a": 3}},
    ],
)
def test_odd_indices(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "weight_map" in refused(tmp_path) or "missing" in refused(tmp_path)
