import jax
import jax.numpy as jnp
import numpy as np

from movq_jax.models.pixels import from_uint8, to_uint8


def test_every_value_comes_back():
    values = jnp.arange(256, dtype=jnp.uint8)
    x = from_uint8(values)
    assert x.dtype == jnp.float32
    assert float(x[0]) == -1 and float(x[255]) == 1
    np.testing.assert_allclose(x, np.arange(256) / 127.5 - 1, rtol=2e-7)
    np.testing.assert_array_equal(to_uint8(x), values)


def test_compiling_changes_no_bit():
    values = jnp.arange(256, dtype=jnp.uint8)
    np.testing.assert_array_equal(jax.jit(from_uint8)(values), from_uint8(values))


def test_the_range_is_clipped_and_the_rest_rounded():
    x = jnp.asarray([-9.0, -1.001, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 1.2])
    assert to_uint8(x).tolist() == [0, 0, 0, 1, 255]
    assert to_uint8(x).dtype == jnp.uint8
