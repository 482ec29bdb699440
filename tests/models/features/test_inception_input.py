import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from movq_jax.models.features.inception_input import (
    clean_resize,
    half_pixel_resize,
    scale_255,
    tf1_resize,
)

SIZES = [(1, 1), (7, 400), (64, 48), (256, 256), (298, 301), (1000, 3)]


def noise(height, width, seed=0):
    shape = (height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def floats(height, width):
    return jnp.asarray(noise(height, width)[None], jnp.float32)


def bilinear(image, places):
    """Bilinear values at places (y, x) of each result, in float64."""
    image = np.asarray(image, np.float64)
    taps = []
    for axis, place in enumerate(places):
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, image.shape[axis] - 1)
        taps.append((low, high, place - low))
    (top, bottom, dy), (left, right, dx) = taps
    dy, dx = dy[:, None, None], dx[None, :, None]
    upper = image[top][:, left] * (1 - dx) + image[top][:, right] * dx
    lower = image[bottom][:, left] * (1 - dx) + image[bottom][:, right] * dx
    return upper * (1 - dy) + lower * dy


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tf1_against_its_definition(height, width):
    x = floats(height, width)
    places = [np.arange(299) * (side / 299) for side in (height, width)]
    made = tf1_resize(x)
    assert made.shape == (1, 299, 299, 3) and made.dtype == jnp.float32
    np.testing.assert_allclose(made[0], bilinear(x[0], places), atol=0.02)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_half_pixel_against_its_definition(height, width):
    x = floats(height, width)
    places = [
        np.maximum((np.arange(299) + 0.5) * (side / 299) - 0.5, 0)
        for side in (height, width)
    ]
    made = half_pixel_resize(x)
    assert made.shape == (1, 299, 299, 3) and made.dtype == jnp.float32
    np.testing.assert_allclose(made[0], bilinear(x[0], places), atol=0.02)


def test_clean_is_pillows_filter_in_floats():
    image = noise(600, 450) // 2 + 64  # no overshoot, which is clipped in between
    made = clean_resize(image)
    rounded = Image.fromarray(image).resize((299, 299), Image.Resampling.BICUBIC)
    assert made.shape == (299, 299, 3) and made.dtype == np.float32
    assert np.abs(made - np.asarray(rounded, np.float32)).max() < 1.5
    assert np.any(made != np.round(made))


def test_clean_clips_what_overshoots():
    edge = np.zeros((20, 20, 3), np.uint8)
    edge[:, 10:] = 255
    made = clean_resize(edge)
    assert made.min() == 0 and made.max() == 255


def test_an_image_of_299_stays_as_it_is():
    image = noise(299, 299)
    x = jnp.asarray(image[None], jnp.float32)
    for made in (tf1_resize(x), half_pixel_resize(x)):
        np.testing.assert_array_equal(made[0], image)
    np.testing.assert_array_equal(clean_resize(image), image)


def test_only_clean_averages():
    """A chessboard of single pixels is grey from afar."""
    board = np.uint8(np.indices((897, 897)).sum(axis=0) % 2 * 255)
    board = np.repeat(board[..., None], 3, axis=2)
    x = jnp.asarray(board[None], jnp.float32)
    assert np.std(clean_resize(board)[5:-5, 5:-5]) < 10
    assert np.std(tf1_resize(x)) > 100 and np.std(half_pixel_resize(x)) > 100


def test_the_scale():
    made = scale_255(jnp.asarray([0.0, 64.0, 128.0, 255.0]))
    assert made.tolist() == [-1, -0.5, 0, 127 / 128]


@pytest.fixture(params=SIZES)
def nchw(request, torch):
    """An image as ours, and as torch has it."""
    x = floats(*request.param)
    return x, torch.tensor(np.moveaxis(np.asarray(x), -1, 1).copy())


def check(made, theirs, ulps):
    theirs = np.moveaxis(theirs.numpy(), 1, -1)
    steps = np.abs(np.asarray(made) - theirs) / np.spacing(np.float32(255))
    assert steps.max() <= ulps


@pytest.mark.parity
def test_torch_fidelity(nchw):
    """Equal but for a product and a sum that compilers make one step of."""
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x as published,
    )

    x, theirs = nchw
    theirs = published(theirs, size=(299, 299), align_corners=False)
    check(jax.jit(tf1_resize)(x), theirs, ulps=1)


@pytest.mark.parity
def test_pytorch_fid(torch, nchw):
    x, theirs = nchw
    interpolate = torch.nn.functional.interpolate
    theirs = interpolate(theirs, (299, 299), mode="bilinear", align_corners=False)
    # Whether torch rounds a place once or twice is the machine's choice.
    check(jax.jit(half_pixel_resize)(x), theirs, ulps=128)


@pytest.mark.parity
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_clean_fid(torch, height, width):
    resize = pytest.importorskip("cleanfid.resize")
    image = noise(height, width)
    with warnings.catch_warnings(action="ignore"):  # how it calls Pillow
        theirs = resize.build_resizer("clean")(image)
    np.testing.assert_array_equal(clean_resize(image), theirs)
