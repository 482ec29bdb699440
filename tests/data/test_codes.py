import pickle

import numpy as np
import pytest

from movq_jax.data.codes import Codes, read_codes, write_codes
from movq_jax.errors import UserError


@pytest.fixture
def codes():
    return Codes(
        fingerprint="abc",
        micro_batch=3,
        factor=4,
        codebook_size=32,
        names=["a", "sub/b"],
        sizes=[(5, 8), (4, 9)],
        ids=[
            np.arange(8, dtype=np.int32).reshape(2, 2, 2),
            np.arange(6, dtype=np.int32).reshape(1, 3, 2),
        ],
    )


@pytest.fixture
def path(tmp_path, codes):
    path = tmp_path / "codes.npz"
    with path.open("wb") as file:
        write_codes(file, codes)
    return path


def change(path, **parts):
    """Write the file anew with other arrays; None removes one."""
    with np.load(path) as archive:
        arrays = dict(archive) | parts
    np.savez(path, **{key: part for key, part in arrays.items() if part is not None})


def test_there_and_back(path, codes):
    result = read_codes(path)
    for field in (
        "fingerprint",
        "micro_batch",
        "factor",
        "codebook_size",
        "names",
        "sizes",
    ):
        assert getattr(result, field) == getattr(codes, field)
    for ids, expected in zip(result.ids, codes.ids, strict=True):
        assert ids.dtype == np.int32
        np.testing.assert_array_equal(ids, expected)


def test_the_same_codes_give_the_same_bytes(path, codes, tmp_path):
    with (tmp_path / "again.npz").open("wb") as file:
        write_codes(file, codes)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "parts, message",
    [
        ({"ids": None}, "lacks ids"),
        ({"format_version": None}, "lacks format_version"),
        ({"format_version": np.int32(2), "ids": None}, "update movq_jax"),
        ({"format_version": np.str_("x")}, "no version number"),
        ({"ids": np.zeros((7, 2), np.float32)}, "'ids' is float32"),
        ({"ids": np.zeros(7, np.int32)}, "'ids' is int32 with 1 dimensions"),
        ({"ids": np.full((7, 2), 2**40)}, "no codebook has"),
        ({"names": np.zeros(2, np.int32)}, "'names' is int32"),
        ({"offsets": np.array([0, 4, 6])}, "'offsets' does not start"),
        ({"offsets": np.array([0, 5, 7])}, "'offsets' do not leave"),
        ({"offsets": np.array([0, 9, 7])}, "'offsets' do not leave"),
        ({"grids": np.array([[2, 2], [3, 1]])}, "'grids' are not"),
        ({"grids": np.array([[2, 2, 1], [1, 3, 1]])}, "two numbers a name"),
        ({"sizes": np.array([[5, 8], [0, 9]])}, "below 1"),
        ({"factor": np.int32(0)}, "must be positive"),
        ({"micro_batch": np.int32(0)}, "must be positive"),
        ({"micro_batch": np.int32(-8)}, "must be positive"),
        ({"micro_batch": np.int32(1025)}, "'micro_batch' is 1025, above 1024"),
        ({"micro_batch": np.uint64(2**63)}, "above 1024"),
        ({"names": np.array(["a", "A"])}, "the same name"),
        ({"names": np.array(["a", "../b"])}, "cannot be the name"),
        ({"names": np.array(["a", "/b"])}, "cannot be the name"),
        ({"names": np.array(["a", ""])}, "cannot be the name"),
        (
            {
                "names": np.zeros(0, np.str_),
                "sizes": np.zeros((0, 2), int),
                "grids": np.zeros((0, 2), int),
                "offsets": np.zeros(1, int),
                "ids": np.zeros((0, 2), int),
            },
            "there is no picture",
        ),
    ],
)
def test_what_does_not_fit_is_refused(path, parts, message):
    change(path, **parts)
    with pytest.raises(UserError, match=message) as error:
        read_codes(path)
    assert str(path) in str(error.value)


def test_other_whole_numbers_will_do(path):
    with np.load(path) as archive:
        ids = archive["ids"].astype(np.uint16)
    change(path, ids=ids)
    assert read_codes(path).ids[0].dtype == np.int32


def test_a_pickled_array_is_never_opened(path):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("the pickle was opened",)

    trap = np.array([None], dtype=object)
    trap[0] = Trap()
    with np.load(path) as archive:
        arrays = dict(archive) | {"names": trap}
    np.savez(path, **arrays)
    with pytest.raises(UserError, match="damaged"):
        read_codes(path)


def test_no_npz(tmp_path):
    for name, content in (
        ("empty.npz", b""),
        ("text.npz", b"hello"),
        ("pickle.npz", pickle.dumps([1, 2])),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match="not an npz"):
            read_codes(path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(UserError, match="not an npz"):
        read_codes(tmp_path / "array.npy")
    for path in (tmp_path, tmp_path / "none.npz"):
        with pytest.raises(UserError, match="does not exist"):
            read_codes(path)


def test_every_cut_and_every_flipped_byte_is_met_calmly(path):
    """A damaged file is refused, or the damage is where nothing is stored."""
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(UserError):
            read_codes(path)
    for position in range(0, len(content), 11):
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        try:
            read_codes(path)
        except UserError:
            continue
