"""What the heads cost, and what they make of the tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.flops import count_flops
from movq_jax.models.priors import Tokens
from movq_jax.models.priors.embedding import ChannelEmbedding
from movq_jax.models.priors.heads import (
    BookOutputs,
    DepthHead,
    ParallelHead,
    to_columns,
)
from movq_jax.models.transformer import normal

MIXED = Tokens((2, 2), (7, 5, 7), ("a", "b", "a"))


def embedding(tokens, width):
    return ChannelEmbedding(tokens, width, masked=False, start=normal)


def abstract(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def test_columns():
    logits = to_columns(jnp.ones((2, 3), jnp.bfloat16), 5)
    assert logits.dtype == jnp.float32
    expected = [[1, 1, 1, -1e30, -1e30]] * 2
    np.testing.assert_array_equal(logits, np.float32(expected))
    difference = logits - to_columns(jnp.ones((2, 3)), 5)
    assert np.all(difference == 0)  # of guidance: no nan


def test_a_parallel_head_uses_the_embeddings_tables(fill):
    module, x = ParallelHead(embedding(MIXED, 8)), jnp.ones((1, 4, 8))
    init = lambda key, x: module.init(key, x, method="logits")  # noqa: E731
    shapes = jax.eval_shape(init, jax.random.key(0), x)["params"]
    biases = {f"bias_{m}": shapes[f"bias_{m}"].shape for m in range(3)}
    assert biases == {"bias_0": (7,), "bias_1": (5,), "bias_2": (7,)}
    assert shapes["embedding"]["table_1"].shape == (5, 8)
    assert not any("kernel" in name for name in shapes)


@pytest.mark.parametrize("m", [0, 1, 2])
def test_logits_of_a_channel_that_the_program_chooses(fill, m):
    module, h = BookOutputs(MIXED, 8), jnp.ones((2, 4, 3, 8))
    params = fill(module, h)
    whole = module.apply({"params": params}, h)
    assert whole.shape == (2, 4, 3, 7)

    @jax.jit
    def chosen(m):
        return module.apply({"params": params}, h[..., 0, :], m, method="channel")

    np.testing.assert_allclose(chosen(m), whole[:, :, m], atol=1e-5)


@pytest.mark.parametrize(("channels", "width"), [(2, 768), (4, 768), (4, 1024)])
def test_drawing_costs_one_pass(channels, width):
    """Of the depth head; RQ-Transformer's, with M steps of a cache."""
    tokens = Tokens((16, 16), (1024,) * channels, ("book",) * channels)
    head = DepthHead(embedding(tokens, width), depth=3, heads=16, dropout=0.1)
    features, ids = abstract(1, 256, width), abstract(1, 256, channels, dtype=jnp.int32)
    init = lambda *args: head.init(*args, method="logits")  # noqa: E731
    variables = jax.eval_shape(init, jax.random.key(0), features, ids)

    def greedy(m, logits):
        return jnp.argmax(logits[0], axis=-1), jnp.max(logits[0], axis=-1)

    def draw(variables, features):
        return head.apply(variables, features[None], greedy, method="draw")

    def whole(variables, features, ids):
        return head.apply(variables, features, ids, method="logits")

    drawing = count_flops(draw, variables, features)
    one_pass = count_flops(whole, variables, features, ids)
    assert abs(drawing / one_pass - 1) < 0.03
    if channels == 4:  # 45 and 80 GFLOP a step
        assert round(one_pass / 1e9) == {768: 45, 1024: 81}[width]
