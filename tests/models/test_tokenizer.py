import re
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
    assert params["quantize"]["codebook"]["rows"].shape == (1024, 64)


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
    tiny_movq |= {"multipliers": [1, 2], "attention_factors": [2]}
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
    tokenizer = build_tokenizer(
        tiny_movq | {"multipliers": [1, 1], "attention_factors": [2]}
    )
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
        if name.endswith(("kernel", "rows")):
            assert jnp.linalg.norm(gradient) > 1e-6, name


def training_loss(tokenizer, x):
    """The loss of a training step, a function of the parameters."""

    def loss(params):
        rngs = {"dropout": jax.random.key(3)}
        out = tokenizer.apply({"params": params}, x, train=True, rngs=rngs)
        return jnp.mean(jnp.square(out.x_hat - x)) + out.quantized.loss

    return loss


@pytest.mark.parametrize(("dropout", "norm"), [(0.0, "group"), (0.3, "spatial")])
def test_computing_again_changes_no_number(tiny_movq, fill, dropout, norm):
    """Names and start of the parameters, the loss and its gradient.

    Another program rounds otherwise: without jit, the plain gradient is 1.8e-6 from its
    compiled self, and the one with blocks computed again is 1.5e-6.
    """
    tiny_movq |= {"dropout": dropout, "decoder_norm": {"name": norm}}
    tiny_movq |= {"multipliers": [1, 2], "attention_factors": [2]}
    plain = build_tokenizer(tiny_movq)
    again = build_tokenizer(tiny_movq, remat_levels=[0, 1])
    x = images(2, 8, 8)
    inits = [jax.eval_shape(t.init, jax.random.key(0), x) for t in (plain, again)]
    assert jax.tree.structure(inits[0]) == jax.tree.structure(inits[1])
    params = fill(plain, x)
    jax.tree.map(np.testing.assert_array_equal, params, fill(again, x))
    run = [jax.jit(jax.value_and_grad(training_loss(t, x))) for t in (plain, again)]
    (loss, gradient), (loss_again, gradient_again) = (f(params) for f in run)
    np.testing.assert_allclose(loss_again, loss, rtol=1e-6)
    flat, flat_again = (
        np.concatenate([np.ravel(array) for array in jax.tree.leaves(tree)])
        for tree in (gradient, gradient_again)
    )
    assert np.linalg.norm(flat_again - flat) < 4e-6 * np.linalg.norm(flat)


def test_a_start_is_the_same_with_levels_computed_again(tiny_movq):
    tiny_movq |= {"multipliers": [1], "attention_factors": []}
    key, x = jax.random.key(0, impl="rbg"), images(1, 4, 4)
    plain, again = (
        jax.jit(build_tokenizer(tiny_movq, remat_levels=levels).init)(key, x)
        for levels in ((), (0,))
    )
    jax.tree.map(np.testing.assert_array_equal, again, plain)


def test_levels_computed_again_keep_less_for_the_gradient(tiny_movq):
    tiny_movq |= {"dropout": 0.3, "attention_factors": []}
    x = images(1, 32, 32)

    def kept_bytes(*levels):
        tokenizer = build_tokenizer(tiny_movq, remat_levels=levels)
        params = jax.eval_shape(tokenizer.init, jax.random.key(0), x)["params"]
        loss = training_loss(tokenizer, x)
        kept = jax.eval_shape(lambda params: jax.vjp(loss, params)[1], params)
        return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(kept))

    assert kept_bytes(0) < 0.65 * kept_bytes()


def test_levels_to_compute_again_are_no_part_of_the_model(tiny_movq):
    with pytest.raises(UserError, match="config.model has no field 'remat_levels'"):
        build_tokenizer(tiny_movq | {"remat_levels": (0,)})
    for levels in (3,), (-1,), (True,), (0.0,), 1:
        with pytest.raises(UserError, match="config.train.remat_levels is .*: 0, 1, 2"):
            build_tokenizer(tiny_movq, remat_levels=levels)


def test_a_profile_tells_the_three_parts(tiny_movq):
    tiny_movq |= {"multipliers": [1, 1], "attention_factors": []}
    tokenizer = build_tokenizer(tiny_movq, remat_levels=(0,))
    x = images(1, 4, 4)
    params = jax.eval_shape(tokenizer.init, jax.random.key(0), x)["params"]
    program = jax.jit(jax.grad(training_loss(tokenizer, x))).lower(params)
    text = program.as_text(debug_info=True)
    parts = {"encoder": "down_0", "quantizer": "quantize", "decoder": "up_0"}
    for part, inside in parts.items():
        for direction in ("jvp", "transpose"):
            path = rf"/{direction}\([^\"]*/{part}/[^\"]*{inside}"
            assert re.search(path, text), (direction, part)


