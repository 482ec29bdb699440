import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageFilter

from movq_jax.models.features.squeezenet import (
    MIN_SIDE,
    SqueezeNet,
    SqueezeNetPerceptual,
)
from movq_jax.pretrained.perceptual import load_perceptual, load_squeezenet

CAT, ESPRESSO = 285, 967


@pytest.fixture(scope="module")
def npz(real_samples):
    return real_samples / "weights" / "squeezenet" / "squeezenet_v1.0.npz"


@pytest.fixture(scope="module")
def measure(npz):
    """A compiled (x, x_hat) -> distances, with the published weights."""
    params = load_perceptual("squeezenet", npz)
    module = SqueezeNetPerceptual()
    distance = jax.jit(lambda p, x, x_hat: module.apply({"params": p}, x, x_hat))
    return functools.partial(distance, params)


def maps_of(side):
    module = SqueezeNet()
    image = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    return jax.eval_shape(
        lambda x: module.init_with_output(jax.random.key(0), x)[0], image
    )


def test_the_published_sizes():
    sides = [m.shape[1:] for m in maps_of(227)]
    assert sides[:3] == [(55, 55, 128), (55, 55, 128), (55, 55, 256)]
    assert sides[3:7] == [(27, 27, 256), (27, 27, 384), (27, 27, 384), (27, 27, 512)]
    assert sides[7:] == [(13, 13, 512)]


def test_the_smallest_image():
    assert maps_of(MIN_SIDE)[-1].shape == (2, 1, 1, 512)
    assert maps_of(MIN_SIDE - 1)[-1].size == 0


def test_photographs_are_recognised(npz, photographs):
    params = load_squeezenet(npz)
    assert sum(a.size for a in jax.tree.leaves(params)) == 1_248_424
    module, variables = SqueezeNet(), {"params": params}
    classify = jax.jit(lambda v, x: module.apply(v, x, method="classify"))
    logits = classify(variables, photographs)
    assert logits.dtype == jnp.float32
    assert np.argmax(logits, axis=-1).tolist() == [CAT, ESPRESSO]


def test_the_distance_grows_with_noise_and_with_blur(measure, photographs, noisy):
    x = photographs[:, 60:156, 60:156]

    def blurred(radius):
        pictures = [Image.fromarray(np.uint8((a + 1) * 127.5)) for a in x]
        kernel = ImageFilter.GaussianBlur(radius)
        pictures = [np.asarray(picture.filter(kernel)) for picture in pictures]
        return np.stack(pictures).astype(np.float32) / 127.5 - 1

    for changed in ([noisy(x, s) for s in (0.02, 0.1, 0.5)], map(blurred, (1, 2, 4))):
        distances = [measure(x, x), *(measure(x, y) for y in changed)]
        assert np.all(distances[0] == 0) and np.max(distances) < 2
        assert np.all(np.diff(distances, axis=0) > 0)


def test_colours_are_not_mixed_up(measure, photographs):
    """Red and blue exchanged is another picture, not the same."""
    x = photographs[:, 60:156, 60:156]
    assert np.all(measure(x, x[..., ::-1]) > 0.05)


def values_and_gradient(dtype):
    """Return a compiled (params, x, x_hat) -> (distances [B], d sum / d x_hat)."""

    def distance(x_hat, params, x):
        values = SqueezeNetPerceptual(dtype=dtype).apply({"params": params}, x, x_hat)
        return values.sum(), values

    gradient = jax.grad(distance, has_aux=True)
    return jax.jit(lambda params, x, x_hat: gradient(x_hat, params, x)[::-1])


def test_bfloat16_deviates_little_and_gradients_are_finite(npz, photographs, noisy):
    """What the docstring of SqueezeNetPerceptual states; and of constant images."""
    params = load_perceptual("squeezenet", npz)
    x = photographs[:, 80:128, 80:128]
    images = params, x, noisy(x, 0.1)
    in_float32 = values_and_gradient(jnp.float32)
    exact, exact_gradient = in_float32(*images)
    values, gradient = values_and_gradient(jnp.bfloat16)(*images)
    assert values.dtype == gradient.dtype == jnp.float32
    np.testing.assert_allclose(values, exact, rtol=0.02)
    norms = np.linalg.norm(gradient), np.linalg.norm(exact_gradient)
    assert np.vdot(gradient, exact_gradient) / np.prod(norms) > 0.97

    grey = np.zeros_like(x)
    for other in (grey, grey + 1):
        assert all(np.all(np.isfinite(a)) for a in in_float32(params, grey, other))
