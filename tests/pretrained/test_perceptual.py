import pickle

import flax.traverse_util
import jax
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.models.features import PERCEPTUAL
from movq_jax.pretrained.perceptual import (
    abstract_perceptual,
    load_perceptual,
    load_squeezenet,
)


@pytest.fixture(scope="module")
def squeezenet_npz(real_samples):
    return real_samples / "weights" / "squeezenet" / "squeezenet_v1.0.npz"


@pytest.fixture
def changed(squeezenet_npz, tmp_path):
    """A function that writes the npz with arrays replaced, and None left out."""

    def changed(**arrays):
        with np.load(squeezenet_npz) as archive:
            kept = {k: a for k, a in (dict(archive) | arrays).items() if a is not None}
        np.savez(tmp_path / "changed.npz", **kept)
        return tmp_path / "changed.npz"

    return changed


def same_structure(params, abstract):
    shapes = jax.tree.map(lambda a: (a.shape, a.dtype), params)
    return shapes == jax.tree.map(lambda a: (a.shape, a.dtype), abstract)


@pytest.mark.parametrize("name", PERCEPTUAL)
def test_abstract_parameters_are_those_of_the_module(name):
    module = PERCEPTUAL[name]()
    image = np.zeros((1, 64, 64, 3), np.float32)
    expected = jax.eval_shape(module.init, jax.random.key(0), image, image)["params"]
    assert same_structure(abstract_perceptual(name), expected)


def test_an_unknown_name():
    for function in (abstract_perceptual, lambda name: load_perceptual(name, "")):
        with pytest.raises(UserError, match="did you mean 'lpips_vgg'"):
            function("lpips_vg")


def test_squeezenet(squeezenet_npz):
    params = load_perceptual("squeezenet", squeezenet_npz)
    assert same_structure(params, abstract_perceptual("squeezenet"))
    everything = load_squeezenet(str(squeezenet_npz))
    assert everything["conv_final"]["kernel"].shape == (1, 1, 512, 1000)
    flat = flax.traverse_util.flatten_dict(everything, sep=".")
    with np.load(squeezenet_npz) as archive:
        assert len(flat) == len(archive.files)
        np.testing.assert_array_equal(
            flat["fire5.expand3x3.kernel"],
            archive["fire5.conv3x3_2.weight"].transpose(2, 3, 1, 0),
        )
    leaves = jax.tree.leaves(everything)
    assert all(a.flags.c_contiguous and a.dtype == np.float32 for a in leaves)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (None, r"changed\.npz lacks fire3\.conv3x3_2\.bias"),
        (np.zeros(63, np.float32), r"fire3\.conv3x3_2\.bias is float32 \[63\].*\[64\]"),
        (np.zeros(64, int), r"fire3\.conv3x3_2\.bias is int64 \[64\], but should be"),
        (np.full(64, np.nan), r"fire3\.conv3x3_2\.bias has numbers that are not fin"),
    ],
)
def test_a_squeezenet_with_a_wrong_tensor(changed, array, message):
    path = changed(**{"fire3.conv3x3_2.bias": array})
    with pytest.raises(UserError, match=message):
        load_perceptual("squeezenet", path)


def test_a_squeezenet_with_a_tensor_too_many(changed):
    path = changed(**{"fire10.conv1x1_1.bias": np.zeros(3)})
    with pytest.raises(UserError, match=r"another network: fire10\.conv1x1_1\.bias"):
        load_perceptual("squeezenet", path)


def test_squeezenet_without_a_file(tmp_path):
    wanted = r"needs the path .*songhan/SqueezeNet-Deep-Compression .*load_squeezenet"
    with pytest.raises(UserError, match=wanted):
        load_perceptual("squeezenet", "")
    with pytest.raises(UserError, match=rf"none\.npz: No such file; .*{wanted}"):
        load_perceptual("squeezenet", tmp_path / "none.npz")
    (tmp_path / "x.npz").write_bytes(pickle.dumps([1]))
    with pytest.raises(UserError, match="is not an npz file"):
        load_perceptual("squeezenet", tmp_path / "x.npz")
