import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.models.quantizers import FiniteScalarQuantizer


def test_levels_multiply_and_index_zero_is_the_lowest():
    module = FiniteScalarQuantizer((8, 5, 3))
    assert module.codebook_size == 120 and module.latent_channels == 3
    codes = np.asarray(module.apply({}, jnp.arange(120)[:, None], method="codes"))
    assert len(np.unique(codes, axis=0)) == 120
    np.testing.assert_array_equal(codes[0], [-1, -1, -1])
    np.testing.assert_allclose(codes[1], [-0.75, -1, -1])  # channel 0 counts 1
    np.testing.assert_allclose(codes[8], [-1, -0.5, -1])  # channel 1 counts 8
    np.testing.assert_array_equal(codes[-1], [0.75, 1, 1])


def test_the_formula_by_hand():
    z = np.array([0.3, -1.2], np.float32)
    module = FiniteScalarQuantizer((4, 5))
    out = module.apply({}, jnp.asarray(z).reshape(1, 1, 1, 2))
    half = np.array([3, 4]) * 1.001 / 2
    offset = np.array([0.5, 0])
    digits = np.round(np.tanh(z + np.arctanh(offset / half)) * half - offset)
    np.testing.assert_allclose(out.z_q.reshape(2), digits / 2)
    assert int(out.ids.item()) == int(digits[0] + 2 + 4 * (digits[1] + 2))


def test_every_code_is_reached():
    grid = np.linspace(-6, 6, 200)
    z = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(1, 200, 200, 2)
    out = FiniteScalarQuantizer((7, 6)).apply({}, jnp.asarray(z, jnp.float32))
    assert len(np.unique(out.ids)) == 42


def test_indices_above_bfloat16s_reach_are_exact():
    module = FiniteScalarQuantizer((8, 8, 8, 5, 5, 5))
    ids = jnp.arange(63_000, 64_000, dtype=jnp.int32).reshape(1, 10, 100, 1)
    codes = module.apply({}, ids, method="codes")
    assert len(np.unique(np.asarray(codes).reshape(1000, 6), axis=0)) == 1000


@pytest.mark.parametrize("levels", [(), (8, 1), (2.0,), 8, (1024, 1024, 1024, 4)])
def test_bad_levels(levels):
    with pytest.raises(UserError, match="config.model.quantizer.levels is"):
        FiniteScalarQuantizer(levels)
