import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.models.features import PERCEPTUAL
from movq_jax.pretrained.lpips import lpips_params

NAMES = ["lpips_vgg", "lpips_alex"]
# An early layer and the next: with biases far below zero all that follows is dead.
MIDDLE = {"lpips_vgg": ("conv3_1", "conv3_2"), "lpips_alex": ("conv3", "conv4")}


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def side(name):
    """Images as small as the network allows, and a pixel more where that is odd."""
    return (PERCEPTUAL[name].min_side + 1) // 2 * 2


@pytest.fixture(scope="module")
def params(name, side):
    """Random parameters that keep the variance, and heads >= 0."""
    rng = np.random.default_rng(0)

    def draw(path, struct):
        name = path[-1].key
        if name == "bias":
            return 0.1 * rng.standard_normal(struct.shape, np.float32)
        if name != "kernel":
            return rng.uniform(0, 0.5, struct.shape).astype(np.float32)
        scale = np.float32((2 / np.prod(struct.shape[:-1])) ** 0.5)
        return scale * rng.standard_normal(struct.shape, np.float32)

    image = jnp.zeros((1, side, side, 3))
    shapes = jax.eval_shape(PERCEPTUAL[name]().init, jax.random.key(0), image, image)
    return jax.tree_util.tree_map_with_path(draw, shapes["params"])


@pytest.fixture(scope="module")
def images(side):
    """Smooth images: [2, side, side, 3] in [-1, 1]."""
    corners = np.random.default_rng(1).uniform(-1, 1, (2, 2, 2, 3))
    t = np.linspace(0, 1, side)
    weights = np.stack([1 - t, t])
    x = np.einsum("brcd,ry,cx->byxd", corners, weights, weights)
    return jnp.asarray(x, jnp.float32)


def distance_and_gradient(name, dtype=jnp.float32):
    """Return a compiled (params, x, x_hat) -> (distances [B], d sum / d x_hat)."""

    def distance(x_hat, params, x):
        values = PERCEPTUAL[name](dtype=dtype).apply({"params": params}, x, x_hat)
        return values.sum(), values

    gradient = jax.grad(distance, has_aux=True)
    return jax.jit(lambda params, x, x_hat: gradient(x_hat, params, x)[::-1])


@pytest.fixture(scope="module")
def measure(name):
    return distance_and_gradient(name)


def test_equal_images_have_distance_zero(measure, params, images):
    values, gradient = measure(params, images, images)
    assert np.all(values < 1e-9) and values.dtype == jnp.float32
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_noise_is_a_distance_that_grows(measure, params, images, noisy):
    distances = [measure(params, images, noisy(images, s))[0] for s in (0.02, 0.1, 0.5)]
    assert np.all(np.diff([np.zeros(2), *distances], axis=0) > 0)
    back = measure(params, noisy(images, 0.5), images)[0]
    np.testing.assert_allclose(back, distances[-1], rtol=1e-5)


@pytest.mark.parametrize("bias", [None, -1e4])
def test_constant_images_and_dead_activations(measure, params, bias, name, side):
    """Also where all channels of a map are 0 at all positions."""
    if bias is not None:
        dead = dict(params["trunk"])
        for layer in MIDDLE[name]:
            biases = np.full_like(dead[layer]["bias"], bias)
            dead[layer] = dead[layer] | {"bias": biases}
        params = params | {"trunk": dead}
    black = jnp.zeros((2, side, side, 3)) - 1
    for other in (black, -black):
        values, gradient = measure(params, black, other)
        assert np.all(np.isfinite(values)) and np.all(np.isfinite(gradient))
        assert np.all(values < 1e-9 if other is black else values > 1e-3)


def test_a_bfloat16_trunk_deviates_little(measure, params, images, noisy, name):
    """What the docstrings of LPIPSVGG and LPIPSAlex state."""
    x_hat = noisy(images, 0.1)
    exact, exact_gradient = measure(params, images, x_hat)
    values, gradient = distance_and_gradient(name, jnp.bfloat16)(params, images, x_hat)
    assert values.dtype == gradient.dtype == jnp.float32
    np.testing.assert_allclose(values, exact, rtol=0.01)
    norms = np.linalg.norm(gradient), np.linalg.norm(exact_gradient)
    assert np.vdot(gradient, exact_gradient) / np.prod(norms) > 0.97


def test_each_head_weighs_its_map_and_the_layers_are_summed(params, name):
    """Against the formula in NumPy, on maps of any size."""
    rng, widths = np.random.default_rng(2), PERCEPTUAL[name].widths
    fx, fy = (
        [jnp.asarray(rng.uniform(0, 1, (2, 4, 5, w)), jnp.float32) for w in widths]
        for _ in range(2)
    )
    expected = 0
    for i in range(5):
        units = [f / np.linalg.norm(f, axis=-1, keepdims=True) for f in (fx[i], fy[i])]
        expected += ((units[0] - units[1]) ** 2 @ params[f"head_{i}"]).mean((1, 2))
    ours = PERCEPTUAL[name]().apply({"params": params}, fx, fy, method="distance")
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize("any_name", PERCEPTUAL)
def test_no_gradient_scatters(any_name):
    """Deterministic mode refuses select-and-scatter on GPUs."""
    module = PERCEPTUAL[any_name]()
    image = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), image, image)
    gradient = jax.grad(lambda x_hat, v, x: module.apply(v, x, x_hat).sum())
    assert "scatter" not in jax.jit(gradient).lower(image, shapes, image).as_text()


@pytest.fixture(scope="module")
def their_lpips(torch, name):
    """The published class with the published heads on a random trunk."""
    lpips = pytest.importorskip("lpips")
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):  # its arguments to torchvision
        return lpips.LPIPS(net=name[6:], pnet_rand=True, verbose=False)


@pytest.mark.parity
def test_the_published_code(torch, their_lpips, measure, images, noisy, name):
    state = {name: a.detach().numpy() for name, a in their_lpips.state_dict().items()}
    trunk = {  # net.slice2.7.weight -> features.7.weight
        "features." + name.split(".", 2)[2]: array
        for name, array in state.items()
        if name.startswith("net.slice")
    }
    heads = {k: a for k, a in state.items() if k.startswith("lin") and k[3].isdigit()}
    params = lpips_params(name, (trunk, "trunk"), (heads, "heads"))
    x_hat = noisy(images, 0.2)
    values, gradient = measure(params, images, x_hat)

    real, fake = (torch.tensor(np.moveaxis(a, -1, 1).copy()) for a in (images, x_hat))
    expected = their_lpips(real, fake.requires_grad_())
    expected.sum().backward()
    expected_gradient = np.moveaxis(fake.grad.numpy(), 1, -1)
    expected = expected.detach().numpy().reshape(-1)
    assert np.all(expected > 1e-2)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    scale = np.abs(expected_gradient).max()
    np.testing.assert_allclose(gradient / scale, expected_gradient / scale, atol=1e-5)
