import jax
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.metrics import lpips_metric
from movq_jax.evaluation.metrics.lpips_metric import LpipsMetric
from movq_jax.models.features import PERCEPTUAL

SIDE = 24


def noise(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture
def make(monkeypatch, fill):
    """A function that makes a metric with random weights."""

    def load(name, weights):
        module = PERCEPTUAL[name]()
        image = np.zeros((1, module.min_side, module.min_side, 3), np.float32)
        return jax.tree.map(np.asarray, fill(module, image, image, seed=int(weights)))

    monkeypatch.setattr(lpips_metric, "load_perceptual", load)
    return lambda micro_batch=None, weights="0": LpipsMetric(
        "squeezenet", weights, micro_batch
    )


def test_is_the_distance_of_the_network(make, fill):
    a, b = noise(3, SIDE, SIDE), noise(3, SIDE, SIDE, seed=1)
    made = make(micro_batch=2)(a, b)
    assert made.shape == (3,) and made.dtype == np.float64
    module = PERCEPTUAL["squeezenet"]()
    x, y = (np.float32(image / 127.5 - 1) for image in (a, b))
    params = fill(module, x[:1, :21, :21], x[:1, :21, :21])
    expected = jax.jit(module.apply)({"params": params}, x, y)
    np.testing.assert_allclose(made, expected, rtol=1e-4)
    assert np.all(made > 1e-3) and len(set(made)) == 3


def test_equal_images_and_exchanged_ones(make):
    a, b = noise(1, SIDE, SIDE), noise(1, SIDE, SIDE, seed=1)
    metric = make(micro_batch=2)
    assert metric(a, a) == 0
    assert metric(a, b) == pytest.approx(metric(b, a), rel=1e-6)


def test_a_pair_does_not_depend_on_those_beside_it(make):
    a, b = noise(3, SIDE, SIDE), noise(3, SIDE, SIDE, seed=1)
    metric = make(micro_batch=2)
    together = metric(a, b)  # one whole micro-batch, and one that is padded
    for i in range(3):
        np.testing.assert_array_equal(
            metric(a[i : i + 1], b[i : i + 1])[0], together[i]
        )
    assert metric(a[:0], b[:0]).shape == (0,)


def test_for_records(make):
    metric = make()
    assert metric.name == "squeezenet" and metric.micro_batch >= 1
    assert metric.fingerprint == make(micro_batch=3).fingerprint
    assert len(metric.fingerprint) == 64
    assert metric.fingerprint != make(weights="1").fingerprint


def test_bad_input(make):
    metric = make()
    image = noise(1, SIDE, SIDE)
    with pytest.raises(UserError, match="must be uint8, .* not uint8 and float64"):
        metric(image, image / 255)
    with pytest.raises(UserError, match=r"of one size; these are \[1, 24, 24, 3\]"):
        metric(image, image[:, :22])
    with pytest.raises(UserError, match="squeezenet needs sides of at least 21 pixels"):
        metric(image[:, :20], image[:, :20])
    with pytest.raises(UserError, match=r"images \[B, H, W, 3\], not \[24, 24, 3\]"):
        metric(image[0], image[0])
    with pytest.raises(UserError, match=r"not \[1, 24, 24, 1\]"):
        metric(image[..., :1], image[..., :1])


def test_no_such_metric():
    with pytest.raises(
        UserError, match="perceptual.name is 'lpips'; did you mean 'lpi"
    ):
        LpipsMetric("lpips")
    with pytest.raises(UserError, match="micro_batch is 0; it must be at least 1"):
        LpipsMetric("squeezenet", "", 0)


def test_with_published_weights_distances_grow_with_noise(real_samples):
    npz = real_samples / "weights" / "squeezenet" / "squeezenet_v1.0.npz"
    metric = LpipsMetric("squeezenet", npz)
    image = np.tile(np.uint8(np.linspace(0, 255, SIDE)), (1, SIDE, 1))
    image = np.stack([image, image.swapaxes(1, 2), 255 - image], axis=-1)
    draws = np.random.default_rng(0).standard_normal(image.shape)
    noisy = [np.uint8(np.clip(image + s * draws, 0, 255)) for s in (0, 8, 32, 96)]
    distances = [metric(image, other)[0] for other in noisy]
    assert distances[0] == 0 and np.all(np.diff(distances) > 0.01)
