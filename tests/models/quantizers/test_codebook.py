import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.models.quantizers.codebook import Codebook


def init(*args, seed=0):
    module = Codebook(*args)
    return module, module.init(jax.random.key(seed))


def test_a_plain_book_starts_uniform_within_one_over_k():
    module, variables = init(50, 400)
    codes = np.asarray(module.apply(variables))
    np.testing.assert_array_equal(codes, variables["params"]["rows"])
    assert codes.dtype == np.float32 and np.abs(codes).max() <= 1 / 50
    np.testing.assert_allclose(codes.std(), 1 / 50 / np.sqrt(3), rtol=0.02)
    np.testing.assert_allclose(codes.mean(), 0, atol=1e-3)


def test_l2_codes_and_features_have_length_one():
    module, variables = init(40, 8, "l2")
    rows = variables["params"]["rows"]
    np.testing.assert_allclose(np.linalg.norm(rows, axis=-1), 1, rtol=1e-5)
    variables = {"params": {"rows": 3 * rows}}
    np.testing.assert_allclose(module.apply(variables), rows, atol=1e-6)
    z = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 8)), jnp.float32)
    features = module.apply(variables, z, method="features")
    expected = np.asarray(z) / np.linalg.norm(z, axis=-1, keepdims=True)
    np.testing.assert_allclose(features, expected, rtol=1e-5)


def test_linear_codes_are_a_map_of_rows_that_stay():
    """SimVQ: N(0, 1/D) rows, a trained map with torch's start, look-ups mapped."""
    module, variables = init(2000, 64, "linear")
    rows, linear = variables["params"]["rows"], variables["params"]["map"]
    np.testing.assert_allclose(np.std(rows), 64**-0.5, rtol=0.02)
    for weights in linear.values():
        assert np.abs(weights).max() <= 64**-0.5
    np.testing.assert_allclose(np.std(linear["kernel"]), (3 * 64) ** -0.5, rtol=0.05)
    codes = module.apply(variables)
    rows, kernel, bias = map(np.asarray, (rows, linear["kernel"], linear["bias"]))
    expected = rows @ kernel + bias
    np.testing.assert_allclose(codes, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((0, 4), "config.model.quantizer.codebook_size is 0; 2 is the least"),
        ((1, 4), "config.model.quantizer.codebook_size is 1; 2 is the least"),
        ((8, 0), "config.model.quantizer.dim is 0; 1 is the least"),
        ((8, 4, "cosine"), "config.model.quantizer.form is 'cosine'; use plain or l2"),
    ],
)
def test_bad_fields(args, message):
    with pytest.raises(UserError, match=message):
        Codebook(*args)
