import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

STORAGES = {
    np.dtype("float32"): "Float",
    np.dtype("float64"): "Double",
    np.dtype("float16"): "Half",
    np.dtype(ml_dtypes.bfloat16): "BFloat16",
    np.dtype("int64"): "Long",
    np.dtype("int32"): "Int",
    np.dtype("uint8"): "Byte",
    np.dtype("bool"): "Bool",
}


class Opcodes(bytes):
    """A value that is pickled already."""


def pickled(value, storages):
    """Return the opcodes of a value; arrays are appended to `storages`."""
    if isinstance(value, Opcodes):
        return value
    if isinstance(value, np.ndarray):
        storages.append(value)
        kind = f"ctorch\n{STORAGES[value.dtype]}Storage\n".encode()
        stride = tuple(step // value.itemsize for step in value.strides)
        storage = ("storage", Opcodes(kind), str(len(storages) - 1), "cpu", value.size)
        described = (Opcodes(pickled(storage, storages) + b"Q"), 0, value.shape, stride)
        args = pickled((*described, False, None), storages)
        return b"ctorch._utils\n_rebuild_tensor_v2\n" + args + b"R"
    if isinstance(value, dict):
        pairs = (pickled(k, storages) + pickled(v, storages) for k, v in value.items())
        return b"}" + b"".join(pair + b"s" for pair in pairs)
    if isinstance(value, (tuple, list)):
        start, end = (b"(", b"t") if isinstance(value, tuple) else (b"](", b"e")
        return start + b"".join(pickled(v, storages) for v in value) + end
    if isinstance(value, str):
        return b"X" + struct.pack("<i", len(value.encode())) + value.encode()
    if isinstance(value, bool):
        return b"I01\n" if value else b"I00\n"
    return b"N" if value is None else f"I{value}\n".encode()


def torch_file(path, value, legacy=False):
    """Write what torch.save writes of arrays, containers and plain values."""
    storages = []
    described = b"\x80\x02" + pickled(value, storages) + b"."
    if not legacy:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", described)
            for i, array in enumerate(storages):
                archive.writestr(f"archive/data/{i}", array.tobytes())
        return path
    with path.open("wb") as file:
        file.write(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.")
        file.write(b"\x80\x02" + pickled({"little_endian": True}, []) + b".")
        file.write(described)
        keys = [str(i) for i in range(len(storages))]
        file.write(b"\x80\x02" + pickled(keys, []) + b".")
        for array in storages:
            file.write(struct.pack("<q", array.size) + array.tobytes())
    return path


@pytest.fixture
def save_torch():
    """The function `torch_file`."""
    return torch_file


@pytest.fixture
def opcodes():
    """The class of values that `save_torch` takes as they are: opcodes of a pickle."""
    return Opcodes
