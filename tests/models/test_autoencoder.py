import jax
import jax.numpy as jnp
import pytest

from movq_jax.models.autoencoder import Decoder, Encoder
from movq_jax.models.layers import group_norm, spatial_norm

# XLA's scheduler for CPUs runs what it can as early as it can, so that what is to be
# computed again later is there from the start, unless it is told to save memory.
SAVE_MEMORY = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
BACKBONE = dict(width=8, multipliers=(1, 2, 4), res_blocks=2, attention_factors=(2, 4))


def shapes(module, *shapes):
    """Shapes of the parameters, by the name of the part, and of the result."""
    inputs = [jnp.zeros(shape) for shape in shapes]
    out, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), *inputs)
    return jax.tree.map(jnp.shape, variables["params"]), out


def test_the_encoders_parts():
    params, z = shapes(Encoder(z_channels=5, **BACKBONE), (2, 16, 24, 3))
    assert z.shape == (2, 4, 6, 5)
    assert set(params) == {
        "conv_in",
        *(f"down_{level}_block_{i}" for level in range(3) for i in range(2)),
        *(f"down_{level}_attn_{i}" for level in (1, 2) for i in range(2)),
        "down_0_downsample",
        "down_1_downsample",
        "mid",
        "norm_out",
        "conv_out",
    }
    assert params["down_0_downsample"]["conv"]["kernel"] == (3, 3, 8, 8)
    assert params["down_2_block_0"]["conv_shortcut"]["kernel"] == (1, 1, 16, 32)
    assert params["conv_out"]["kernel"] == (3, 3, 32, 5)


@pytest.mark.parametrize("norm", [group_norm(), spatial_norm()])
def test_the_decoders_parts(norm):
    decoder = Decoder(norm=norm, **BACKBONE)
    params, x = shapes(decoder, (2, 4, 6, 5), (2, 4, 6, 7))
    assert x.shape == (2, 16, 24, 3) and x.dtype == jnp.float32
    assert set(params) == {
        "conv_in",
        *(f"up_{level}_block_{i}" for level in range(3) for i in range(3)),
        *(f"up_{level}_attn_{i}" for level in (1, 2) for i in range(3)),
        "up_2_upsample",
        "up_1_upsample",
        "mid",
        "norm_out",
        "conv_out",
    }
    assert params["conv_in"]["kernel"] == (3, 3, 5, 32)
    assert params["up_1_block_0"]["conv_shortcut"]["kernel"] == (1, 1, 32, 16)
    assert params["up_1_upsample"]["conv"]["kernel"] == (3, 3, 16, 16)
    if "conv_y" in params["norm_out"]:
        assert params["norm_out"]["conv_y"]["kernel"] == (1, 1, 7, 8)


def test_computing_again_needs_less_memory():
    def temporary_bytes(remat_levels):
        backbone = dict(width=8, multipliers=(1, 1, 1), res_blocks=3)
        encoder = Encoder(
            attention_factors=(),
            z_channels=4,
            remat_levels=remat_levels,
            **backbone,
        )
        x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        variables = jax.eval_shape(encoder.init, jax.random.key(0), x)

        def loss(variables, x):
            return jnp.sum(jnp.square(encoder.apply(variables, x)))

        program = jax.jit(jax.grad(loss)).lower(variables, x).compile(SAVE_MEMORY)
        return program.memory_analysis().temp_size_in_bytes

    assert temporary_bytes((0,)) < 0.75 * temporary_bytes(())
