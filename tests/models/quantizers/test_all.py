"""What every quantizer must do, whatever it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from movq_jax import families
from movq_jax.models.quantizers import QUANTIZERS, search

BOOK = {"codebook_size": 24, "dim": 6}
DUAL = {"name": "dual", "codebook_size": (24, 16), "dim": (8, 4)}
TRANSFORMER = {"depth": 2, "heads": 2, "ffn": 16}
ALL = {
    "vq": {"name": "vq", **BOOK},
    "vq, legacy": {"name": "vq", **BOOK, "legacy": True},
    "vq, l2": {"name": "vq", **BOOK, "form": "l2"},
    "vq, linear": {"name": "vq", **BOOK, "form": "linear"},
    "vq, rotation": {"name": "vq", **BOOK, "estimator": "rotation"},
    "multichannel": {"name": "multichannel", "num_channels": 2, **BOOK},
    "multichannel, l2": {"name": "multichannel", **BOOK, "form": "l2"},
    "residual": {"name": "residual", "num_channels": 3, **BOOK},
    "residual, linear": {"name": "residual", **BOOK, "form": "linear"},
    "dual": {**DUAL, **TRANSFORMER},
    "dual, last": {**DUAL, **TRANSFORMER, "global_half": "last"},
    "dual, rotation": {**DUAL, **TRANSFORMER, "estimator": "rotation"},
    "dual, depth 0": {**DUAL, "depth": 0},
    "dual, depth 0, l2": {**DUAL, "depth": 0, "form": "l2"},
    "fsq": {"name": "fsq", "levels": (8, 5, 3)},
    "lfq": {"name": "lfq", "bits": 6},
    "lfq, groups": {"name": "lfq", "bits": 6, "group": 3},
    "lfq, spherical": {"name": "lfq", "bits": 6, "spherical": True},
}
WITH_BOOKS = [name for name in ALL if "fq" not in name and "fsq" not in name]
every = pytest.mark.parametrize("kind", ALL)


def make(kind):
    return families.make(QUANTIZERS, ALL[kind], "config.model.quantizer")


def draw(module, dtype=jnp.float32, shape=(8, 3, 2), scale=1.0):
    rng = np.random.default_rng(0)
    z = scale * rng.standard_normal((*shape, module.latent_channels))
    return jnp.asarray(z, dtype)


def variables_of(module):
    """Parameters whose codes are spread like the latents of `draw`."""
    variables = module.init(jax.random.key(0), draw(module))
    rng = np.random.default_rng(1)

    def spread(path, leaf):
        if path[-1].key != "rows":
            return leaf
        return jnp.asarray(rng.standard_normal(leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(spread, variables)


def apply(module, variables, *args, method=None):
    run = jax.jit(lambda v, *args: module.apply(v, *args, method=method))
    return run(variables, *args)


@every
def test_shapes_and_types(kind):
    module = make(kind)
    out = apply(module, variables_of(module), draw(module))
    assert out.z_q.shape == (8, 3, 2, module.latent_channels)
    assert out.ids.shape == (8, 3, 2, module.num_channels)
    assert out.ids.dtype == jnp.int32
    assert out.z_q.dtype == out.loss.dtype == jnp.float32 and out.loss.shape == ()
    assert out.stats["quantisation_mse"].shape == (8,)
    assert len(module.codebook_sizes) == len(module.channel_books)
    assert len(module.codebook_sizes) == module.num_channels
    for channel, size in enumerate(module.codebook_sizes):
        ids = np.asarray(out.ids[..., channel])
        assert ids.min() >= 0 and ids.max() < size and len(np.unique(ids)) > 1


@every
def test_ids_become_the_codes_of_the_forward_pass_bit_for_bit(kind):
    module = make(kind)
    variables = variables_of(module)
    out = apply(module, variables, draw(module))
    z_q = apply(module, variables, out.ids, method="codes")
    np.testing.assert_array_equal(z_q, out.z_q)


@every
def test_ids_come_back_from_their_codes(kind):
    """For residual codes the first ones may be others: the sum has to be the same."""
    module = make(kind)
    variables = variables_of(module)
    rng = np.random.default_rng(2)
    sizes = module.codebook_sizes
    ids = np.stack([rng.integers(0, size, (2, 5, 7)) for size in sizes], axis=-1)
    z_q = apply(module, variables, jnp.asarray(ids, jnp.int32), method="codes")
    latents = z_q
    if kind == "fsq":  # a code lies behind the tanh that bounds the latents
        levels = np.asarray(module.levels)
        half = (levels - 1) * 1.001 / 2
        offset = np.where(levels % 2 == 0, 0.5, 0.0)
        inner = (np.asarray(z_q) * (levels // 2) + offset) / half
        latents = jnp.asarray(np.arctanh(inner) - np.arctanh(offset / half))
    out = apply(module, variables, latents.astype(jnp.float32))
    if "residual" in kind:
        assert np.mean(out.stats["quantisation_mse"]) < np.mean(np.square(z_q))
    else:
        np.testing.assert_array_equal(out.ids, ids)


@every
def test_bfloat16_latents_are_quantised_in_float32(kind):
    module = make(kind)
    variables, z = variables_of(module), draw(module, jnp.bfloat16)
    out = apply(module, variables, z)
    same = apply(module, variables, z.astype(jnp.float32))
    jax.tree.map(np.testing.assert_array_equal, out, same)


@every
def test_the_image_reaches_the_latents_and_not_the_codes(kind):
    module = make(kind)
    variables, z = variables_of(module), draw(module)
    target = jnp.asarray(np.random.default_rng(3).standard_normal(z.shape), jnp.float32)

    def image(variables, z):
        return jnp.vdot(module.apply(variables, z).z_q, target)

    to_codes, to_z = jax.jit(jax.grad(image, argnums=(0, 1)))(variables, z)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(to_codes))
    assert np.all(np.isfinite(to_z)) and np.any(to_z)
    if kind in ("vq", "multichannel", "residual", "dual", "dual, depth 0", "lfq"):
        np.testing.assert_allclose(to_z, target, rtol=1e-6)


@every
def test_the_loss_trains_latents_and_what_is_trainable(kind):
    module = make(kind)
    variables, z = variables_of(module), draw(module)

    def loss(variables, z):
        return module.apply(variables, z).loss

    to_params, to_z = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables, z)
    assert np.any(to_z) == (kind != "fsq")
    flat = jax.tree_util.tree_leaves_with_path(to_params)
    for path, gradient in flat:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.all(np.isfinite(gradient)), name
        frozen = "linear" in kind and name.endswith("rows")
        # Of the fused projection's bias the part of the keys cancels in the softmax.
        assert np.any(gradient) != frozen, name


@every
@pytest.mark.parametrize("value", [0.0, 1e-30, 3.0, 1e6])
def test_equal_latents_give_numbers(kind, value):
    module = make(kind)
    variables = variables_of(module)
    z = jnp.full((2, 2, 2, module.latent_channels), value)

    def loss(variables, z):
        out = module.apply(variables, z)
        return out.loss + jnp.sum(out.z_q), out

    results = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(variables, z)
    for leaf in jax.tree.leaves(results):
        assert np.all(np.isfinite(leaf))


@every
def test_eight_devices_are_one(kind):
    module = make(kind)
    variables, z = variables_of(module), draw(module)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    run = jax.jit(module.apply)
    one = run(variables, z)
    eight = run(
        jax.device_put(variables, NamedSharding(mesh, PartitionSpec())),
        jax.device_put(z, NamedSharding(mesh, PartitionSpec("data"))),
    )
    np.testing.assert_array_equal(one.ids, eight.ids)
    np.testing.assert_allclose(one.z_q, eight.z_q, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(one.loss, eight.loss, rtol=1e-5)


@pytest.mark.parametrize("kind", WITH_BOOKS)
def test_a_search_in_chunks_is_the_same(kind, monkeypatch):
    module = make(kind)
    variables, z = variables_of(module), draw(module)
    whole = apply(module, variables, z)
    monkeypatch.setattr(search, "CHUNK_BYTES", 4 * 48 * 5)
    monkeypatch.setattr(search, "MIN_CHUNK", 5)
    chunked = apply(module, variables, z)
    np.testing.assert_array_equal(whole.ids, chunked.ids)


@pytest.mark.parametrize("kind", WITH_BOOKS)
def test_the_features_and_their_ids_are_those_of_the_forward_pass(kind):
    module = make(kind)
    variables, z = variables_of(module), draw(module)
    out = apply(module, variables, z)
    found = apply(module, variables, z, out.ids, method="assigned")
    codes = apply(module, variables, method="codes_in_effect")
    assert set(found) == set(codes) == set(module.channel_books)
    for book, (features, ids) in found.items():
        distance = np.sum(
            (np.asarray(features)[:, None] - np.asarray(codes[book])) ** 2, axis=-1
        )
        chosen = np.take_along_axis(distance, np.asarray(ids)[:, None], axis=1)[:, 0]
        np.testing.assert_allclose(chosen, distance.min(axis=1), rtol=1e-4, atol=1e-4)
    assert set(module.ruled_books) <= set(found)


@pytest.mark.parametrize("kind", WITH_BOOKS)
def test_codes_that_are_cached_are_used(kind):
    """What `load` does: codes in effect are computed once."""
    module = make(kind)
    variables, z = variables_of(module), draw(module)
    codes = apply(module, variables, method="codes_in_effect")
    cache = {book: {"codes": array} for book, array in codes.items()}
    plain = apply(module, variables, z)
    cached = apply(module, {**variables, "cache": cache}, z)
    np.testing.assert_array_equal(plain.ids, cached.ids)
    np.testing.assert_allclose(plain.z_q, cached.z_q, rtol=1e-6, atol=1e-6)
    flipped = {book: {"codes": -array} for book, array in codes.items()}
    other = apply(module, {**variables, "cache": flipped}, z)
    assert np.any(other.ids != plain.ids)
