"""Building priors from a config's section: errors, and the size of real ones."""

import jax
import jax.numpy as jnp
import ml_collections
import pytest

from movq_jax.errors import UserError
from movq_jax.models.priors import MaskedPrior, Tokens, build_prior

TOKENS = Tokens((2, 3), (9, 6), ("global", "local"))
DEPTH = {"name": "depth", "depth": 2}
COMMON = {
    "width": 16,
    "depth": 2,
    "heads": 2,
    "dropout": 0.1,
    "channels": DEPTH,
    "num_classes": 3,
    "attention": "xla",
    "dtype": "float32",
}
MASKED = COMMON | {"name": "masked", "mlp": 32}
AUTOREGRESSIVE = COMMON | {"name": "autoregressive"}
both = pytest.mark.parametrize("model", [MASKED, AUTOREGRESSIVE])


@both
def test_the_same_from_a_config(model):
    """A module is hashable, and equal to another of the same fields."""
    prior = build_prior(model, TOKENS)
    again = build_prior(ml_collections.ConfigDict(model), TOKENS)
    assert hash(prior) == hash(again) and prior == again
    assert prior != build_prior(model | {"depth": 3}, TOKENS)
    assert not prior.remat and build_prior(model, TOKENS, remat=True).remat


BAD = [
    ({"name": "unmasked"}, "config.model.name is 'unmasked'.*Known: autoregressive"),
    ({"witdh": 16}, r"config.model \(.*\) has no field 'witdh'; did you mean 'width'"),
    ({"width": 0}, "config.model.width is 0; 1 is the least"),
    ({"width": 16.0}, "config.model.width is 16.0; give a whole number"),
    ({"depth": 0}, "config.model.depth is 0"),
    ({"heads": 0}, "config.model.heads is 0"),
    ({"heads": 3}, "heads is 3, which does not cut config.model.width, 16, into equal"),
    ({"dropout": 1.5}, "config.model.dropout is 1.5; give a number from 0 to 1"),
    ({"dropout": 1}, "config.model.dropout is 1, which drops everything"),
    ({"num_classes": -2}, "config.model.num_classes is -2; 0 is the least"),
    ({"num_classes": True}, "config.model.num_classes is True; give a whole number"),
    ({"attention": "flash"}, "attention is 'flash'; use xla or cudnn"),
    ({"attention": "cudnn"}, "attention is 'cudnn', which works in 16 bits"),
    ({"dtype": "float16"}, "dtype is 'float16'; use float32 or bfloat16"),
    ({"channels": "depth"}, r"channels is 'depth'; choose by \{'name'"),
    ({"channels": {"name": "deep"}}, "channels.name is 'deep'; did you mean 'depth'"),
    ({"channels": {"name": "depth"}}, r"channels \(depth\) lacks 'depth'"),
    ({"channels": DEPTH | {"depth": 0}}, "config.model.channels.depth is 0"),
    ({"channels": DEPTH | {"heads": 4}}, "channels .* has no field 'heads'"),
]


@both
@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_fields_are_refused(model, change, message):
    with pytest.raises(UserError, match=message):
        build_prior(model | change, TOKENS)


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        (MASKED, {"mlp": 0}, "config.model.mlp is 0"),
        (
            MASKED,
            {"channels": {"name": "flat"}},
            "'flat'.*independent, parallel",
        ),
        (AUTOREGRESSIVE, {"channels": {"name": "parallel"}}, "'parallel'.*depth, flat"),
        (AUTOREGRESSIVE, {"mlp": 32}, "has no field 'mlp'"),
        (AUTOREGRESSIVE, {"heads": 8}, "into equal parts, each a multiple of 4"),
        (
            MASKED,
            {"attention": "cudnn", "dtype": "bfloat16", "heads": 4},
            "into equal parts, each a multiple of 8",
        ),
    ],
)
def test_fields_of_one_of_them(model, change, message):
    with pytest.raises(UserError, match=message):
        build_prior(model | change, TOKENS)


