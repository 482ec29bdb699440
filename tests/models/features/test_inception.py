import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.models.features.inception import (
    BlockA,
    BlockC,
    BlockE,
    ConvNorm,
    Inception,
)


def zeros(module, *inputs):
    """The parameters of a module before any are loaded: layers that give zero."""
    return module.init(jax.random.key(0), *inputs)["params"]


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    """The shapes of the parameters and of the results, for three images."""
    image = jax.ShapeDtypeStruct((3, 299, 299, 3), jnp.float32)
    output, variables = jax.eval_shape(
        lambda x: Inception().init_with_output(jax.random.key(0), x), image
    )
    return variables["params"], output


def test_the_published_number_of_parameters(network):
    params, _ = network
    leaves = jax.tree.leaves(params)
    assert len(leaves) == 472
    assert sum(leaf.size for leaf in leaves) == 23_885_392
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


def test_the_published_sizes(network):
    params, output = network
    assert output.pool.shape == (3, 2048)
    assert output.spatial.shape == (3, 2023)
    assert output.logits.shape == output.logits_unbiased.shape == (3, 1008)
    widths = {name: layer["kernel"].shape[2] for name, layer in entries(params)}
    assert widths == {
        "Mixed_5b": 192,
        "Mixed_5c": 256,
        "Mixed_5d": 288,
        "Mixed_6b": 768,
        "Mixed_6c": 768,
        "Mixed_6d": 768,
        "Mixed_6e": 768,
        "Mixed_7b": 1280,
        "Mixed_7c": 2048,
    }
    assert params["Mixed_6b"]["branch7x7_2"]["kernel"].shape == (1, 7, 128, 128)
    assert params["Mixed_6b"]["branch7x7dbl_2"]["kernel"].shape == (7, 1, 128, 128)
    assert params["Mixed_7c"]["branch3x3_2a"]["kernel"].shape == (1, 3, 384, 384)


def entries(params):
    """The first layer of each block that has a branch of one convolution."""
    return ((n, b["branch1x1"]) for n, b in params.items() if "branch1x1" in b)


def test_a_layer_is_what_its_formula_says():
    x, kernel = draw(2, 5, 4, 3), draw(1, 1, 3, 6)
    scale, bias, mean = draw(3, 6)
    var = np.abs(draw(6))
    arrays = {"kernel": kernel, "scale": scale, "bias": bias, "mean": mean, "var": var}
    ours = ConvNorm(6).apply({"params": arrays}, x)
    theirs = (x @ kernel[0, 0] - mean) / np.sqrt(var + 1e-3) * scale + bias
    np.testing.assert_allclose(ours, np.maximum(theirs, 0), rtol=1e-4, atol=1e-5)
    assert np.any(theirs < 0)


def pooled_by(block, x):
    """The branch of the pool, with a layer behind it that changes nothing."""
    x = jnp.asarray(x)
    params = zeros(block, x)
    layer = dict(params["branch_pool"])
    channels = x.shape[-1]
    layer["kernel"] = layer["kernel"].at[0, 0].set(np.eye(channels, layer["var"].size))
    layer["var"] = layer["var"] - np.float32(1e-3)
    made = block.apply({"params": params | {"branch_pool": layer}}, x)
    made = made[0] if isinstance(made, tuple) else made
    return np.asarray(made[..., -layer["var"].size :][..., :channels])


@pytest.mark.parametrize(
    ("block", "by_maximum"),
    [
        (BlockA(32), False),
        (BlockC(2), False),
        (BlockE(pools_by_maximum=False), False),
        (BlockE(pools_by_maximum=True), True),
    ],
)
def test_pools_do_not_see_the_padding(block, by_maximum):
    """Counting it would darken the border of the average."""
    flat = np.ones((1, 4, 5, 3), np.float32)
    np.testing.assert_allclose(pooled_by(block, flat), 1, rtol=1e-5)
    spot = np.zeros((1, 4, 5, 3), np.float32)
    spot[0, 0, 0] = 1
    corner = pooled_by(block, spot)[0, :3, :3, 0]
    expected = [[1 / 4, 1 / 6, 0], [1 / 6, 1 / 9, 0], [0, 0, 0]]
    if by_maximum:
        expected = [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(corner, expected, rtol=1e-5)
