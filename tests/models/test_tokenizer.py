from functools import cache
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.config import load_config
from movq_jax.errors import UserError
from movq_jax.models.tokenizer import build_tokenizer

CONFIGS = Path(__file__).parents[2] / "configs"


def images(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(-1, 1, (*shape, 3)), jnp.float32)


def apply(tokenizer, params, x, method=None):
    return compiled(tokenizer, method)({"params": params}, x)


@cache
def compiled(tokenizer, method):
    return jax.jit(lambda variables, x: tokenizer.apply(variables, x, method=method))


def full_size(spec):
    """The tokenizer of a shipped config, and the shapes of its parameters."""
    tokenizer = build_tokenizer(load_config(f"{CONFIGS}/{spec}").model)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return tokenizer, jax.eval_shape(tokenizer.init, jax.random.key(0), x)["params"]


@pytest.mark.parametrize(
    ("spec", "parameters", "grid"),
    [
        ("movq_imagenet.py", 78_261_123, (16, 16, 4)),
        ("movq_ffhq.py", 78_261_123, (16, 16, 4)),
        ("vqgan_imagenet.py", 72_141_699, (16, 16, 1)),
        ("vqgan_ffhq.py", 72_141_699, (16, 16, 1)),
        ("movq_f8.py:67m", 67_832_495, (32, 32, 1)),
        ("movq_f8.py:102m", 101_614_255, (32, 32, 1)),
        ("movq_f8.py:270m", 270_669_103, (32, 32, 1)),
    ],
)
def test_the_published_sizes(spec, parameters, grid):
    tokenizer, params = full_size(spec)
    assert sum(x.size for x in jax.tree.leaves(params)) == parameters
    x = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    encode = jax.eval_shape(compiled(tokenizer, "encode"), {"params": params}, x)
    assert encode.shape == (2, *grid) and encode.dtype == jnp.int32
    assert tokenizer.num_channels == grid[2] and tokenizer.factor == 256 // grid[0]
    decode = jax.eval_shape(
        compiled(tokenizer, "decode_ids"), {"params": params}, encode
    )
    assert decode.shape == x.shape and decode.dtype == jnp.float32


