import gzip
import json
import tarfile

import flax.serialization
import numpy as np
import pytest
import safetensors.numpy

from movq_jax.errors import UserError
from movq_jax.pretrained.formats.recognising import recognise

ONE = {"a": np.ones(2, np.float32)}


def refused(path):
    with pytest.raises(UserError) as error:
        recognise(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message and len(message) < 400
    return message


def test_formats(tmp_path, save_torch):
    """By what is in the file: names of checkpoints say little."""
    path = tmp_path / "x.bin"
    path.write_bytes(safetensors.numpy.save(ONE))
    assert recognise(path) == (path, "safetensors")
    for legacy in (False, True):
        assert recognise(save_torch(path, ONE, legacy)) == (path, "torch")
    for count in (1, 15, 16, 70_000):
        tree = {str(i): 0 for i in range(count)}
        path.write_bytes(flax.serialization.msgpack_serialize(tree))
        assert recognise(path) == (path, "msgpack")


@pytest.mark.parametrize(
    "data, told",
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\n <!DOCTYPE html><html>", "is a web page, not a checkpoint"),
        (b"<?xml version='1.0'?><Error>AccessDenied", "download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "git lfs pull"),
        (b'{"error": "not found"}', "is a text (JSON)"),
        (gzip.compress(b"weights"), "is compressed (gzip): unpack it first"),
        (b"\xfd7zXZ\x00", "is compressed (xz)"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x80\x04\x95\x00", "bare pickle"),
        (b"Entry not found", "begins 'Entry not found'"),
        (b"\x00\xff\x1b[31m", r"begins '\x00"),
        (bytes(300), "is no checkpoint that is known"),
    ],
)
def test_other_files(tmp_path, data, told):
    path = tmp_path / "last.ckpt"
    path.write_bytes(data)
    assert told in refused(path)


def test_tar_archives(tmp_path):
    path = tmp_path / "x.pth"
    with tarfile.open(path, "w") as archive:
        archive.add(__file__)
    assert "tar archive: unpack it first" in refused(path)


def test_no_file(tmp_path):
    assert "No such file" in refused(tmp_path / "none.ckpt")


def test_folders(tmp_path):
    assert "holds no files" in refused(tmp_path)
    for i in range(7):
        (tmp_path / f"{i}.bin").write_bytes(b"")
    assert "0.bin, 1.bin, 2.bin, 3.bin, 4.bin, ..." in refused(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {}}))
    assert recognise(tmp_path) == recognise(index) == (index, "index")
    (tmp_path / "b.safetensors.index.json").write_text("{}")
    assert "name the one in it" in refused(tmp_path)
