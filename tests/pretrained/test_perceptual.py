import hashlib
import pickle
import zipfile
from importlib.util import find_spec
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.models.features import PERCEPTUAL
from movq_jax.pretrained import weights
from movq_jax.pretrained.perceptual import (
    abstract_perceptual,
    load_perceptual,
    load_squeezenet,
)
from movq_jax.pretrained.weights import WeightsFile

PUBLISHED = weights.KNOWN_FILES
# torchvision's vgg16, up to the last map: index of a convolution -> (in, out).
VGG = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128)}
VGG |= {10: (128, 256), 12: (256, 256), 14: (256, 256), 17: (256, 512)}
VGG |= {index: (512, 512) for index in (19, 21, 24, 26, 28)}


def vgg_shapes():
    shapes = {"classifier.0.bias": (4096,)}  # unused
    for index, (inputs, outputs) in VGG.items():
        shapes[f"features.{index}.weight"] = (outputs, inputs, 3, 3)
        shapes[f"features.{index}.bias"] = (outputs,)
    return shapes


def write_torch(path, shapes):
    """Write tensors that repeat one number, their place in the file, as torch does."""
    described = b"\x80\x02}"
    with zipfile.ZipFile(path, "w") as archive:
        for i, (name, shape) in enumerate(shapes.items()):
            sizes = b"".join(b"I%d\n" % side for side in shape)
            described += f"S'{name}'\nctorch._utils\n_rebuild_tensor_v2\n((".encode()
            described += f"S'storage'\nctorch\nFloatStorage\nS'{i}'\n".encode()
            described += b"S'cpu'\nI1\ntQI0\n(" + sizes + b"t("
            described += b"I0\n" * len(shape) + b"tI00\nNtRs"
            archive.writestr(f"x/data/{i}", np.float32(i).tobytes())
        archive.writestr("x/data.pkl", described + b".")


@pytest.fixture
def publish(monkeypatch):
    """A function that makes a file the published one of its name."""
    table = {}
    monkeypatch.setattr(weights, "KNOWN_FILES", table)

    def publish(path):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        table[path.name] = WeightsFile("http://127.0.0.1:9/", 1, digest, "none")

    return publish


@pytest.fixture
def lpips_folder(tmp_path, publish):
    """A folder with stand-ins for the files of LPIPS."""
    folder = tmp_path / "weights"
    folder.mkdir()
    write_torch(folder / "vgg16-397923af.pth", vgg_shapes())
    heads = {f"lin{i}.model.1.weight": (1, 64 << i, 1, 1) for i in range(4)}
    heads["lin4.model.1.weight"] = (1, 512, 1, 1)
    write_torch(folder / "vgg.pth", heads)
    for path in folder.iterdir():
        publish(path)
    return folder


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


def test_every_tensor_of_vgg_finds_its_place(lpips_folder):
    params = load_perceptual("lpips_vgg", lpips_folder)
    assert same_structure(params, abstract_perceptual("lpips_vgg"))
    numbers = {name: i for i, name in enumerate(vgg_shapes())}
    names = [f"conv{b}_{i}" for b in range(1, 6) for i in range(1, 3 + (b > 2))]
    for name, index in zip(names, VGG, strict=True):
        layer = params["trunk"][name]
        assert np.all(layer["kernel"] == numbers[f"features.{index}.weight"])
        assert np.all(layer["bias"] == numbers[f"features.{index}.bias"])
    assert all(np.all(params[f"head_{i}"] == i) for i in range(5))


def test_the_folder_may_be_the_variables(lpips_folder, monkeypatch):
    monkeypatch.setenv("MOVQ_JAX_WEIGHTS", str(lpips_folder))
    assert "head_4" in load_perceptual("lpips_vgg", "")


@pytest.mark.parametrize("file", ["vgg16-397923af.pth", "vgg.pth"])
def test_a_file_that_is_another(lpips_folder, file):
    path = lpips_folder / file
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UserError, match=rf"{file} is damaged, or is not what was"):
        load_perceptual("lpips_vgg", lpips_folder)


def test_a_vgg_that_lacks_a_tensor(lpips_folder, publish):
    shapes = vgg_shapes()
    del shapes["features.28.bias"]
    write_torch(lpips_folder / "vgg16-397923af.pth", shapes)
    publish(lpips_folder / "vgg16-397923af.pth")
    with pytest.raises(UserError, match=r"lacks features\.28\.bias"):
        load_perceptual("lpips_vgg", lpips_folder)


def test_the_heads_as_npz(lpips_folder, real_samples):
    """The numbers of the published file, which is looked for first."""
    (lpips_folder / "vgg.pth").unlink()
    npz = real_samples / "weights" / "lpips" / "v0.1_vgg.npz"
    (lpips_folder / "v0.1_vgg.npz").write_bytes(npz.read_bytes())
    params = load_perceptual("lpips_vgg", lpips_folder)
    with np.load(npz) as archive:
        for i in range(5):
            expected = archive[f"lin{i}.model.1.weight"].reshape(-1)
            np.testing.assert_array_equal(params[f"head_{i}"], expected)
            assert np.all(expected >= 0)
        other = {name: archive[name] * np.float32(1.001) for name in archive.files}
    np.savez(lpips_folder / "v0.1_vgg.npz", **other)
    with pytest.raises(UserError, match=r"does not have the published heads"):
        load_perceptual("lpips_vgg", lpips_folder)


@pytest.mark.parity
def test_the_published_heads(lpips_folder, torch, monkeypatch):
    """As the lpips wheel has them: their hash is the one in the table."""
    package = find_spec("lpips")
    if package is None:
        pytest.skip("lpips is not installed")
    published = Path(package.origin).parent / "weights" / "v0.1" / "vgg.pth"
    (lpips_folder / "vgg.pth").write_bytes(published.read_bytes())
    monkeypatch.setitem(weights.KNOWN_FILES, "vgg.pth", PUBLISHED["vgg.pth"])
    params = load_perceptual("lpips_vgg", lpips_folder)
    state = torch.load(published, map_location="cpu")
    for i in range(5):
        expected = state[f"lin{i}.model.1.weight"].numpy().reshape(-1)
        np.testing.assert_array_equal(params[f"head_{i}"], expected)


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