@both
def test_every_field_is_required(model):
    for field in model:
        section = {name: value for name, value in model.items() if name != field}
        with pytest.raises(UserError, match=f"'{field}'|name is None"):
            build_prior(section, TOKENS)


def test_a_model_is_a_section():
    with pytest.raises(UserError, match="config.model is 3; it must be a section"):
        build_prior(3, TOKENS)


def test_cudnn_with_16_bits():
    changes = {"attention": "cudnn", "dtype": "bfloat16"}
    assert build_prior(MASKED | changes, TOKENS).attention == "cudnn"


BASE = MASKED | {"width": 768, "depth": 24, "heads": 16, "mlp": 3072}
LARGE = MASKED | {"width": 1024, "depth": 24, "heads": 16, "mlp": 4096}
VQGAN = Tokens((16, 16), (1024,), ("codebook",))
MOVQ = Tokens((16, 16), (1024,) * 4, ("codebook",) * 4)
PARALLEL = {"channels": {"name": "parallel"}}


def sizes(prior):
    """Number of parameters, by the name of the part."""
    tokens = prior.tokens
    ids = jax.ShapeDtypeStruct((1, tokens.num_positions, tokens.num_channels), "int32")
    labels = jax.ShapeDtypeStruct((1,), jnp.int32)
    inputs = (ids, labels)
    if isinstance(prior, MaskedPrior):
        inputs = (ids, jax.ShapeDtypeStruct(ids.shape, bool), labels, ids)
    params = jax.eval_shape(prior.init, jax.random.key(0), *inputs)["params"]
    return {
        part: sum(leaf.size for leaf in jax.tree.leaves(leaves))
        for part, leaves in params.items()
    }


@pytest.mark.parametrize("heads", [8, 16])
def test_size_of_maskgit(heads):
    """172,457,193 in Google's, of which the bias has 1001 rows for no code.

    Those of the 1000 classes and of [MASK]. Ours has none, and a row more for no class.
    """
    prior = build_prior(BASE | PARALLEL | {"heads": heads, "num_classes": 1000}, VQGAN)
    number = sum(sizes(prior).values())
    assert number == 172_457_193 - 1001 + 768
    assert round(number / 1e6, 1) == 172.5


def test_size_of_a_prior_over_four_channels():
    prior = build_prior(LARGE | PARALLEL | {"num_classes": 0}, MOVQ)
    parts = sizes(prior)
    layer = 4 * (1024**2 + 1024) + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024
    assert parts["layers"] == 24 * layer
    # A table, and for each channel a scale, a bias and [MASK].
    assert parts["embedding"] == 1024 * (1024 + 4 * 3)
    assert round(sum(parts.values()) / 1e6, 1) == 307.8


@pytest.mark.parametrize(("model", "hidden"), [(BASE, 2048), (LARGE, 2816)])
def test_size_of_a_depth_head(model, hidden):
    """3 layers at the trunk's width: 22.0 M at 768 and 39.6 M at 1024."""
    prior = build_prior(model | {"channels": {"name": "depth", "depth": 3}}, MOVQ)
    width = model["width"]
    layer = 4 * width**2 + 3 * width * hidden + 2 * width
    head = sizes(prior)["head"]
    assert head == 3 * layer + 4 * width + width + 1024 * width
    assert round(head / 1e6, 1) == {768: 22.0, 1024: 39.6}[width]


def test_size_of_llamagen_b():
    """111 M with 16384 codes and 1000 classes (arXiv 2406.06525, table 1)."""
    tokens = Tokens((16, 16), (16384,), ("codebook",))
    model = AUTOREGRESSIVE | {"width": 768, "depth": 12, "heads": 12}
    changes = {"channels": {"name": "flat"}, "num_classes": 1000}
    number = sum(sizes(build_prior(model | changes, tokens)).values())
    assert round(number / 1e6) == 111
