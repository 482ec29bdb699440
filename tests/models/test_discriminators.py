import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from movq_jax.models.discriminators import DISCRIMINATORS, PatchDiscriminator

SMALL = PatchDiscriminator(width=8, layers=2)


def draw(batch=4, side=32, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(-1, 1, (batch, side, side, 3)), jnp.float32)


@pytest.fixture(scope="module")
def variables():
    key = jax.random.key(0, impl="rbg")  # compiles faster
    return jax.jit(SMALL.init)(key, draw())


@pytest.mark.parametrize(
    ("layers", "parameters", "side"), [(3, 2_765_633, 30), (2, 663_361, 62)]
)
def test_the_published_sizes(layers, parameters, side):
    module = DISCRIMINATORS["patch"](layers=layers)
    images = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    sizes = [x.size for x in jax.tree.leaves(variables["params"])]
    assert sum(sizes) == parameters
    logits = jax.eval_shape(module.apply, variables, images)
    assert logits.shape == (2, side, side, 1)


def test_where_the_parameters_start(variables):
    params = variables["params"]
    kernels = [params[name]["kernel"] for name in ("conv_0", "conv_1", "conv_out")]
    together = np.concatenate([np.ravel(kernel) for kernel in kernels])
    np.testing.assert_allclose(together.std(), 0.02, rtol=0.05)
    scale = np.asarray(params["norm_2"]["scale"])
    assert 0 < abs(scale - 1).max() < 0.1
    assert set(params["conv_1"]) == {"kernel"} != set(params["conv_0"])


def test_training_takes_the_batchs_statistics_and_keeps_their_average(variables):
    x = draw()
    train = jax.jit(lambda v: SMALL.apply(v, x, train=True, mutable="batch_stats"))
    logits, updated = train(variables)
    before, after = variables["batch_stats"], updated["batch_stats"]
    h = SMALL.apply(
        variables, x, mutable="intermediates", capture_intermediates=True, train=False
    )[1]["intermediates"]["conv_1"]["__call__"][0]
    for name, moment in (("mean", h.mean((0, 1, 2))), ("var", h.var((0, 1, 2)))):
        expected = 0.9 * before["norm_1"][name] + 0.1 * moment
        np.testing.assert_allclose(after["norm_1"][name], expected, atol=1e-6)
    # What was kept before has no influence.
    other = jax.tree.map(lambda a: 3 * a + 1, before)
    again, _ = train({"params": variables["params"], "batch_stats": other})
    np.testing.assert_array_equal(again, logits)


def test_evaluation_takes_the_kept_statistics(variables):
    evaluate = jax.jit(SMALL.apply)
    all_at_once = evaluate(variables, draw())
    one = evaluate(variables, draw()[1:2])
    np.testing.assert_allclose(one, all_at_once[1:2], atol=1e-6)
    other = jax.tree.map(lambda a: 3 * a + 1, variables["batch_stats"])
    params = variables["params"]
    changed = evaluate({"params": params, "batch_stats": other}, draw())
    assert np.any(changed != all_at_once)


def test_statistics_are_of_the_batch_on_all_devices(variables):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x = jnp.arange(8.0).reshape(8, 1, 1, 1) * draw(8)  # no two devices see the same
    on_devices = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    everywhere = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    train = jax.jit(lambda v, x: SMALL.apply(v, x, train=True, mutable="batch_stats"))
    one, eight = train(variables, x), train(everywhere, on_devices)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, eight)


def test_in_bfloat16_logits_and_statistics_are_float32(variables):
    module = PatchDiscriminator(width=8, layers=2, dtype=jnp.bfloat16)
    train = jax.jit(lambda v, x: module.apply(v, x, train=True, mutable="batch_stats"))
    logits, updated = train(variables, draw())
    kept = jax.tree.leaves((logits, updated))
    assert {a.dtype for a in kept} == {jnp.dtype("float32")}
    assert np.all(np.isfinite(logits))


def test_without_norm_every_convolution_has_a_bias():
    module = PatchDiscriminator(width=8, layers=2, norm="none")
    variables = jax.eval_shape(module.init, jax.random.key(0), draw())
    assert list(variables) == ["params"]
    assert all(set(conv) == {"kernel", "bias"} for conv in variables["params"].values())
