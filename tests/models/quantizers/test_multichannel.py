import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from movq_jax.models.quantizers import (
    MultichannelQuantizer,
    VectorQuantizer,
)

K, DIM = 24, 5


def draw(depth, dtype=jnp.float32, shape=(8, 3, 2)):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.standard_normal((*shape, depth)), dtype)


@pytest.fixture
def codebook():
    return jnp.asarray(np.random.default_rng(1).standard_normal((K, DIM), np.float32))


def quantize(module, codebook, z, method=None):
    return jax.jit(module.apply, static_argnames="method")(
        {"params": {"codebook": {"rows": codebook}}}, z, method=method
    )


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_each_chunk_becomes_the_nearest_code_of_the_one_book(channels, codebook):
    module = MultichannelQuantizer(K, DIM, num_channels=channels)
    z = draw(module.latent_channels)
    out = quantize(module, codebook, z)
    assert out.ids.shape == (8, 3, 2, channels) and out.ids.dtype == jnp.int32
    for m in range(channels):
        chunk = np.asarray(z, np.float64)[..., m * DIM : (m + 1) * DIM]
        distances = np.sum((chunk[..., None, :] - np.asarray(codebook)) ** 2, axis=-1)
        np.testing.assert_array_equal(out.ids[..., m], distances.argmin(-1))
        quantised = out.z_q[..., m * DIM : (m + 1) * DIM]
        np.testing.assert_array_equal(quantised, codebook[out.ids[..., m]])


@pytest.mark.parametrize("channels", [1, 4])
def test_codes_and_ids_go_back_and_forth(channels, codebook):
    module = MultichannelQuantizer(K, DIM, num_channels=channels)
    shape = (2, 3, 5, channels)
    ids = np.random.default_rng(2).integers(0, K, shape, dtype=np.int32)
    z_q = quantize(module, codebook, ids, method="codes")
    assert z_q.shape == (2, 3, 5, channels * DIM) and z_q.dtype == jnp.float32
    out = quantize(module, codebook, z_q)
    np.testing.assert_array_equal(out.ids, ids)
    np.testing.assert_array_equal(out.z_q, z_q)
    assert float(out.loss) == 0 and not np.any(out.stats["quantisation_mse"])


def test_there_is_one_codebook_whatever_the_channels():
    for channels in (1, 4):
        module = MultichannelQuantizer(K, DIM, num_channels=channels)
        variables = module.init(
            jax.random.key(0), jnp.zeros((1, 1, 1, module.latent_channels))
        )
        assert jax.tree.map(jnp.shape, variables) == {
            "params": {"codebook": {"rows": (K, DIM)}}
        }


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_one_channel_is_plain_vq_bit_for_bit(dtype, codebook):
    z = draw(DIM, dtype)
    plain = quantize(VectorQuantizer(K, DIM), codebook, z)
    multi = quantize(MultichannelQuantizer(K, DIM, num_channels=1), codebook, z)
    jax.tree.map(np.testing.assert_array_equal, plain, multi)


def test_bfloat16_latents_are_quantised_in_float32(codebook):
    module = MultichannelQuantizer(K, DIM, num_channels=2)
    z = draw(module.latent_channels, jnp.bfloat16)
    out = quantize(module, codebook, z)
    jax.tree.map(
        np.testing.assert_array_equal, out, quantize(module, codebook, z.astype("f4"))
    )
    assert out.z_q.dtype == out.loss.dtype == jnp.float32


@pytest.mark.parametrize("legacy", [False, True])
def test_the_gradients_go_where_they_belong(legacy, codebook):
    """The loss' two terms; from the image, straight through, and not to the codes."""
    module = MultichannelQuantizer(K, DIM, num_channels=2, beta=0.25, legacy=legacy)
    z = draw(module.latent_channels)
    target = draw(module.latent_channels, shape=(8, 3, 2)) ** 2

    def parts(codebook, z):
        out = module.apply({"params": {"codebook": {"rows": codebook}}}, z)
        return out.loss, jnp.vdot(out.z_q, target)

    to_codes, to_z = jax.grad(lambda *a: parts(*a)[1], argnums=(0, 1))(codebook, z)
    assert not np.any(to_codes)
    np.testing.assert_allclose(to_z, target, rtol=1e-6)

    to_codes, to_z = jax.grad(lambda *a: parts(*a)[0], argnums=(0, 1))(codebook, z)
    out = quantize(module, codebook, z)
    of_the_mean = 2 * np.asarray(z - out.z_q) / z.size
    commitment, book = (1.0, 0.25) if legacy else (0.25, 1.0)
    np.testing.assert_allclose(to_z, commitment * of_the_mean, rtol=1e-4, atol=1e-8)
    expected = np.zeros((K, DIM))
    np.add.at(expected, out.ids, -book * of_the_mean.reshape(*out.ids.shape, DIM))
    np.testing.assert_allclose(to_codes, expected, rtol=1e-4, atol=1e-7)
    unused = np.setdiff1d(np.arange(K), out.ids)
    assert len(unused) and not np.any(np.asarray(to_codes)[unused])


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e18])
def test_equal_latents_and_equal_codes_give_numbers(value):
    module = MultichannelQuantizer(K, DIM, num_channels=2)
    z = jnp.full((2, 2, 2, module.latent_channels), value)
    codebook = jnp.full((K, DIM), 0.5)

    def loss(codebook, z):
        out = module.apply({"params": {"codebook": {"rows": codebook}}}, z)
        return out.loss, out

    gradients, out = jax.grad(loss, argnums=(0, 1), has_aux=True)(codebook, z)
    assert not np.any(out.ids)
    for x in jax.tree.leaves((gradients, out)):
        assert np.all(np.isfinite(x))


def test_eight_devices_are_one(codebook):
    module = MultichannelQuantizer(K, DIM, num_channels=2)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    z = draw(module.latent_channels)
    one = quantize(module, codebook, z)
    on_devices = jax.device_put(z, NamedSharding(mesh, PartitionSpec("data")))
    everywhere = jax.device_put(codebook, NamedSharding(mesh, PartitionSpec()))
    params = {"params": {"codebook": {"rows": everywhere}}}
    compiled = jax.jit(module.apply).lower(params, on_devices).compile()
    eight = compiled(params, on_devices)
    assert "all-gather" not in compiled.as_text()
    np.testing.assert_array_equal(one.ids, eight.ids)
    np.testing.assert_array_equal(one.z_q, eight.z_q)
    np.testing.assert_allclose(one.loss, eight.loss, rtol=1e-6)