def test_parts_in_bfloat16_are_near_those_in_float32(tiny_movq, fill):
    """Relative deviation, |a - b| / |b|, of 2 images with random parameters.

    Measured on a CPU: 0.0179 for the encoder, 0.0247 for the decoder. The search is in
    float32 either way: the same latents have the same ids.
    """
    size = {"width": 32, "multipliers": [1, 2, 2], "res_blocks": 2, "z_channels": 32}
    tiny_movq |= size
    tiny_movq["quantizer"] |= {"codebook_size": 256, "dim": 8}
    single = build_tokenizer(tiny_movq)
    half = build_tokenizer(tiny_movq | {"dtype": "bfloat16"})
    x = images(2, 32, 32)
    params = fill(single, x)

    def deviation(inputs, method):
        a, b = (apply(t, params, inputs, method) for t in (half, single))
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return np.linalg.norm(a - b) / np.linalg.norm(b)

    assert deviation(x, "encode_latents") < 0.025
    z = apply(single, params, x, "encode_latents")
    out, quantized = (
        t.apply({"params": params}, z, method=lambda t, z: t.quantize(z))
        for t in (half, single)
    )
    np.testing.assert_array_equal(out.ids, quantized.ids)
    assert len(np.unique(out.ids)) > 50
    assert deviation(quantized.z_q, "decode_latents") < 0.035


def test_values_out_of_range_name_the_key(tiny_movq):
    def refused(message, **changes):
        with pytest.raises(UserError) as error:
            build_tokenizer(tiny_movq | changes)
        assert message in str(error.value)

    for value in (-0.1, 1.1, float("nan"), True, "0.1", None):
        refused(f"config.model.dropout is {value!r}; give a number", dropout=value)
    for key in ("width", "res_blocks", "z_channels", "norm_groups"):
        refused(f"config.model.{key} is 0; 1 is the least", **{key: 0})
        for value in (True, 8.0, "8", None):
            refused(f"config.model.{key} is {value!r}; give a whole", **{key: value})
    for value in (), (0,), (1, 2.0), (1, True), 3, None, ((1,), 2):
        refused("config.model.multipliers is", multipliers=value)
    for value in (3,), (8,), (0,), (-1,), (2.0,), (True,), 4, None:
        message = "; give some of the factors of its levels: 1, 2, 4"
        refused(f"attention_factors is {value!r}{message}", attention_factors=value)
    for key in ("codebook_size", "dim", "num_channels"):
        for value in (0, -1, True, 4.0, None):
            quantizer = tiny_movq["quantizer"] | {key: value}
            refused(f"config.model.quantizer.{key} is {value}", quantizer=quantizer)
    for value in (-0.25, float("inf"), float("nan"), True, "1", None):
        quantizer = tiny_movq["quantizer"] | {"beta": value}
        refused(f"config.model.quantizer.beta is {value!r}", quantizer=quantizer)
    refused("legacy is 'no'", quantizer=tiny_movq["quantizer"] | {"legacy": "no"})
    for value in None, 3, "vq", ["vq"]:
        refused("config.model.quantizer is", quantizer=value)
        refused("config.model.decoder_norm is", decoder_norm=value)
    with pytest.raises(UserError, match="config.model is None"):
        build_tokenizer(None)


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
        "config.model.quantizer (vq) lacks 'dim'",
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
    refused("config.model lacks 'quantizer'")


def test_the_decoders_norms_may_have_groups_of_their_own(tiny_movq):
    """Published spatial norms have 32 groups, whatever the encoder's have.

    What they compute is compared with diffusers, see test_diffusers_parity.
    """
    tiny_movq["norm_groups"] = 8
    decoder = build_tokenizer(tiny_movq).make_decoder(parent=None)
    assert decoder.norm.keywords["groups"] == 8
    tiny_movq["decoder_norm"]["groups"] = 2
    tokenizer = build_tokenizer(tiny_movq)
    assert tokenizer.make_decoder(parent=None).norm.keywords["groups"] == 2
    assert tokenizer.norm_groups == 8


@pytest.mark.parametrize("groups", [0, 2.0, True, None])
def test_groups_that_are_none(tiny_movq, groups):
    tiny_movq["decoder_norm"]["groups"] = groups
    with pytest.raises(UserError, match=r"config.model.decoder_norm.groups is"):
        build_tokenizer(tiny_movq)