def test_every_norm_of_the_decoder_is_modulated_and_none_of_the_encoder():
    _, params = full_size("movq_imagenet.py")
    paths = flax.traverse_util.flatten_dict(params)
    norms = {path[:-2] for path in paths if path[-1] == "scale"}
    modulated = {path[:-2] for path in paths if path[-2] == "conv_y"}
    assert modulated == {path for path in norms if path[0] == "decoder"}
    assert len(modulated) == 39
    assert params["quantize"]["codebook"].shape == (1024, 64)


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (20, 4), (36, 52)])
def test_any_size_that_the_factor_divides(tiny_movq, size):
    tokenizer = build_tokenizer(tiny_movq)
    assert (tokenizer.factor, tokenizer.num_channels) == (4, 2)
    assert tokenizer.codebook_size == 32
    x = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    out, _ = jax.eval_shape(tokenizer.init_with_output, jax.random.key(0), x)
    grid = (2, size[0] // 4, size[1] // 4)
    assert out.x_hat.shape == x.shape and out.x_hat.dtype == jnp.float32
    assert out.z.shape == out.quantized.z_q.shape == (*grid, 8)
    assert out.quantized.ids.shape == (*grid, 2)


@pytest.mark.parametrize(
    ("quantizer", "norm", "dtype"),
    [
        ("multichannel", "spatial", "float32"),
        ("multichannel", "spatial", "bfloat16"),
        ("vq", "group", "float32"),
    ],
)
def test_ids_to_image_is_the_forward_pass_bit_for_bit(
    tiny_movq, fill, quantizer, norm, dtype
):
    tiny_movq["quantizer"] = {"name": quantizer, "codebook_size": 32, "dim": 4}
    tokenizer = build_tokenizer(
        tiny_movq | {"dtype": dtype, "decoder_norm": {"name": norm}}
    )
    x = images(2, 16, 24)
    params = fill(tokenizer, x)
    out = apply(tokenizer, params, x)
    ids = apply(tokenizer, params, x, "encode")
    np.testing.assert_array_equal(ids, out.quantized.ids)
    assert len(np.unique(ids)) > 5
    x_hat = apply(tokenizer, params, ids, "decode_ids")
    np.testing.assert_array_equal(x_hat, out.x_hat)


def test_bfloat16_is_for_the_products_alone(tiny_movq, fill):
    tiny_movq["multipliers"] = [1, 2]
    single = build_tokenizer(tiny_movq)
    half = build_tokenizer(tiny_movq | {"dtype": "bfloat16"})
    x = images(2, 16, 16)
    params = jax.eval_shape(half.init, jax.random.key(0), x)["params"]
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    params = fill(half, x)
    out, reference = apply(half, params, x), apply(single, params, x)
    assert out.z.dtype == jnp.bfloat16
    assert out.x_hat.dtype == out.quantized.z_q.dtype == jnp.float32
    assert out.quantized.ids.dtype == jnp.int32
    assert out.quantized.loss.dtype == jnp.float32
    assert np.all(np.isfinite(out.x_hat))
    error = np.abs(out.z.astype(jnp.float32) - reference.z)
    assert error.mean() < 0.05 * np.std(reference.z)


def test_dropout_is_for_training_alone(tiny_movq, fill):
    tokenizer = build_tokenizer(tiny_movq | {"dropout": 0.3})
    x = images(1, 8, 8)
    variables = {"params": fill(tokenizer, x)}
    z_q = jnp.zeros((1, 2, 2, 8))

    def is_random(method, inputs, **options):
        run = jax.make_jaxpr(
            lambda x: tokenizer.apply(variables, x, method=method, **options)
        )
        return "random_bits" in str(run(inputs))

    train = {"train": True, "rngs": {"dropout": jax.random.key(0)}}
    for method, inputs in ("encode_latents", x), ("decode_latents", z_q), (None, x):
        assert not is_random(method, inputs)
        assert is_random(method, inputs, **train)


def test_a_fresh_model_is_alive(tiny_movq):
    """Every kernel and the codebook learn from the first step on."""
    tokenizer = build_tokenizer(tiny_movq | {"multipliers": [1, 1]})
    x = images(1, 4, 4)

    @jax.jit
    def start(key):
        params = tokenizer.init(key, x)["params"]

        def error(params):
            out = tokenizer.apply({"params": params}, x)
            return jnp.mean(jnp.square(out.x_hat - x)) + out.quantized.loss

        return jax.grad(error)(params)

    key = jax.random.key(0, impl="rbg")  # compiles faster
    gradients = flax.traverse_util.flatten_dict(start(key), sep=".")
    for name, gradient in gradients.items():
        if name.endswith(("kernel", "codebook")):
            assert jnp.linalg.norm(gradient) > 1e-6, name


def test_a_tokenizer_is_a_value(tiny_movq):
    """Two of the same config are equal and hash alike: jit compiles one of them."""
    config = load_config(f"{CONFIGS}/movq_photos.py")
    one, other = build_tokenizer(config.model), build_tokenizer(config.model.to_dict())
    assert one == other and hash(one) == hash(other)
    assert one != build_tokenizer(tiny_movq)
    before = one.codebook_size
    with config.unlocked():
        config.model.quantizer.codebook_size = 7
    assert one.codebook_size == before


def test_errors_name_the_key_and_the_nearest(tiny_movq):
    def refused(message, **changes):
        with pytest.raises(UserError) as error:
            build_tokenizer(tiny_movq | changes)
        assert message in str(error.value)

    refused("config.model has no field 'widht'; did you mean 'width'?", widht=8)
    refused("config.model.dtype is 'half'; use float32 or bfloat16", dtype="half")
    quantizer = tiny_movq["quantizer"]
    refused(
        "config.model.quantizer.name is 'multichanel'; did you mean 'multichannel'?",
        quantizer=quantizer | {"name": "multichanel"},
    )
    refused(
        "config.model.quantizer (multichannel) has no field 'codebok_size'; "
        "did you mean 'codebook_size'?",
        quantizer=quantizer | {"codebok_size": 8},
    )
    refused(
        "config.model.quantizer (vq): missing a required argument: 'dim'",
        quantizer={"name": "vq", "codebook_size": 8},
    )
    refused(
        "config.model.decoder_norm.name is 'spacial'; did you mean 'spatial'?",
        decoder_norm={"name": "spacial"},
    )
    refused(
        "config.model.decoder_norm (group) has no field 'init'",
        decoder_norm={"name": "group", "init": "torch"},
    )
    refused(
        "config.model.decoder_norm.init is 'zero'; use identity or torch",
        decoder_norm={"name": "spatial", "init": "zero"},
    )
    del tiny_movq["quantizer"]
    refused("config.model: missing a required argument: 'quantizer'")
