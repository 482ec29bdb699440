import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.models.quantizers import ResidualQuantizer, VectorQuantizer


def test_each_step_takes_the_nearest_code_of_what_is_left():
    module = ResidualQuantizer(16, 3, num_channels=3, beta=0.25)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((16, 3)).astype(np.float32)
    z = rng.standard_normal((2, 2, 2, 3)).astype(np.float32)
    variables = {"params": {"codebook": {"rows": jnp.asarray(rows)}}}
    out = module.apply(variables, jnp.asarray(z))
    left, total, loss = z.copy(), np.zeros_like(z), 0.0
    for step in range(3):
        distance = np.sum((left[..., None, :] - rows) ** 2, axis=-1)
        np.testing.assert_array_equal(out.ids[..., step], distance.argmin(-1))
        total = total + rows[out.ids[..., step]]
        left = z - total
        loss += 1.25 * np.mean(left**2) / 3
    np.testing.assert_allclose(out.z_q, total, rtol=1e-6)
    np.testing.assert_allclose(out.loss, loss, rtol=1e-5)


def test_one_step_is_plain_vq():
    one = ResidualQuantizer(16, 4, num_channels=1)
    plain = VectorQuantizer(16, 4)
    z = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 3, 4)), jnp.float32)
    variables = plain.init(jax.random.key(0), z)
    jax.tree.map(
        np.testing.assert_array_equal,
        one.apply(variables, z),
        plain.apply(variables, z),
    )


def test_l2_is_refused():
    with pytest.raises(UserError, match="use plain or linear with the quantizer"):
        ResidualQuantizer(16, 4, form="l2")
