import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageFilter

from movq_jax.errors import UserError
from movq_jax.evaluation.metrics.frechet import FeatureStatistics, frechet
from movq_jax.evaluation.squeezenet_fd import SqueezeNetFeatures
from movq_jax.models.features.squeezenet import SqueezeNet
from movq_jax.pretrained.perceptual import load_squeezenet

PHOTOGRAPHS = ("astronaut", "cat", "coffee", "rocket")


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def random_npz(random_squeezenet):
    """A file like the published one, of random numbers."""
    return random_squeezenet


@pytest.fixture(scope="module")
def npz(real_samples):
    path = real_samples / "weights" / "squeezenet" / "squeezenet_v1.0.npz"
    if not path.exists():
        pytest.skip(f"the weights of SqueezeNet are not in {path}")
    return path


@pytest.fixture(scope="module")
def features(random_npz):
    return SqueezeNetFeatures(random_npz, micro_batch=2)


@pytest.fixture
def one_thread():
    """For matrices of 512: BLAS on busy cores is slower with several threads."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        yield


def check_definition(path):
    """Compares with the definition, step by step and without any batching."""
    image = noise(100, 141)
    square = Image.fromarray(image).resize((227, 227), Image.Resampling.BICUBIC)
    x = np.asarray(square, np.float32)[None] / 127.5 - 1
    fire9 = jax.jit(SqueezeNet().apply)({"params": load_squeezenet(path)}, x)[-1]
    assert fire9.shape == (1, 13, 13, 512)
    expected = np.asarray(fire9).mean(axis=(1, 2), dtype=np.float64)
    made = SqueezeNetFeatures(path)(image[None])
    assert made.shape == (1, 512) and made.dtype == np.float32
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5 * expected.max())
    assert (made >= 0).all() and made.std() > 0.1 * made.mean()  # a ReLU, and alive


def test_is_the_mean_of_fire9(random_npz):
    check_definition(random_npz)


def test_is_the_mean_of_fire9_with_the_published_weights(npz):
    check_definition(npz)


def test_an_image_does_not_depend_on_the_batch(features, random_npz):
    images = noise(5, 40, 40)
    together = features(images)  # two batches, and one that is padded
    np.testing.assert_array_equal(features(images[::-1])[::-1], together)
    for i in range(5):
        np.testing.assert_array_equal(features(images[i : i + 1]), together[i : i + 1])
    one_by_one = SqueezeNetFeatures(random_npz, micro_batch=1)(images)
    np.testing.assert_allclose(one_by_one, together, rtol=1e-5, atol=1e-5)
    assert len(np.unique(together[:, np.argmax(together.std(axis=0))])) == 5


def test_images_of_any_sizes(features):
    images = [noise(227, 227), noise(1, 1), noise(500, 30)]
    together = features(images)
    for image, one in zip(images, together, strict=True):
        np.testing.assert_array_equal(features([image])[0], one)
        np.testing.assert_array_equal(features(jnp.asarray(image[None]))[0], one)


def test_shrinking_averages_and_does_not_pick_pixels(features):
    """A fine chessboard becomes grey; without antialiasing it becomes a pattern."""
    board = np.uint8(np.indices((908, 908)).sum(axis=0) % 2 * 255)
    board = np.repeat(board[..., None], 3, axis=2)
    greys = [np.full((227, 227, 3), value, np.uint8) for value in (127, 128)]
    made, low, high = features([board, *greys])
    distance = np.linalg.norm(high - low)
    assert min(np.linalg.norm(made - low), np.linalg.norm(made - high)) <= distance


def test_no_image(features):
    assert features(noise(0, 8, 8)).shape == (0, 512)
    assert features([]).shape == (0, features.width)


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((1, 8, 8, 3), np.float32), "must be uint8.* image 0 is float32"),
        (noise(8, 8), r"image 0 is \[8, 3\]"),
        (np.zeros((1, 8, 8, 4), np.uint8), r"image 0 is \[8, 8, 4\]"),
        ([*noise(3, 8, 8), np.zeros((8, 8), np.uint8)], r"image 3 is \[8, 8\]"),
        (noise(1, 0, 8), r"image 0 is \[0, 8, 3\]"),
    ],
)
def test_what_is_no_image(features, images, message):
    with pytest.raises(UserError, match=message):
        features(images)


def test_no_weights(tmp_path, random_npz):
    with pytest.raises(UserError, match="needs the path of squeezenet_v1.0.npz"):
        SqueezeNetFeatures("")
    with pytest.raises(UserError, match=r"none\.npz"):
        SqueezeNetFeatures(tmp_path / "none.npz")
    with pytest.raises(UserError, match="micro_batch is 0; it must be at least 1"):
        SqueezeNetFeatures(random_npz, micro_batch=0)


def test_the_fingerprint_is_that_of_the_weights(random_npz, features, tmp_path):
    with np.load(random_npz) as archive:
        arrays = dict(archive)
    assert SqueezeNetFeatures(random_npz).fingerprint == features.fingerprint
    arrays["conv1.bias"] = arrays["conv1.bias"] + 1
    np.savez(tmp_path / "other.npz", **arrays)
    other = SqueezeNetFeatures(str(tmp_path / "other.npz"))
    assert len(other.fingerprint) == 64 and other.fingerprint != features.fingerprint


@pytest.fixture(scope="module")
def photographs():
    """Sixteen squares of four photographs: uint8 [16, 128, 128, 3]."""
    data = pytest.importorskip("skimage.data")
    squares = []
    for name in PHOTOGRAPHS:
        picture = getattr(data, name)()
        for top in (20, 150):
            for left in (60, 190):
                squares.append(picture[top : top + 128, left : left + 128])
    return np.stack(squares)


def test_the_distance_grows_with_blur(npz, photographs, one_thread):
    features = SqueezeNetFeatures(npz)

    def statistics(blur):
        images = [
            np.asarray(Image.fromarray(a).filter(ImageFilter.GaussianBlur(blur)))
            for a in photographs
        ]
        made = FeatureStatistics(features.width)
        for half in (images[:7], images[7:]):
            made.update(features(half))
        return made

    sharp, *blurred = (statistics(blur) for blur in (0, 1, 2, 4))
    distances = [frechet(sharp, other) for other in (sharp, *blurred)]
    assert distances[0] <= 1e-6
    assert np.all(np.diff(distances) > 0.02 * np.trace(sharp.covariance))
