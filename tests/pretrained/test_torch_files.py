import struct
import zipfile

import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.pretrained.torch_files import read_torch_file

NUMBERS = np.arange(24, dtype=np.float32)


def pickled(value):
    """Return the opcodes of a value; bytes are opcodes already."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, tuple):
        return b"(" + b"".join(map(pickled, value)) + b"t"
    if isinstance(value, str):
        return f"S'{value}'\n".encode()
    if value is None:
        return b"N"
    return (f"I0{value:d}\n" if isinstance(value, bool) else f"I{value}\n").encode()


def tensor(
    size=(24,), stride=(1,), offset=0, *, count=24, key="0", view=None, rebuild="v2"
):
    """Return the opcodes of a tensor, as torch writes them."""
    kind = b"ctorch\nFloatStorage\n"
    storage = pickled(("storage", kind, key, "cuda:0", count, view)) + b"Q"
    name, rest = ("_rebuild_tensor_v2", (0, None))
    if rebuild == "v1":
        name, rest = "_rebuild_tensor", ()
    return (
        f"ctorch._utils\n{name}\n".encode()
        + pickled((storage, offset, size, stride, *rest))
        + b"R"
    )


def state_dict(**tensors):
    items = b"".join(pickled(name) + pickled(t) + b"s" for name, t in tensors.items())
    return b"\x80\x02ccollections\nOrderedDict\n)R" + items + b"."


def zip_file(path, described, *storages, root="archive", **extra):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{root}/data.pkl", described)
        for i, numbers in enumerate(storages):
            archive.writestr(f"{root}/data/{i}", numbers.tobytes())
        for name, data in extra.items():
            archive.writestr(f"{root}/{name}", data)


def legacy_file(path, described, *storages, little=True):
    with path.open("wb") as file:
        file.write(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.")
        file.write(b"}" + pickled("little_endian") + pickled(little) + b"s.")
        file.write(described)
        keys = b"".join(pickled(str(i)) for i in range(len(storages)))
        file.write(b"](" + keys + b"e.")
        for numbers in storages:
            file.write(struct.pack("<q", numbers.size) + numbers.tobytes())


@pytest.fixture(params=[zip_file, legacy_file])
def write(request, tmp_path):
    """A function that writes a file of either container and returns its path."""

    def write(described, *storages):
        request.param(tmp_path / "file.pth", described, *storages)
        return tmp_path / "file.pth"

    return write


def refused(path):
    """Return the message with which a file is refused, one sentence on one line."""
    with pytest.raises(UserError) as error:
        read_torch_file(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    return message


def test_tensors_in_their_order(write):
    described = state_dict(
        b=tensor((2, 3), (3, 1), 4),
        a=tensor((3, 2), (1, 3), 4),  # the same, transposed
        other=tensor(key="1", count=2, size=(), stride=(), offset=1),
        empty=tensor((0, 5), (5, 1), 24),
        repeated=tensor((2, 1_000_000_000, 1_000_000), (1, 0, 0)),
    )
    arrays = read_torch_file(write(described, NUMBERS, NUMBERS[:2]))
    assert list(arrays) == ["b", "a", "other", "empty", "repeated"]
    np.testing.assert_array_equal(arrays["b"], NUMBERS[4:10].reshape(2, 3))
    np.testing.assert_array_equal(arrays["a"], arrays["b"].T)
    assert arrays["other"].shape == () and arrays["other"] == 1
    assert arrays["empty"].shape == (0, 5)
    assert arrays["repeated"][1, -1, -1] == 1
    assert {a.dtype for a in arrays.values()} == {np.dtype("float32")}
    assert np.shares_memory(arrays["a"], arrays["b"])
    with pytest.raises(ValueError, match="read-only"):
        arrays["b"][0] = 1


def test_the_form_of_the_oldest_files(write):
    described = state_dict(
        a=tensor((2, 2), (2, 1), rebuild="v1"),
        viewed=tensor((2,), (1,), 1, view=("7", 10, 3)),
    )
    arrays = read_torch_file(write(described, NUMBERS))
    np.testing.assert_array_equal(arrays["a"], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(arrays["viewed"], [11, 12])


def test_with_a_prefix_the_rest_is_not_read(tmp_path):
    described = state_dict(a=tensor(), b=tensor(key="1"))
    zip_file(tmp_path / "x", described, NUMBERS)  # b is described, and not there
    assert list(read_torch_file(tmp_path / "x", prefix="a")) == ["a"]
    assert "1" in refused(tmp_path / "x")


GLOBALS = [
    b"cposix\nsystem\n(S'touch pwned'\ntR",
    b"cbuiltins\neval\n(S'1'\ntR",
    b"(S'touch pwned'\niposix\nsystem\n",  # INST
    b"\x8c\x02os\x8c\x06system\x93",  # STACK_GLOBAL
    b"ctorch\nload\n",
    b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n",
    b"ccollections\nCounter\n",
]


@pytest.mark.parametrize("asked", GLOBALS)
def test_nothing_is_executed(write, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused(write(state_dict(a=tensor(), b=asked), NUMBERS))
    assert "code is never run" in message
    parts = asked.replace(b"\n", b" ").replace(b"\x8c", b" ").split()
    assert any(part.strip(b"\x02\x06\x93c").decode() in message for part in parts)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "opcodes",
    [
        # BUILD on what the pickle was given: it must have nothing to set.
        b"ctorch._utils\n_rebuild_tensor_v2\n}S'__call__'\nI1\nsb",
        b"ctorch._utils\n_rebuild_tensor_v2\nN}S'__class__'\nI1\ns\x86b",
        b"ccollections\nOrderedDict\nN}S'items'\nI1\ns\x86b",
        b"\x82\x01",  # EXT1
        b"Nr\xff\xff\xff\x7f",  # LONG_BINPUT far away
        b"ctorch._utils\n_rebuild_tensor_v2\n)R",
        b"ctorch._utils\n_rebuild_tensor_v2\n(NI0\n(t(ttR",
        b"(S'module'\nN}tQ",
        b"NQ",
    ],
)
def test_odd_pickles(write, opcodes):
    assert "damaged" in refused(write(state_dict(a=opcodes), NUMBERS))


def nested(levels):
    """Return opcodes of tuples in tuples: few bytes, and a repr twice a level."""
    return b"N" + b"2\x86" * levels  # DUP, TUPLE2


@pytest.mark.parametrize(
    "opcodes",
    [
        b"(" + nested(24) + b"ctorch\nFloatStorage\nS'0'\nS'cpu'\nI24\ntQ",
        b"(S'storage'\n" + nested(24) + b"S'0'\nS'cpu'\nI24\ntQ",
        b"(S'storage'\nctorch\nFloatStorage\n" + nested(24) + b"S'cpu'\nI24\ntQ",
    ],
    ids=["kind", "dtype", "key"],
)
def test_messages_are_short(write, opcodes):
    message = refused(write(state_dict(a=opcodes), NUMBERS))
    assert len(message) < 300 and "tuple" in message


def test_messages_about_names_are_short(write, tmp_path):
    described = b"\x80\x02}" + nested(16) + b"Ns."
    message = refused(write(described))
    assert len(message) < 300 and "a tuple is the name of an entry" in message
    described = b"\x80\x02}(" + nested(16) + b"Ntb."  # BUILD
    assert len(refused(write(described))) < 300


def test_messages_about_keys_of_storages_are_short(tmp_path):
    path = tmp_path / "x.pth"
    legacy_file(path, state_dict(a=tensor()), NUMBERS)
    keys = b"](" + pickled("0") + b"e."
    path.write_bytes(path.read_bytes().replace(keys, b"](" + nested(16) + b"e."))
    message = refused(path)
    assert len(message) < 300 and "called by a tuple" in message


@pytest.mark.parametrize(
    "bad",
    [
        tensor((25,)),
        tensor((2, 3), (12, 6), 1),
        tensor((3,), (1,), 22),
        tensor((2,), (-1,), 5),
        tensor((-2,), (1,)),
        tensor((2, 2), (1,)),
        tensor((2,), (1,), -1),
        tensor((), (), 24),
        tensor(count=1 << 60, size=(1 << 60,)),
        tensor(count=23, size=(2,)),
        tensor(count=-1),
        tensor((2,), (1,), 2, view=("7", 10, 3)),
        tensor((2,), (1,), 0, view=("7", 23, 3)),
        # NaN is neither more nor less than anything.
        tensor((9_000,), (1,), 0, view=("7", 0, b"Fnan\n")),
        tensor((2,), (1,), key="5"),
        tensor((1 << 40, 1 << 40), (0, 0)),
        tensor(key="../data.pkl"),
    ],
)
def test_shapes_that_reach_out_of_the_file(write, bad):
    assert "damaged" in refused(write(state_dict(a=bad), NUMBERS))


def test_one_storage_of_two_sizes(write):
    described = state_dict(a=tensor((2,), count=1 << 50), b=tensor())
    assert "described in two ways" in refused(write(described, NUMBERS))


@pytest.mark.parametrize(
    "described", [b"\x80\x02].", b"\x80\x02N.", tensor() + b".", state_dict(a="text")]
)
def test_other_objects(write, described):
    assert "a dict of tensors is wanted" in refused(write(described, NUMBERS))


def test_a_checkpoint_around_the_state_dict(write):
    inner = state_dict(a=tensor())[2:-1]
    message = refused(write(state_dict(state_dict=inner, epoch=3), NUMBERS))
    assert "'state_dict' is no tensor" in message and "save the state dict" in message


def test_every_cut_is_refused(write):
    path = write(state_dict(a=tensor((2,), (1,)), b=tensor()), NUMBERS)
    whole = path.read_bytes()
    assert set(read_torch_file(path)) == {"a", "b"}
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        refused(path)


def test_no_damage_escapes_as_another_error(write):
    path = write(state_dict(a=tensor((2, 3), (3, 1))), NUMBERS)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            arrays = read_torch_file(path)
        except UserError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            assert all(a.size <= NUMBERS.size for a in arrays.values())
    assert outcomes["refused"] > 50


@pytest.mark.parametrize("data", [b"", b"PK", b"GIF89a", b"# text\n", bytes(100)])
def test_other_files(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    assert "no file of torch.save" in refused(tmp_path / "x")


def test_no_file(tmp_path):
    assert "No such file" in refused(tmp_path / "none.pth")
    assert "directory" in refused(tmp_path)


def test_big_endian_numbers(tmp_path):
    zip_file(tmp_path / "a", state_dict(a=tensor()), NUMBERS, byteorder=b"big")
    legacy_file(tmp_path / "b", state_dict(a=tensor()), NUMBERS, little=False)
    assert "big-endian" in refused(tmp_path / "a")
    assert "big-endian" in refused(tmp_path / "b")


def test_compressed_archives_are_not_swelled(tmp_path):
    with zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", state_dict(a=tensor()))
    assert "is compressed" in refused(tmp_path / "x")


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves(torch, tmp_path, zipped):
    base = torch.arange(24.0).reshape(4, 6)
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    state = {
        "base": base,
        "transposed": base.t(),
        "slice": base[1:, 2:4],
        "expanded": torch.ones(3, 1).expand(3, 5),
        "half": base.half() / 7,
        "bfloat16": base.bfloat16() / 7,
        "int64": torch.arange(-3, 3),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(3.0, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        **module.state_dict(),
    }
    for saved in (state, module.state_dict()):  # the latter with its versions
        path = tmp_path / "x.pth"
        torch.save(saved, path, _use_new_zipfile_serialization=zipped)
        assert zipfile.is_zipfile(path) == zipped
        arrays = read_torch_file(path)
        assert list(arrays) == list(saved)
        for name, array in arrays.items():
            theirs = saved[name].detach()
            assert f"torch.{array.dtype.name}" == str(theirs.dtype)
            exact = np.asarray(array, np.float64)
            np.testing.assert_array_equal(exact, theirs.double().numpy())


class Malicious:
    def __reduce__(self):
        import os

        return os.system, ("exit 1",)


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_beside_tensors(torch, tmp_path, zipped):
    path = tmp_path / "x.pth"
    for value, named in ((Malicious(), "system"), (torch.nn.ReLU(), "ReLU")):
        torch.save({"a": value}, path, _use_new_zipfile_serialization=zipped)
        assert named in refused(path)
