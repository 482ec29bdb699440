import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.models.quantizers import LookupFreeQuantizer, search


def apply(z, **fields):
    module = LookupFreeQuantizer(z.shape[-1], **fields)
    return module.apply({}, jnp.asarray(z, jnp.float32))


def draw(bits, shape=(2, 3, 4), scale=0.02):
    return scale * np.random.default_rng(0).standard_normal((*shape, bits))


def test_the_signs_are_the_bits():
    out = apply(np.array([0.5, -2.0, 0.0, 1e-9]).reshape(1, 1, 1, 4))
    np.testing.assert_array_equal(out.z_q.reshape(4), [1, -1, -1, 1])
    assert out.ids.item() == 0b1001


def entropies(z, codes, temperature=0.01):
    scores = 2 * z.reshape(-1, z.shape[-1]) @ codes.T / temperature
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)

    def entropy(p):
        return -np.sum(p * np.log(np.maximum(p, 1e-5)), axis=-1)

    return entropy(p).mean(), entropy(p.mean(axis=0))


@pytest.mark.parametrize("spherical", [False, True])
def test_the_loss_by_hand(spherical):
    z = draw(4)
    size = 0.5 if spherical else 1.0
    inner = z / np.linalg.norm(z, axis=-1, keepdims=True) if spherical else z
    out = apply(z, spherical=spherical)
    bits = (np.arange(16)[:, None] >> np.arange(4)) & 1
    sample, batch = entropies(inner, size * (2 * bits - 1))
    error = np.mean((inner - size * np.where(z > 0, 1, -1)) ** 2)
    np.testing.assert_allclose(
        out.loss, 0.25 * error + 0.02 * (sample - batch), rtol=1e-4
    )
    np.testing.assert_allclose(np.abs(out.z_q), size, rtol=1e-6)


def test_groups_add_their_entropies():
    z = draw(6)
    whole = apply(z, group=3).stats
    parts = [apply(part, group=3).stats for part in np.split(z, 2, axis=-1)]
    for name in ("entropy_sample", "entropy_batch"):
        expected = sum(float(part[name]) for part in parts)
        np.testing.assert_allclose(whole[name], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bits": 0}, "bits is 0; 1 is the least"),
        ({"bits": 31}, "bits is 31; 30 is the most"),
        ({"bits": 10, "group": 3}, "group is 3, but .*bits is 10: give a divisor"),
        ({"bits": 18}, "group is 18, but .*at most 16"),
        ({"bits": 4, "temperature": 0.0}, "temperature is 0; it must be above 0"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(UserError, match=message):
        LookupFreeQuantizer(**fields)


def test_codes_go_by_in_chunks(monkeypatch):
    z = jnp.asarray(draw(6), jnp.float32)

    def loss(z):
        out = LookupFreeQuantizer(6).apply({}, z)
        return out.loss + out.stats["entropy_batch"]

    whole = jax.value_and_grad(loss)(z)
    monkeypatch.setattr(search, "MIN_CHUNK", 4)
    monkeypatch.setattr(search, "CHUNK_BYTES", 4)
    text = jax.jit(jax.grad(lambda z: loss(z) + 0.0)).lower(z).as_text()
    assert "x24x64xf32" not in text and "x24x4xf32" in text
    parts = jax.value_and_grad(lambda z: loss(z) + 0.0)(z)
    np.testing.assert_allclose(whole[0], parts[0], rtol=1e-5)
    np.testing.assert_allclose(whole[1], parts[1], rtol=1e-4, atol=3e-5)
