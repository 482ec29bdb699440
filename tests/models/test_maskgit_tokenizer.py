import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.errors import UserError
from movq_jax.models.maskgit_tokenizer import OutputBlock
from movq_jax.models.tokenizer import build_tokenizer


@pytest.fixture
def tiny():
    """A model section of factor 2; to be changed."""
    return {
        "architecture": "maskgit",
        "width": 8,
        "multipliers": [1, 2],
        "res_blocks": 1,
        "norm_groups": 4,
        "quantizer": {"name": "vq", "codebook_size": 32, "dim": 4},
    }


def images(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(-1, 1, (*shape, 3)), jnp.float32)


def apply(tokenizer, params, x, method=None):
    run = jax.jit(
        lambda params, x: tokenizer.apply({"params": params}, x, method=method)
    )
    return run(params, x)


def abstract(model, side=16):
    tokenizer = build_tokenizer(model)
    x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(tokenizer.init, jax.random.key(0), x)["params"]


def test_the_published_size():
    """Widths and depth are the defaults."""
    quantizer = {"name": "vq", "codebook_size": 1024, "dim": 256}
    params = abstract({"architecture": "maskgit", "quantizer": quantizer})
    leaves = jax.tree.leaves(params)
    assert len(leaves) == 168
    assert sum(array.size for array in leaves) == 54_515_587


def test_it_is_a_tokenizer_like_all(tiny, fill):
    tokenizer = build_tokenizer(tiny)
    assert (tokenizer.factor, tokenizer.num_channels) == (2, 1)
    assert (tokenizer.codebook_size, tokenizer.codebook_sizes) == (32, (32,))
    assert tokenizer.channel_books == ("codebook",)
    assert tokenizer.bits_per_position == 5.0
    x = images(2, 4, 6)
    params = fill(tokenizer, x)
    out = apply(tokenizer, params, x)
    assert out.x_hat.shape == x.shape and out.x_hat.dtype == jnp.float32
    assert out.z.shape == out.quantized.z_q.shape == (2, 2, 3, 4)
    ids = apply(tokenizer, params, x, "encode")
    np.testing.assert_array_equal(ids, out.quantized.ids)
    assert ids.shape == (2, 2, 3, 1) and ids.dtype == jnp.int32
    assert len(np.unique(ids)) > 2
    np.testing.assert_array_equal(
        apply(tokenizer, params, ids, "decode_ids"), out.x_hat
    )
    codes = tokenizer.apply({"params": params}, method="codes_in_effect")
    assert codes["codebook"].shape == (32, 4)


def test_the_networks_see_images_from_0_to_1(tiny, fill):
    tokenizer = build_tokenizer(tiny)
    x = images(1, 8, 8)
    params = fill(tokenizer, x)

    def both(module, x):
        z, y = module.encode_latents(x), module.decoder(x[..., :1].repeat(4, -1))
        there = module.encoder((x + 1) / 2)
        back = module.decode_latents(x[..., :1].repeat(4, -1))
        return z - there, back - (2 * y - 1)

    for difference in apply(tokenizer, params, x, both):
        np.testing.assert_allclose(difference, 0, atol=1e-6)


def test_the_shortcut_is_of_the_output(fill):
    """With a zero second convolution nothing of the input is left."""
    block, x = OutputBlock(6, groups=2), images(1, 4, 4)
    params = fill(block, x)
    assert params["conv_shortcut"]["kernel"].shape == (1, 1, 6, 6)
    assert np.any(block.apply({"params": params}, x))
    params["conv2"] = jax.tree.map(jnp.zeros_like, params["conv2"])
    assert not np.any(block.apply({"params": params}, x))


def test_every_parameter_learns(tiny, fill):
    tokenizer, x = build_tokenizer(tiny), images(1, 8, 8)
    params = fill(tokenizer, x)

    def loss(params):
        out = tokenizer.apply({"params": params}, x, train=True)
        return jnp.mean(jnp.square(out.x_hat - x)) + out.quantized.loss

    gradients = jax.jit(jax.grad(loss))(params)
    for path, array in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.any(array), jax.tree_util.keystr(path)


def test_blocks_can_be_computed_again(tiny):
    params, x = abstract(tiny), jnp.zeros((1, 8, 8, 3))

    def program(levels):
        tokenizer = build_tokenizer(tiny, remat_levels=levels)
        run = jax.make_jaxpr(lambda params: tokenizer.apply({"params": params}, x))
        return str(run(params))

    assert "remat" not in program(())
    assert program((0,)).count("remat") < program((0, 1)).count("remat")


def test_bfloat16_is_for_the_products_alone(tiny):
    params = abstract(tiny | {"dtype": "bfloat16"})
    assert {array.dtype for array in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    tokenizer = build_tokenizer(tiny | {"dtype": "bfloat16"})
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    out, _ = jax.eval_shape(tokenizer.init_with_output, jax.random.key(0), x)
    assert out.z.dtype == jnp.bfloat16
    assert out.x_hat.dtype == out.quantized.z_q.dtype == jnp.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architecture": "vit"},
            "architecture is 'vit'; use maskgit, or leave it out",
        ),
        ({"architecture": None}, "architecture is None"),
        ({"dropout": 0.1}, "has no field 'dropout'"),
        ({"decoder_norm": {"name": "spatial"}}, "has no field 'decoder_norm'"),
        ({"width": 0}, "config.model.width is 0"),
        ({"multipliers": []}, "config.model.multipliers is"),
        ({"dtype": "float16"}, "use float32 or bfloat16"),
        ({"quantizer": {"name": "vqq"}}, "did you mean 'vq'"),
    ],
)
def test_other_sections_are_refused(tiny, change, message):
    with pytest.raises(UserError, match=message):
        build_tokenizer(tiny | change)


def test_the_section_lacks_its_quantizer(tiny):
    del tiny["quantizer"]
    with pytest.raises(UserError, match="lacks 'quantizer'"):
        build_tokenizer(tiny)
