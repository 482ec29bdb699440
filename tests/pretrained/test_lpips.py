from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.pretrained import weights
from movq_jax.pretrained.lpips import PUBLISHED
from movq_jax.pretrained.perceptual import abstract_perceptual, load_perceptual

KNOWN = weights.KNOWN_FILES
# torchvision's networks, up to the last map: index of a convolution -> (in, out, side).
VGG = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128)}
VGG |= {10: (128, 256), 12: (256, 256), 14: (256, 256), 17: (256, 512)}
VGG |= {index: (512, 512) for index in (19, 21, 24, 26, 28)}
CONVOLUTIONS = {
    "lpips_vgg": {index: (*widths, 3) for index, widths in VGG.items()},
    "lpips_alex": {
        0: (3, 64, 11),
        3: (64, 192, 5),
        6: (192, 384, 3),
        8: (384, 256, 3),
        10: (256, 256, 3),
    },
}
OURS = {
    "lpips_vgg": [f"conv{b}_{i}" for b in range(1, 6) for i in range(1, 3 + (b > 2))],
    "lpips_alex": [f"conv{i}" for i in range(1, 6)],
}
HEADS = {
    "lpips_vgg": (64, 128, 256, 512, 512),
    "lpips_alex": (64, 192, 384, 256, 256),
}


@pytest.fixture(params=CONVOLUTIONS)
def name(request):
    return request.param


def trunk_shapes(name):
    shapes = {"classifier.1.bias": (4096,)}  # unused
    for index, (inputs, outputs, side) in CONVOLUTIONS[name].items():
        shapes[f"features.{index}.weight"] = (outputs, inputs, side, side)
        shapes[f"features.{index}.bias"] = (outputs,)
    return shapes


@pytest.fixture
def folder(tmp_path, publish_file, write_torch, name):
    """A folder with stand-ins for the files of one LPIPS."""
    folder = tmp_path / "weights"
    folder.mkdir()
    write_torch(folder / PUBLISHED[name].trunk_file, trunk_shapes(name))
    heads = {f"lin{i}.model.1.weight": (1, w, 1, 1) for i, w in enumerate(HEADS[name])}
    write_torch(folder / PUBLISHED[name].heads_file, heads)
    for path in folder.iterdir():
        publish_file(path)
    return folder


def test_every_tensor_finds_its_place(folder, name):
    params = load_perceptual(name, folder)
    shapes = jax.tree.map(lambda a: (a.shape, a.dtype), params)
    abstract = abstract_perceptual(name)
    assert shapes == jax.tree.map(lambda a: (a.shape, a.dtype), abstract)
    numbers = {theirs: i for i, theirs in enumerate(trunk_shapes(name))}
    for ours, index in zip(OURS[name], CONVOLUTIONS[name], strict=True):
        layer = params["trunk"][ours]
        assert np.all(layer["kernel"] == numbers[f"features.{index}.weight"])
        assert np.all(layer["bias"] == numbers[f"features.{index}.bias"])
    assert all(np.all(params[f"head_{i}"] == i) for i in range(5))


def test_the_folder_may_be_the_variables(folder, name, monkeypatch):
    monkeypatch.setenv("MOVQ_JAX_WEIGHTS", str(folder))
    assert "head_4" in load_perceptual(name, "")


@pytest.mark.parametrize("file", ["trunk_file", "heads_file"])
def test_a_file_that_is_another(folder, name, file):
    path = folder / getattr(PUBLISHED[name], file)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UserError, match=rf"{path.name} is damaged, or is not what was"):
        load_perceptual(name, folder)


def test_a_trunk_that_lacks_a_tensor(folder, name, publish_file, write_torch):
    shapes = trunk_shapes(name)
    last = max(CONVOLUTIONS[name])
    del shapes[f"features.{last}.bias"]
    path = write_torch(folder / PUBLISHED[name].trunk_file, shapes)
    publish_file(path)
    with pytest.raises(UserError, match=rf"lacks features\.{last}\.bias"):
        load_perceptual(name, folder)


def test_the_heads_as_npz(folder, name, real_samples):
    """The numbers of the published file, which is looked for first."""
    published = PUBLISHED[name]
    (folder / published.heads_file).unlink()
    npz = real_samples / "weights" / "lpips" / published.heads_npz
    placed = folder / published.heads_npz
    placed.write_bytes(npz.read_bytes())
    params = load_perceptual(name, folder)
    with np.load(npz) as archive:
        for i in range(5):
            expected = archive[f"lin{i}.model.1.weight"].reshape(-1)
            np.testing.assert_array_equal(params[f"head_{i}"], expected)
            assert np.all(expected >= 0)
        other = {key: archive[key] * np.float32(1.001) for key in archive.files}
    np.savez(placed, **other)
    with pytest.raises(UserError, match=r"does not have the published heads"):
        load_perceptual(name, folder)


@pytest.mark.parity
def test_the_published_heads(folder, name, torch, monkeypatch):
    """As the lpips wheel has them: their hash is the one in the table."""
    package = find_spec("lpips")
    if package is None:
        pytest.skip("lpips is not installed")
    file = PUBLISHED[name].heads_file
    published = Path(package.origin).parent / "weights" / "v0.1" / file
    (folder / file).write_bytes(published.read_bytes())
    assert KNOWN[file].size == published.stat().st_size
    monkeypatch.setitem(weights.KNOWN_FILES, file, KNOWN[file])
    params = load_perceptual(name, folder)
    state = torch.load(published, map_location="cpu")
    for i in range(5):
        expected = state[f"lin{i}.model.1.weight"].numpy().reshape(-1)
        np.testing.assert_array_equal(params[f"head_{i}"], expected)
