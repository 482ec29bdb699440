import zipfile

import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.pretrained.npz_files import read_npz


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.arange(3.0), b=np.zeros((2, 0)))
    return tmp_path / "x.npz"


def test_all_arrays(path):
    arrays = read_npz(path)
    np.testing.assert_array_equal(arrays["a"], [0, 1, 2])
    assert list(arrays) == ["a", "b"] and arrays["b"].shape == (2, 0)


def test_damaged_files(path):
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"x\.npz is not an npz file, or it is cut"):
            read_npz(path)
    path.write_bytes(whole.replace(np.arange(3.0).tobytes(), bytes(24)))
    with pytest.raises(UserError, match="is damaged"):
        read_npz(path)


def test_nothing_is_unpickled(path):
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="is damaged or cannot be read"):
        read_npz(path)


def test_a_member_that_is_no_array(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("conv1.weight", bytes(64))
    with pytest.raises(UserError, match=r"x\.npz .* 'conv1.weight' is not in the npy"):
        read_npz(path)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_npz(tmp_path / "none.npz")
