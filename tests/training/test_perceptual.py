import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from movq_jax.config.schema import tokenizer_config
from movq_jax.errors import UserError
from movq_jax.models.features import PERCEPTUAL
from movq_jax.training.perceptual import make_perceptual


@pytest.fixture
def options():
    """A function that makes `config.loss.perceptual`, of squeezenet by default."""

    def options(**changes):
        default = {"name": "squeezenet", "weight": 0.5, "weights": ""}
        return ConfigDict(default | {"dtype": "float32"} | changes)

    return options


@pytest.fixture
def params(fill):
    image = np.zeros((1, 32, 32, 3), np.float32)
    return fill(PERCEPTUAL["squeezenet"](), image, image)


def draw(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def test_none(options):
    assert make_perceptual(options(name="none", weights="/nowhere", dtype="x")) is None
    assert make_perceptual({"name": "none"}) is None


def test_the_keys_of_the_config(options):
    keys = set(tokenizer_config().loss.perceptual)
    assert keys == {"name", "weight", "weights", "dtype"}
    for name in PERCEPTUAL:
        assert make_perceptual(options(name=name, dtype="bfloat16")).weight == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "squeezent"}, r"perceptual\.name is 'squeezent'; did you mean 'sque"),
        ({"dtype": "bfloat"}, r"perceptual\.dtype is 'bfloat'; did you mean 'bfloat16"),
        ({"weight": -1.0}, r"perceptual\.weight is -1"),
        ({"weight": float("nan")}, r"perceptual\.weight is nan"),
        ({"net": "vgg"}, r"perceptual \(squeezenet\) has no field 'net'"),
    ],
)
def test_wrong_options(options, changes, message):
    with pytest.raises(UserError, match=r"config\.loss\." + message):
        make_perceptual(options(**changes))


def test_missing_options():
    with pytest.raises(
        UserError, match=r"config\.loss\.perceptual \(lpips_vgg\) lacks"
    ):
        make_perceptual({"name": "lpips_vgg"})


@pytest.mark.parametrize("name", PERCEPTUAL)
def test_missing_files_are_named_with_the_key(options, name, tmp_path):
    loss = make_perceptual(options(name=name, weights=str(tmp_path / "missing")))
    with pytest.raises(
        UserError, match=r"^config\.loss\.perceptual\.weights: .*missing"
    ):
        loss.load()


def test_what_is_loaded_is_what_was_announced(options, real_samples):
    npz = real_samples / "weights" / "squeezenet" / "squeezenet_v1.0.npz"
    loss = make_perceptual(options(weights=str(npz)))
    announced = jax.tree.map(lambda a: (a.shape, a.dtype), loss.abstract())
    assert jax.tree.map(lambda a: (a.shape, a.dtype), loss.load()) == announced


def test_the_unweighted_distance_of_each_image(options, params):
    loss = make_perceptual(options())
    x, x_hat = draw(2, 2, 24, 24, 3)
    expected = jax.jit(PERCEPTUAL["squeezenet"]().apply)({"params": params}, x, x_hat)
    values = jax.jit(loss)(params, x, x_hat)
    assert values.shape == (2,) and values.dtype == jnp.float32
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_the_convolutions_run_in_the_dtype(options):
    image = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    for dtype in ("float32", "bfloat16"):
        loss = make_perceptual(options(dtype=dtype))
        jaxpr = jax.make_jaxpr(loss)(loss.abstract(), image, image)
        (values,) = jaxpr.out_avals
        assert values.shape == (2,) and values.dtype == jnp.float32
        convolutions = re.findall(r"(\w+)\[[\d,]+\] = conv_general", str(jaxpr))
        assert set(convolutions) == {{"float32": "f32", "bfloat16": "bf16"}[dtype]}


def test_the_gradient_goes_to_the_reconstruction_alone(options, params):
    loss = make_perceptual(options())
    x, x_hat = draw(2, 2, 24, 24, 3)
    gradient = jax.grad(lambda *images: loss(*images).sum(), argnums=(1, 2))
    real, fake = jax.jit(gradient)(params, x, x_hat)
    assert not np.any(real) and np.any(fake) and np.all(np.isfinite(fake))


def test_the_work_is_found_under_its_name(options):
    loss = make_perceptual(options(name="lpips_vgg"))
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    gradient = jax.grad(lambda x_hat, params, x: loss(params, x, x_hat).sum())
    lowered = jax.jit(gradient).lower(image, loss.abstract(), image)
    lines = lowered.as_text(debug_info=True).splitlines()
    work = [line for line in lines if re.search(r'loc\(".*conv_general_dilated', line)]
    assert work and all("perceptual" in line for line in work)


def test_images_that_are_too_small(options):
    loss = make_perceptual(options())
    image = jax.ShapeDtypeStruct((1, 16, 32, 3), jnp.float32)
    with pytest.raises(
        UserError, match=r"at least 21 pixels a side, and these are 16x3"
    ):
        jax.eval_shape(loss, loss.abstract(), image, image)
