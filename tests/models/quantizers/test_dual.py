import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.models.quantizers import QUANTIZERS, DualQuantizer
from movq_jax.models.quantizers.code_transformer import TransformerCodebook

TINY = dict(codebook_size=(24, 16), dim=(8, 4), depth=2, heads=2, ffn=16)


def draw(*shape):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_the_papers_sizes():
    """512 rows a book, halves of 128; the transformer has 3,558,144 parameters."""
    module = DualQuantizer(codebook_size=512, dim=256)
    assert module.latent_channels == 256 and module.codebook_sizes == (512, 512)
    z = jax.ShapeDtypeStruct((1, 16, 16, 256), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), z)["params"]
    book = dict(params["global_codebook"])
    assert book.pop("rows").shape == params["local_codebook"]["rows"].shape
    assert len(book) == 6 and count(book) == 3_558_144


def test_the_transformer_starts_as_torchs_does_and_each_layer_anew():
    book = TransformerCodebook(64, 128, depth=2, heads=8, ffn=2048, dropout=0.1)
    params = book.init(jax.random.key(0))["params"]
    np.testing.assert_allclose(np.std(params["rows"]), 1, rtol=0.02)
    first, second = params["layers_0"], params["layers_1"]
    for layer, (kernel_bound, bias_bound) in {
        "in_proj": ((6 / (4 * 128)) ** 0.5, 0.0),
        "out_proj": (128**-0.5, 0.0),
        "linear1": (128**-0.5, 128**-0.5),
        "linear2": (2048**-0.5, 2048**-0.5),
    }.items():
        kernel, bias = np.asarray(first[layer]["kernel"]), first[layer]["bias"]
        np.testing.assert_allclose(np.abs(kernel).max(), kernel_bound, rtol=0.01)
        np.testing.assert_allclose(kernel.std(), kernel_bound / 3**0.5, rtol=0.02)
        np.testing.assert_allclose(np.abs(bias).max(), bias_bound, rtol=0.05)
        assert np.any(kernel != second[layer]["kernel"])


def test_at_the_start_every_global_code_has_one_length():
    """The last LayerNorm makes it sqrt(d): the search is one by angles."""
    book = TransformerCodebook(64, 128, depth=6, heads=8, ffn=2048, dropout=0.1)
    codes = book.apply(book.init(jax.random.key(0)))
    np.testing.assert_allclose(np.linalg.norm(codes, axis=-1), 128**0.5, rtol=1e-3)


def test_all_codes_learn_from_one():
    book = TransformerCodebook(16, 8, depth=1, heads=2, ffn=16, dropout=0.0)
    variables = book.init(jax.random.key(0))
    gradient = jax.grad(lambda v: jnp.sum(book.apply(v)[3] * draw(8)))(variables)
    rows = np.asarray(gradient["params"]["rows"])
    assert np.all(np.any(rows, axis=-1))


@pytest.mark.parametrize("half", ["first", "last"])
@pytest.mark.parametrize("depth", [0, 2])
def test_the_halves_and_their_books(half, depth):
    module = DualQuantizer(**{**TINY, "depth": depth}, global_half=half)
    z = draw(2, 3, 4, 12)
    variables = module.init(jax.random.key(1), z)
    out = module.apply(variables, z)
    codes = module.apply(variables, method="codes_in_effect")
    cut = 8 if half == "first" else 4
    pieces = np.split(np.asarray(z), [cut], axis=-1)
    results = np.split(np.asarray(out.z_q), [cut], axis=-1)
    if half == "last":
        pieces, results = pieces[::-1], results[::-1]
    loss = 0.0
    for channel, book in enumerate(("global_codebook", "local_codebook")):
        rows = np.asarray(codes[book])
        distance = np.sum((pieces[channel][..., None, :] - rows) ** 2, axis=-1)
        np.testing.assert_array_equal(out.ids[..., channel], distance.argmin(-1))
        np.testing.assert_array_equal(results[channel], rows[out.ids[..., channel]])
        loss += 1.25 * np.mean((pieces[channel] - results[channel]) ** 2)
    np.testing.assert_allclose(out.loss, loss, rtol=1e-5)
    error = np.mean((np.asarray(z) - np.asarray(out.z_q)) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(out.stats["quantisation_mse"], error, rtol=1e-5)


def test_dropout_is_one_draw_for_all_and_for_training_alone():
    module = DualQuantizer(**TINY, dropout=0.3)
    z = jnp.tile(draw(1, 3, 4, 12), (4, 1, 1, 1))
    variables = module.init(jax.random.key(1), z)

    def train(key):
        rngs = {"codebook": jax.random.key(key)}
        return module.apply(variables, z, train=True, rngs=rngs).z_q

    first, again, other = train(0), train(0), train(1)
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    for image in first[1:]:
        np.testing.assert_array_equal(image, first[0])
    evaluated = module.apply(variables, z)
    assert np.any(evaluated.z_q != first)
    without = DualQuantizer(**TINY, dropout=0.0)
    np.testing.assert_array_equal(
        without.apply(variables, z, train=True).z_q, evaluated.z_q
    )


@pytest.mark.parametrize(("dropout", "gap"), [(0.1, 0.28), (0.0, 0.0)])
def test_the_gap_that_dropout_opens_between_training_and_evaluation(dropout, gap):
    """At the start, of the paper's sizes; |codes in training - codes| / |codes|."""
    book = TransformerCodebook(512, 128, 6, heads=8, ffn=2048, dropout=dropout)
    variables = book.init(jax.random.key(0))
    drawn = book.apply(variables, train=True, rngs={"codebook": jax.random.key(1)})
    codes = book.apply(variables)
    difference = np.linalg.norm(drawn - codes) / np.linalg.norm(codes)
    np.testing.assert_allclose(difference, gap, atol=0.04 if gap else 1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"codebook_size": 1}, "codebook_size is 1; 2 is the least"),
        ({"codebook_size": (8, 0)}, "codebook_size is 0; 2 is the least"),
        ({"codebook_size": (8, 8, 8)}, "give a whole number for both books, or two"),
        ({"dim": 7}, "dim is 7, which has no two equal halves"),
        ({"dim": (8, 4, 4)}, "give a whole number for both books, or two"),
        ({"dim": (9, 4)}, "heads is 2, which does not divide 9"),
        ({"heads": 3}, "heads is 3, which does not divide 8"),
        ({"depth": -1}, "depth is -1; 0 is the least"),
        ({"dropout": 1.0}, "dropout is 1, which drops everything: use 0.1"),
        ({"depth": 0, "dropout": 7.0}, "dropout is 7.0; give a number from 0 to 1"),
        ({"depth": 0, "heads": -1}, "heads is -1; 1 is the least"),
        ({"dropout": 1.5}, "dropout is 1.5; give a number from 0 to 1"),
        ({"form": "l2"}, "form is 'l2', which has no place with a transformer"),
        ({"global_half": "second"}, "global_half is 'second'; use first or last"),
        ({"estimator": "ste"}, "estimator is 'ste'; use straight_through or rotation"),
        ({"beta": -1.0}, "beta is -1.0; give a number that is not negative"),
    ],
)
def test_bad_fields_are_refused_at_construction(fields, message):
    where = "config.model.quantizer"
    with pytest.raises(UserError, match=message) as error:
        families.make(QUANTIZERS, {"name": "dual", **TINY, **fields}, where)
    assert where in str(error.value)


def test_a_list_of_two_is_two():
    assert DualQuantizer([16, 8], [4, 2], heads=2).codebook_sizes == (16, 8)
