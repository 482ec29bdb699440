import jax
import jax.numpy as jnp
import numpy as np
import pytest

import movq_jax
from movq_jax.errors import UserError
from movq_jax.models.pixels import from_uint8, to_uint8
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.bundle import read_bundle


@pytest.fixture(scope="module")
def tok(tiny_bundle):
    return movq_jax.load(tiny_bundle)


@pytest.fixture(scope="module")
def in_twos(tiny_bundle):
    return movq_jax.load(tiny_bundle / "model", micro_batch=2)


def images(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_what_a_tokenizer_tells_of_itself(tok, tiny_bundle, tiny_movq):
    assert (tok.factor, tok.codebook_size, tok.num_channels) == (4, 32, 2)
    assert tok.micro_batch == 1  # on a CPU
    assert tok.config == tiny_movq and tok.protocol == {"weights": "random"}
    assert tok.fingerprint == read_bundle(tiny_bundle).fingerprint
    assert repr(tok) == (
        f"PretrainedTokenizer(factor=4, K=32, M=2, fingerprint={tok.fingerprint[:12]})"
    )


def test_there_and_back(in_twos):
    x = images(3, 12, 8)
    ids = in_twos.encode(x)
    assert type(ids) is np.ndarray and ids.dtype == np.int32
    assert ids.shape == (3, 3, 2, 2)
    assert 0 <= ids.min() and ids.max() < 32 and len(np.unique(ids)) > 5
    for dtype in ("uint8", "float32"):
        decoded = in_twos.decode(ids, dtype=dtype)
        assert type(decoded) is np.ndarray and decoded.dtype == dtype
        assert decoded.shape == x.shape
    assert decoded.min() >= -1 and decoded.max() <= 1
    np.testing.assert_array_equal(
        in_twos.decode(ids), np.asarray(to_uint8(jnp.asarray(decoded)))
    )


def test_it_is_the_modules_forward_pass_bit_for_bit(in_twos, tiny_bundle):
    bundle = read_bundle(tiny_bundle)
    module = build_tokenizer(bundle.model)
    x = images(2, 12, 8)
    out = jax.jit(module.apply)({"params": bundle.params}, from_uint8(jnp.asarray(x)))
    ids = in_twos.encode(x)
    np.testing.assert_array_equal(ids, out.quantized.ids)
    x_hat = in_twos.decode(ids, dtype="float32")
    np.testing.assert_array_equal(x_hat, np.clip(out.x_hat, -1, 1))


def test_the_same_pixels_give_the_same_ids(in_twos):
    x = images(2, 12, 8)
    ids = in_twos.encode(x)
    np.testing.assert_array_equal(in_twos.encode(from_uint8(jnp.asarray(x))), ids)
    in_float32 = x / np.float32(127.5) - 1
    np.testing.assert_array_equal(in_twos.encode(in_float32), ids)
    in_float64 = x / 127.5 - 1
    np.testing.assert_array_equal(in_twos.encode(in_float64), ids)
    assert in_twos.encode(in_float32.astype(jnp.bfloat16)).shape == ids.shape


def test_an_image_does_not_depend_on_those_beside_it(in_twos):
    """At a given micro-batch, also where the last one has to be filled."""
    x = images(5, 12, 8)
    together = in_twos.encode(x)
    decoded = in_twos.decode(together, dtype="float32")
    for i in range(5):
        alone = in_twos.encode(x[i : i + 1])
        np.testing.assert_array_equal(alone, together[i : i + 1])
        image = in_twos.decode(alone, dtype="float32")
        np.testing.assert_array_equal(image, decoded[i : i + 1])


def test_other_micro_batches_agree_closely(tok, in_twos):
    x = images(5, 12, 8)
    ids = tok.encode(x)
    assert np.mean(ids == in_twos.encode(x)) > 0.98
    one_by_one = tok.decode(ids, dtype="float32")
    np.testing.assert_allclose(
        one_by_one, in_twos.decode(ids, dtype="float32"), atol=1e-5
    )


def test_indices_of_any_integer_type(tok):
    ids = np.random.default_rng(0).integers(0, 32, (1, 3, 2, 2))
    expected = tok.decode(ids.astype(np.int32))
    for dtype in (np.uint8, np.int16, np.int64, np.uint64):
        np.testing.assert_array_equal(tok.decode(ids.astype(dtype)), expected)
    np.testing.assert_array_equal(tok.decode(jnp.asarray(ids, "int32")), expected)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (images(12, 8), r"images must be \[B, H, W, 3\], not \[12, 8, 3\]"),
        (images(1, 8, 8)[..., :1], r"not \[1, 8, 8, 1\]"),
        (images(0, 8, 8), r"not \[0, 8, 8, 3\]"),
        (images(1, 0, 8), r"not \[1, 0, 8, 3\]"),
        (images(1, 8, 10), "images are 8x10; both sides must be multiples of 4"),
        (images(1, 9, 8), "images are 9x8; both sides must be multiples of 4"),
        (images(1, 8, 8).astype(np.int32), "must be uint8 or float, not int32"),
        (images(1, 8, 8) > 9, "must be uint8 or float, not bool"),
        (images(1, 8, 8).astype(np.float32), r"must lie in \[-1, 1\], these span"),
        (np.full((1, 4, 4, 3), 1.01), r"these span 1.01 to 1.01"),
        (np.full((1, 4, 4, 3), np.nan), r"these span nan to nan"),
        (np.full((1, 4, 4, 3), -np.inf, np.float32), r"these span -inf to -inf"),
    ],
)
def test_images_that_are_refused(tok, x, message):
    with pytest.raises(UserError, match=message):
        tok.encode(x)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.zeros((2, 2, 2), int), r"ids must be \[B, h, w, 2\], not \[2, 2, 2\]"),
        (np.zeros((1, 2, 2, 4), int), r"not \[1, 2, 2, 4\]"),
        (np.zeros((1, 0, 2, 2), int), r"not \[1, 0, 2, 2\]"),
        (np.zeros((1, 2, 2, 2)), "ids must be integers, not float64"),
        (np.full((1, 2, 2, 2), 32), r"must lie in 0..31 in channel 0 .* span 32..32"),
        (np.full((1, 2, 2, 2), -1), r"must lie in 0..31 in channel 0 .* span -1..-1"),
        (np.full((1, 2, 2, 2), 2**32), r"these span 4294967296..4294967296"),
        (np.full((1, 2, 2, 2), 255, np.uint8), r"were they made by another model?"),
    ],
)
def test_indices_that_are_refused(tok, ids, message):
    with pytest.raises(UserError, match=message):
        tok.decode(ids)


def test_other_results_are_refused(tok):
    with pytest.raises(UserError, match="'uint8' or 'float32' images, not 'int8'"):
        tok.decode(np.zeros((1, 1, 1, 2), int), dtype="int8")


def test_a_micro_batch_of_nothing_is_refused(tiny_bundle):
    with pytest.raises(UserError, match="micro_batch is 0; it must be at least 1"):
        movq_jax.load(tiny_bundle, micro_batch=0)
    for value in (2.0, "2", True):
        with pytest.raises(UserError, match="micro_batch is .*; give a whole number"):
            movq_jax.load(tiny_bundle, micro_batch=value)
