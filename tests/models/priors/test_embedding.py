import jax
import jax.numpy as jnp
import numpy as np

from movq_jax.models.priors import Tokens
from movq_jax.models.priors.embedding import ChannelEmbedding
from movq_jax.models.transformer import normal

D = 8
SHARED = Tokens((2, 2), (7, 7, 7), ("a", "a", "a"))
APART = Tokens((2, 2), (7, 5), ("a", "b"))
MIXED = Tokens((2, 2), (7, 5, 7), ("a", "b", "a"))
IDS = jnp.asarray([[1, 2, 3], [2, 1, 3], [0, 4, 6]], jnp.int32)


def make(tokens, masked=True, dtype=jnp.float32):
    return ChannelEmbedding(tokens, D, masked=masked, start=normal, dtype=dtype)


def random_params(module):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), IDS)["params"]
    draw = lambda a: jnp.asarray(rng.standard_normal(a.shape), a.dtype)  # noqa: E731
    return jax.tree.map(draw, shapes)


def shapes(tokens, masked=True):
    ids = jnp.zeros((1, tokens.num_channels), jnp.int32)
    variables = jax.eval_shape(make(tokens, masked).init, jax.random.key(0), ids)
    return {name: array.shape for name, array in variables["params"].items()}


def test_parameters():
    apart = {"table_0": (7, D), "table_1": (5, D)}
    assert shapes(APART, masked=False) == apart
    assert shapes(APART) == apart | {"mask": (2, D)}
    channels = {"scale": (3, D), "bias": (3, D), "mask": (3, D)}
    assert shapes(SHARED) == {"table_0": (7, D)} | channels
    assert shapes(MIXED) == apart | channels
    alone = Tokens((2, 2), (7,), ("a",))
    assert shapes(alone, masked=False) == {"table_0": (7, D)}


def test_rows():
    module = make(MIXED)
    params = random_params(module)
    rows = module.apply({"params": params}, IDS)
    assert rows.shape == (3, 3, D)
    for i, ids in enumerate(np.asarray(IDS)):
        for m, (k, table) in enumerate(zip(ids, (0, 1, 0), strict=True)):
            expected = (
                params[f"table_{table}"][k] * params["scale"][m] + params["bias"][m]
            )
            np.testing.assert_allclose(rows[i, m], expected, atol=1e-6)
    masks = module.apply({"params": params}, method="mask_rows")
    np.testing.assert_array_equal(masks, params["mask"])


def test_a_sum_of_channels_tells_which_of_them_has_which_index():
    """From the start on, though they share a table: (1, 2, 3) is not (2, 1, 3)."""
    module = make(SHARED)
    variables = module.init(jax.random.key(0), IDS)
    assert np.all(np.abs(np.asarray(variables["params"]["scale"])) == 1)
    sums = jnp.sum(module.apply(variables, IDS), axis=-2)
    assert float(jnp.abs(sums[0] - sums[1]).max()) > 0.02


def test_dtype():
    module = make(SHARED, dtype=jnp.bfloat16)
    params = random_params(module)
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert module.apply({"params": params}, IDS).dtype == jnp.bfloat16
