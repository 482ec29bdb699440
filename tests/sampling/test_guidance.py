import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.sampling.guidance import guidance_scales, guided


def test_schedules_by_hand():
    np.testing.assert_allclose(guidance_scales(3, {"name": "constant"}, 4), [3] * 4)
    linear = guidance_scales(3, {"name": "linear"}, 4)
    np.testing.assert_allclose(linear, [0, 1, 2, 3])
    cosine = guidance_scales(2, {"name": "power_cosine", "power": 1.0}, 4)
    np.testing.assert_allclose(cosine, 1 - np.cos(np.pi * np.arange(4) / 4), rtol=1e-6)
    cosine = guidance_scales(2, {"name": "power_cosine", "power": 3.0}, 4)
    np.testing.assert_allclose(cosine[2], 1 - np.cos(np.pi / 8), rtol=1e-6)
    assert guidance_scales(2, {"name": "linear"}, 1).shape == (1,)


def test_the_formula_and_codes_that_do_not_exist():
    c, u = jnp.asarray([[1.0, -2.0, -1e30]]), jnp.asarray([[0.5, 3.0, -1e30]])
    result = guided(jnp.stack([c, u]), jnp.float32(1e9))
    assert np.isfinite(result).all() and result[0, 2] == np.float32(-1e30)
    result = guided(jnp.stack([c, u]), jnp.float32(2))
    np.testing.assert_allclose(result[0, :2], 3 * c[0, :2] - 2 * u[0, :2])
    np.testing.assert_array_equal(guided(c[None], 7.0), c)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"name": "cosine"}, "did you mean 'power_cosine'"),
        ({"name": "power_cosine", "power": -1.0}, "guidance_schedule.power is -1.0"),
    ],
)
def test_bad_schedules(schedule, words):
    with pytest.raises(UserError, match=words):
        guidance_scales(1.0, schedule, 4)
