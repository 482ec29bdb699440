import flax.traverse_util
import jax
import numpy as np
import pytest
import safetensors.numpy

from movq_jax.errors import UserError
from movq_jax.pretrained.inception import (
    FILE,
    abstract_inception,
    load_inception,
    published_names,
)


@pytest.fixture(scope="module")
def shapes():
    """The published names and shapes of all 472 tensors."""
    abstract = abstract_inception()
    flat = flax.traverse_util.flatten_dict(abstract, sep=".")
    shapes = {}
    for ours, theirs in published_names(abstract).items():
        shape = flat[ours].shape
        order = {2: (1, 0), 4: (3, 2, 0, 1)}.get(len(shape), (0,))
        shapes[theirs] = tuple(shape[i] for i in order)
    return shapes


@pytest.fixture
def pth(tmp_path, shapes, write_torch):
    """A stand-in for the published file: tensor i has the number i everywhere."""
    return write_torch(tmp_path / FILE, shapes)


def check_numbers(params, shapes):
    numbers = {name: i for i, name in enumerate(shapes)}
    flat = flax.traverse_util.flatten_dict(params, sep=".")
    assert len(flat) == len(shapes) == 472
    for ours, theirs in published_names(params).items():
        assert np.all(flat[ours] == numbers[theirs]), ours
    expected = jax.tree.map(lambda s: (s.shape, s.dtype), abstract_inception())
    assert jax.tree.map(lambda a: (a.shape, a.dtype), params) == expected


def test_the_published_names(shapes):
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert shapes["Conv2d_1a_3x3.bn.running_var"] == (32,)
    assert shapes["Mixed_6b.branch7x7_2.conv.weight"] == (128, 128, 1, 7)
    assert shapes["fc.weight"] == (1008, 2048) and shapes["fc.bias"] == (1008,)


def test_the_published_file_in_its_folder(pth, shapes, publish_file, monkeypatch):
    publish_file(pth)
    check_numbers(load_inception(pth.parent), shapes)
    monkeypatch.setenv("MOVQ_JAX_WEIGHTS", str(pth.parent))
    assert load_inception()["fc"]["bias"].shape == (1008,)
    pth.write_bytes(pth.read_bytes() + b"\0")
    with pytest.raises(UserError, match="is damaged, or is not what was published"):
        load_inception()


def test_a_file_of_any_name(pth, shapes):
    path = pth.rename(pth.parent / "mine.pt")
    assert load_inception(str(path))["fc"]["kernel"].shape == (2048, 1008)


def test_npz_and_safetensors_are_the_same(inception_npz, tmp_path):
    with np.load(inception_npz) as archive:
        arrays = dict(archive)
    path = tmp_path / "inception.safetensors"
    safetensors.numpy.save_file(arrays, path)
    params = load_inception(path)
    jax.tree.map(np.testing.assert_array_equal, params, load_inception(inception_npz))
    theirs = arrays["Mixed_7c.branch3x3_2a.conv.weight"]
    ours = params["Mixed_7c"]["branch3x3_2a"]["kernel"]
    np.testing.assert_array_equal(ours, theirs.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(params["fc"]["kernel"], arrays["fc.weight"].T)


def test_counters_of_training_are_left_out(shapes, tmp_path, write_torch):
    counters = {"Mixed_5b.branch1x1.bn.num_batches_tracked": ()}
    path = write_torch(tmp_path / "x.pth", shapes | counters)
    check_numbers(load_inception(path), shapes)
    counters = {"Mixed_5e.branch1x1.bn.num_batches_tracked": ()}
    write_torch(path, shapes | counters)
    with pytest.raises(UserError, match="of another network: Mixed_5e"):
        load_inception(path)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("fc.bias", None, r"x\.pth lacks fc\.bias"),
        ("AuxLogits.fc.bias", (1000,), r"of another network: AuxLogits\.fc\.bias"),
        ("fc.bias", (1000,), r"fc\.bias is float32 \[1000\], but.* \[1008\]"),
    ],
)
def test_another_network(shapes, tmp_path, write_torch, name, shape, message):
    changed = {**shapes, name: shape}
    changed = {name: shape for name, shape in changed.items() if shape is not None}
    path = write_torch(tmp_path / "x.pth", changed)
    with pytest.raises(UserError, match=message):
        load_inception(path)


@pytest.mark.parametrize(
    ("name", "number", "message"),
    [
        ("Mixed_7a.branch3x3_2.bn.running_var", -1, "has negative numbers, no varia"),
        ("fc.weight", np.nan, r"fc\.weight has numbers that are not finite"),
    ],
)
def test_numbers_that_are_none(shapes, tmp_path, write_torch, name, number, message):
    path = write_torch(tmp_path / "x.pth", shapes, **{name: number})
    with pytest.raises(UserError, match=message):
        load_inception(path)


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
def test_no_file_and_no_file_of_tensors(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    with pytest.raises(UserError, match=rf"x{suffix}: No such file"):
        load_inception(path)
    path.write_bytes(b"not tensors" * 99)
    with pytest.raises(UserError, match=rf"x{suffix}"):
        load_inception(path)


@pytest.mark.parity
def test_files_of_torch(torch, inception_npz, tmp_path):
    """In both of its containers."""
    with np.load(inception_npz) as archive:
        tensors = {name: torch.from_numpy(archive[name]) for name in archive.files}
    expected = load_inception(inception_npz)
    for zipped in (True, False):
        path = tmp_path / "x.pth"
        torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
        jax.tree.map(np.testing.assert_array_equal, load_inception(path), expected)
