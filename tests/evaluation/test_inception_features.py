import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.inception_features import InceptionFeatures

FIELDS = ("pool", "spatial", "logits", "logits_unbiased")


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def features(inception_npz):
    """A function that makes the features of a way to resize, once."""
    made = {}

    def features(resize):
        if resize not in made:
            made[resize] = InceptionFeatures(
                inception_npz, resize=resize, micro_batch=2
            )
        return made[resize]

    return features


def check_equal(a, b):
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def test_what_is_returned(features, inception_npz):
    made = features("tf1")(noise(3, 60, 60))
    shapes = [getattr(made, field).shape for field in FIELDS]
    assert shapes == [(3, 2048), (3, 2023), (3, 1008), (3, 1008)]
    for field in FIELDS:
        values = getattr(made, field)
        assert isinstance(values, np.ndarray) and values.dtype == np.float32
        assert np.isfinite(values).all() and np.std(values) > 0.1
    assert made.pool.min() >= 0 and made.spatial.min() >= 0
    with np.load(inception_npz) as archive:
        kernel, bias = archive["fc.weight"], archive["fc.bias"]
    np.testing.assert_allclose(
        made.logits - made.logits_unbiased, [bias] * 3, atol=1e-4
    )
    np.testing.assert_allclose(made.logits_unbiased, made.pool @ kernel.T, atol=1e-2)


@pytest.mark.parametrize("resize", ["tf1", "pytorch_fid", "clean"])
def test_an_image_does_not_depend_on_its_neighbours(features, resize):
    """Nor on their sizes."""
    features = features(resize)
    images = noise(3, 40, 50)
    together = features(images)
    check_equal(features(jnp.asarray(images[2:])), pick(together, [2]))
    mixed = features([images[1], noise(70, 30), images[0]])
    check_equal(pick(mixed, [2, 0]), pick(together, [0, 1]))
    assert not np.array_equal(together.pool[0], together.pool[1])


def pick(output, places):
    return output.replace(**{f: getattr(output, f)[places] for f in FIELDS})


def test_the_three_ways_are_three_metrics(features):
    image = noise(1, 400, 350)
    ways = [features(name)(image).pool for name in ("tf1", "pytorch_fid", "clean")]
    for i in range(3):
        scale = np.abs(ways[i]).max()
        assert np.abs(ways[i] - ways[i - 1]).max() > 0.01 * scale
    # Of 299 x 299 nothing is resized; pytorch-fid has another scale, by 1/255.
    image = noise(1, 299, 299)
    check_equal(features("tf1")(image), features("clean")(image))
    other = features("pytorch_fid")(image).pool
    scale = np.abs(other).max()
    difference = np.abs(other - features("tf1")(image).pool).max()
    assert 1e-4 * scale < difference < 0.05 * scale


def test_no_image(features):
    assert features("tf1")([]).pool.shape == (0, 2048)
    assert features("clean")(noise(0, 8, 8)).logits.shape == (0, 1008)


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((1, 8, 8, 3), np.float32), "must be uint8.* image 0 is float32"),
        (noise(8, 8), r"image 0 is \[8, 3\]"),
        (np.zeros((1, 8, 8, 4), np.uint8), r"image 0 is \[8, 8, 4\]"),
        (noise(1, 0, 8), r"image 0 is \[0, 8, 3\]"),
    ],
)
def test_what_is_no_image(features, images, message):
    with pytest.raises(UserError, match=message):
        features("tf1")(images)


def test_options_that_are_none(inception_npz, tmp_path):
    with pytest.raises(UserError, match="resize is 'clear'; did you mean 'clean'"):
        InceptionFeatures(inception_npz, resize="clear")
    with pytest.raises(UserError, match="micro_batch is 0; it must be at least 1"):
        InceptionFeatures(inception_npz, micro_batch=0)
    with pytest.raises(UserError, match=r"none\.npz: No such file"):
        InceptionFeatures(tmp_path / "none.npz")


def test_for_the_record(features, inception_npz, tmp_path):
    made = features("clean")
    assert made.name == "inception-2015-12-05" and made.resize == "clean"
    assert made.micro_batch == 2 and made.width == 2048
    assert made.fingerprint == features("tf1").fingerprint
    with np.load(inception_npz) as archive:
        arrays = dict(archive)
    arrays["fc.bias"] = arrays["fc.bias"] + 1
    np.savez(tmp_path / "other.npz", **arrays)
    other = InceptionFeatures(str(tmp_path / "other.npz"), micro_batch=2)
    assert len(other.fingerprint) == 64 and other.fingerprint != made.fingerprint


@pytest.fixture(scope="module")
def state(torch, inception_npz):
    """The random weights as a state dict."""
    with np.load(inception_npz) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def check_close(ours, theirs):
    theirs = theirs.numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parity
@pytest.mark.parametrize("sides", [(299, 299), (64, 48)])
def test_torch_fidelity(torch, state, features, tmp_path, sides):
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    names = ["2048", "logits_unbiased", "logits"]
    torch.save(state, tmp_path / "x.pth")
    network = fidelity.FeatureExtractorInceptionV3("x", names, str(tmp_path / "x.pth"))
    branch = []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda *a: branch.append(a[-1]))
    images = noise(1, *sides)
    pool, unbiased, logits = network(torch.tensor(np.moveaxis(images, -1, 1).copy()))
    made = features("tf1")(images)
    check_close(made.pool, pool)
    check_close(made.logits, logits)
    check_close(made.logits_unbiased, unbiased)
    check_close(made.spatial, branch[0][:, :7].permute(0, 2, 3, 1).reshape(1, -1))


@pytest.mark.parity
@pytest.mark.parametrize("sides", [(299, 299), (64, 48)])
def test_pytorch_fid(torch, state, features, monkeypatch, sides):
    module = pytest.importorskip("pytorch_fid.inception")
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *a, **k: state)
    with warnings.catch_warnings(action="ignore"):  # its arguments to torchvision
        network = module.InceptionV3([3]).eval()
    images = noise(1, *sides)
    scaled = torch.tensor(np.moveaxis(images, -1, 1) / np.float32(255))
    (pool,) = network(scaled)
    check_close(features("pytorch_fid")(images).pool, pool.reshape(1, -1))
