import jax
import jax.numpy as jnp
import pytest

from movq_jax.models.features.vgg import MIN_SIDE, VGG16Trunk


def shapes_of(side, dtype=jnp.float32):
    module = VGG16Trunk(dtype=dtype)
    image = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
    return params, jax.eval_shape(module.apply, {"params": params}, image)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_published_sizes(dtype):
    params, maps = shapes_of(256, dtype)
    assert len(params) == 13 and list(params)[-1] == "conv5_3"
    assert sum(p.size for p in jax.tree.leaves(params)) == 14_714_688
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert [(m.shape, m.dtype) for m in maps] == [
        ((2, 256, 256, 64), dtype),
        ((2, 128, 128, 128), dtype),
        ((2, 64, 64, 256), dtype),
        ((2, 32, 32, 512), dtype),
        ((2, 16, 16, 512), dtype),
    ]


def test_the_smallest_image():
    assert shapes_of(MIN_SIDE)[1][-1].shape == (2, 1, 1, 512)
    assert shapes_of(MIN_SIDE - 1)[1][-1].shape == (2, 0, 0, 512)
