import jax
import jax.numpy as jnp
import pytest

from movq_jax.models.features.alexnet import MIN_SIDE, AlexNetTrunk


def shapes_of(side, dtype=jnp.float32):
    module = AlexNetTrunk(dtype=dtype)
    image = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
    return params, jax.eval_shape(module.apply, {"params": params}, image)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_published_sizes(dtype):
    params, maps = shapes_of(224, dtype)
    assert list(params) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert sum(p.size for p in jax.tree.leaves(params)) == 2_469_696
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert [(m.shape, m.dtype) for m in maps] == [
        ((2, 55, 55, 64), dtype),
        ((2, 27, 27, 192), dtype),
        ((2, 13, 13, 384), dtype),
        ((2, 13, 13, 256), dtype),
        ((2, 13, 13, 256), dtype),
    ]


def test_the_smallest_image():
    assert shapes_of(MIN_SIDE)[1][-1].shape == (2, 1, 1, 256)
    assert shapes_of(MIN_SIDE - 1)[1][-1].shape == (2, 0, 0, 256)
