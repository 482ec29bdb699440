import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from movq_jax.models.quantizers import search
from movq_jax.models.quantizers.search import nearest_code


def brute_force(z, codebook):
    """Return the ids [N] of the nearest codes, and all distances [N, K], in float64."""
    z, codebook = np.asarray(z, np.float64), np.asarray(codebook, np.float64)
    distances = np.sum((z[:, None] - codebook[None]) ** 2, axis=-1)
    return distances.argmin(axis=-1), distances


def draw(rows, codes, depth, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((rows, depth), dtype=np.float32)
    codebook = rng.standard_normal((codes, depth), dtype=np.float32)
    return jnp.asarray(z), jnp.asarray(scale * codebook)


def assert_nearest(ids, z, codebook):
    """Equal to the brute force, but for codes that float32 cannot tell apart."""
    expected, distances = brute_force(z, codebook)
    rows = np.arange(len(distances))
    least = distances[rows, expected]
    assert np.all(distances[rows, ids] - least <= 1e-5 * (1 + least))
    assert np.mean(ids != expected) <= 1e-3


@pytest.mark.parametrize("chunk", [None, 7, 32])
@pytest.mark.parametrize("scale", [1.0, 1 / 96])  # as trained, and as initialised
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_it_is_the_brute_forces(dtype, scale, chunk):
    z, codebook = draw(2000, 96, 8, scale)
    z = z.astype(dtype)
    ids = np.asarray(nearest_code(z, codebook, chunk))
    assert ids.dtype == np.int32 and ids.shape == (2000,)
    assert_nearest(ids, z, codebook)  # of z's own values: rounded, if bfloat16


def test_bfloat16_codes_are_compared_in_float32():
    z, codebook = draw(500, 96, 8)
    z, codebook = z.astype(jnp.bfloat16), codebook.astype(jnp.bfloat16)
    assert_nearest(np.asarray(nearest_code(z, codebook)), z, codebook)


@pytest.mark.parametrize("chunk", [None, 8])
def test_the_product_is_asked_for_in_full_precision(chunk):
    """The default is TF32 on a GPU and bfloat16 on a TPU; a CPU never shows it."""
    z = jnp.zeros((16, 4), jnp.bfloat16)
    searched = jax.jit(nearest_code, static_argnums=2)
    products = [
        line
        for line in searched.lower(z, jnp.zeros((32, 4)), chunk).as_text().splitlines()
        if "dot_general" in line
    ]
    assert products
    for line in products:
        assert "precision = [HIGHEST, HIGHEST]" in line
        assert "bf16" not in line


@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 6])
def test_of_equal_codes_the_first_wins(chunk):
    codebook = jnp.asarray([[9.0, 9], [1, 0], [1, 0], [0, 1], [1, 0], [0, 1]])
    z = jnp.asarray([[2.0, 0], [0, 3], [0.5, 0.5], [8, 8]])
    assert nearest_code(z, codebook, chunk).tolist() == [1, 3, 1, 0]
    same = jnp.ones((6, 2))
    assert nearest_code(z, same, chunk).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("chunk", [1, 10, 33, 99, 100, 1000])
def test_chunks_change_nothing(chunk):
    z, codebook = draw(300, 100, 5)
    whole = nearest_code(z, codebook, 100)
    np.testing.assert_array_equal(nearest_code(z, codebook, chunk), whole)


def test_above_the_limit_distances_are_never_held_at_once(monkeypatch):
    z, codebook = draw(64, 40, 3)
    whole = nearest_code(z, codebook)
    monkeypatch.setattr(search, "CHUNK_BYTES", 4 * 64 * 8)
    monkeypatch.setattr(search, "MIN_CHUNK", 1)
    text = jax.jit(lambda *a: nearest_code(*a)).lower(z, codebook).as_text()
    assert "tensor<64x8xf32>" in text and "tensor<64x40xf32>" not in text
    np.testing.assert_array_equal(nearest_code(z, codebook), whole)


def test_a_large_book_and_a_large_batch_fit():
    """64 images of 32x32 positions against 16384 codes: 4.3 GB if held at once."""
    z = jax.ShapeDtypeStruct((64 * 32 * 32, 8), jnp.float32)
    codebook = jax.ShapeDtypeStruct((16384, 8), jnp.float32)
    compiled = jax.jit(lambda *a: nearest_code(*a)).lower(z, codebook).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.4e9


@pytest.mark.parametrize("chunk", [None, 8])
def test_rows_stay_on_their_devices(chunk):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    z, codebook = draw(128, 40, 4)
    searched = jax.jit(nearest_code, static_argnums=2)
    whole = searched(z, codebook, chunk)
    on_devices = jax.device_put(z, rows)
    everywhere = jax.device_put(codebook, NamedSharding(mesh, PartitionSpec()))
    compiled = searched.lower(on_devices, everywhere, chunk).compile()
    ids = compiled(on_devices, everywhere)
    np.testing.assert_array_equal(ids, whole)
    assert ids.sharding.is_equivalent_to(rows, ids.ndim)
    assert "all-gather" not in compiled.as_text()
