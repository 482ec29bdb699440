import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from movq_jax.flops import count_flops
from movq_jax.models.layers import AttnBlock, group_norm
from movq_jax.training.sharding import make_mesh


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def conv(stride=1, padding="SAME", groups=1, dilation=1):
    def apply(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            padding,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    return apply


def gradients(fn):
    """Of both arguments; a linear function of the results would need no forward."""
    return jax.grad(lambda *args: jnp.sum(jnp.square(fn(*args))), argnums=(0, 1))


def test_matrix_product():
    a, b = shape(5, 3, 7), shape(5, 7, 11)
    assert count_flops(jnp.matmul, a, b) == 2 * 5 * 3 * 7 * 11
    assert count_flops(gradients(jnp.matmul), a, b) == 3 * 2 * 5 * 3 * 7 * 11


@pytest.mark.parametrize(
    "options, positions",
    [
        ({}, 16 * 16),  # taps on padding included
        ({"padding": "VALID"}, 14 * 14),
        ({"stride": 2}, 8 * 8),
        ({"stride": 2, "padding": ((0, 1), (0, 1))}, 8 * 8),
        ({"stride": 3, "padding": ((1, 1), (1, 1))}, 6 * 6),
        ({"dilation": 2}, 16 * 16),
        ({"dilation": 2, "padding": "VALID"}, 12 * 12),
    ],
)
def test_a_convolution_and_its_gradients(options, positions):
    x, kernel = shape(2, 16, 16, 6), shape(3, 3, 6, 10)
    forward = 2 * 2 * positions * 9 * 6 * 10
    assert count_flops(conv(**options), x, kernel) == forward
    # Gradients of strided convolutions are dilated: zeros are no work.
    assert count_flops(gradients(conv(**options)), x, kernel) == 3 * forward


def test_groups():
    x, kernel = shape(2, 16, 16, 6), shape(3, 3, 2, 9)
    forward = 2 * 2 * 16 * 16 * 9 * 2 * 9
    assert count_flops(conv(groups=3), x, kernel) == forward
    assert count_flops(gradients(conv(groups=3)), x, kernel) == 3 * forward


def test_an_image_smaller_than_the_kernel():
    """Each pixel meets each output once: no more taps than that hold anything."""
    x, kernel = shape(1, 2, 1, 4), shape(3, 3, 4, 4)
    assert count_flops(conv(), x, kernel) == 2 * (2 * 2) * (1 * 1) * 16
    assert count_flops(gradients(conv()), x, kernel) == 3 * 2 * 4 * 16


def test_attention():
    block = AttnBlock(group_norm())
    x = shape(2, 4, 6, 32)
    params = jax.eval_shape(block.init, jax.random.key(0), x)
    dense, products = 4 * 24 * 32 * 32, 2 * 24 * 24 * 32
    assert count_flops(block.apply, params, x) == 2 * 2 * (dense + products)


def test_what_no_result_needs_is_not_counted():
    def fn(a):
        pullback = jax.vjp(lambda a: jnp.square(a) @ a, a)[1]
        pullback(a)
        return a @ a

    assert count_flops(fn, shape(8, 8)) == 2 * 8**3


def test_loops_and_branches():
    product = 2 * 8**3

    def scanned(a):
        return jax.lax.scan(lambda c, _: (c @ a, None), a, length=5)[0]

    assert count_flops(scanned, shape(8, 8)) == 5 * product

    def mapped(a):
        return jax.lax.map(lambda row: a @ row, a)

    assert count_flops(mapped, shape(8, 8)) == product

    def looped(a):
        return jax.lax.while_loop(lambda c: jnp.sum(c) < 1, lambda c: c @ c, a)

    assert count_flops(looped, shape(8, 8)) == product

    def branched(flag, a):
        return jax.lax.cond(flag, lambda: a @ a @ a, lambda: a @ a)

    assert count_flops(branched, shape(dtype=bool), shape(8, 8)) == 2 * product


def test_bodies_of_other_functions():
    product = 2 * 8**3

    @jax.custom_vjp
    def custom(a):
        return a @ a

    custom.defvjp(lambda a: (a @ a, a), lambda a, ct: (ct @ a,))
    a = shape(8, 8)
    assert count_flops(jax.jit(lambda a: a @ a), a) == product
    assert count_flops(custom, a) == product
    assert count_flops(jax.grad(lambda a: jnp.sum(custom(a) ** 2)), a) == 2 * product

    def remat(a):
        inner = jax.checkpoint(lambda a: jnp.sum(jnp.sin(a @ a) @ a))
        return jax.value_and_grad(inner)(a)

    # Two forward, of which the first is done twice, and two backward of each.
    assert count_flops(remat, a) == (2 + 1 + 4) * product


def test_a_body_that_sees_the_part_of_one_device():
    mesh = make_mesh()
    part = PartitionSpec(mesh.axis_names[0])
    fn = jax.shard_map(
        lambda a, b: a @ b, mesh=mesh, in_specs=(part, PartitionSpec()), out_specs=part
    )
    assert count_flops(fn, shape(16, 8), shape(8, 4)) == 2 * 16 * 8 * 4


def test_a_net():
    """Three times the forward pass, but for the gradient of the input."""
    net = nn.Sequential([nn.Conv(8, (3, 3)), nn.swish, nn.Conv(4, (3, 3), strides=2)])
    x = shape(2, 16, 16, 3)
    params = jax.eval_shape(net.init, jax.random.key(0), x)
    first, second = 2 * 2 * 256 * 9 * 3 * 8, 2 * 2 * 64 * 9 * 8 * 4
    assert count_flops(net.apply, params, x) == first + second

    def loss(params, x):
        return jnp.mean(jnp.square(net.apply(params, x)))

    assert count_flops(jax.grad(loss), params, x) == 2 * first + 3 * second


def test_values_serve_as_shapes():
    assert count_flops(jnp.matmul, np.ones((2, 3)), np.ones((3, 4))) == 2 * 2 * 3 * 4
