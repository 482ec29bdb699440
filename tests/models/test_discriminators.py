import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from movq_jax import families
from movq_jax.errors import UserError
from movq_jax.models.discriminators import (
    DISCRIMINATORS,
    PatchDiscriminator,
    StyleGANDiscriminator,
    blur_pool,
)

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


@pytest.mark.parametrize("norm", ["none", "group"])
def test_without_batch_norm_every_convolution_has_a_bias(norm):
    module = PatchDiscriminator(width=8, layers=2, norm=norm)
    variables = jax.eval_shape(module.init, jax.random.key(0), draw())
    assert list(variables) == ["params"]
    params = variables["params"]
    convolutions = {name for name in params if name.startswith("conv")}
    assert all(set(params[name]) == {"kernel", "bias"} for name in convolutions)
    assert (params.keys() - convolutions != set()) == (norm == "group")


def test_group_norm_takes_each_images_own_statistics(fill):
    module = PatchDiscriminator(width=16, layers=1, norm="group")
    x = draw()
    params = fill(module, x)
    apply = jax.jit(lambda x: module.apply({"params": params}, x, train=True))
    np.testing.assert_allclose(apply(x)[1:2], apply(x[1:2]), atol=1e-6)
    # One group a channel of 32: the maps of a channel have mean 0 and deviation 1.
    plain = jax.tree.map(jnp.ones_like, params["norm_1"])
    plain["bias"] = 0 * plain["bias"]
    states = module.apply(
        {"params": params | {"norm_1": plain}},
        x,
        capture_intermediates=True,
        mutable="intermediates",
    )[1]["intermediates"]
    normed = states["norm_1"]["__call__"][0]
    assert normed.shape[-1] == 32
    np.testing.assert_allclose(normed.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(normed.std((1, 2)), 1, atol=1e-3)


def test_group_norm_in_bfloat16_takes_statistics_in_float32(fill):
    module = PatchDiscriminator(width=16, layers=1, norm="group", dtype=jnp.bfloat16)
    params = fill(module, draw())
    # Far from 0: in bfloat16 nothing would be left of the variance.
    params["conv_1"]["bias"] += 8
    plain = {"scale": jnp.ones(32), "bias": jnp.zeros(32)}
    logits, states = module.apply(
        {"params": params | {"norm_1": plain}},
        draw(),
        capture_intermediates=True,
        mutable="intermediates",
    )
    outputs = states["intermediates"]
    h, normed = (outputs[name]["__call__"][0] for name in ("conv_1", "norm_1"))
    assert h.dtype == normed.dtype == jnp.bfloat16
    assert logits.dtype == jnp.float32
    h = np.asarray(h, np.float64)
    expected = (h - h.mean((1, 2), keepdims=True)) / h.std((1, 2), keepdims=True)
    np.testing.assert_allclose(np.asarray(normed, np.float64), expected, atol=0.02)


@pytest.mark.parametrize(("side", "layers"), [(6, 1), (24, 3)])
def test_the_fewest_pixels_that_leave_a_logit(side, layers):
    module = PatchDiscriminator(width=4, layers=layers)

    def logits(side):
        images = jnp.zeros((1, side, side + 1, 3))
        return jax.eval_shape(module.init_with_output, jax.random.key(0), images)[0]

    assert logits(side).shape == (1, 1, 1, 1)
    words = f"discriminator.layers is {layers}, too many for images of {side - 1}x"
    with pytest.raises(UserError, match=words):
        logits(side - 1)


def test_the_published_stylegan_discriminator():
    module = DISCRIMINATORS["stylegan"]()
    images = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    logits, variables = jax.eval_shape(
        module.init_with_output, jax.random.key(0), images
    )
    assert logits.shape == (2, 1, 1, 1) and list(variables) == ["params"]
    params = variables["params"]
    # By hand from the recipe: in -> out of each block, then 4x4 positions.
    blocks = [(64, 128), (128, 256), (256, 512), *[(512, 512)] * 3]
    expected = 3 * 64 * 9 + 64
    for i, (a, b) in enumerate(blocks):
        count = (a * a * 9 + a) + a * b + (a * b * 9 + b)
        sizes = [leaf.size for leaf in jax.tree.leaves(params[f"block_{i}"])]
        assert sum(sizes) == count
        expected += count
    expected += (512 * 512 * 9 + 512) + (16 * 512 * 512 + 512) + (512 + 1)
    assert expected == 23_998_017
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


@pytest.mark.parametrize(
    ("shape", "widths"),
    [
        ((32, 32), [64, 128, 256, 512]),
        ((64, 64), [64, 128, 256, 512, 512]),
        ((24, 48), [64, 128, 256, 512]),
        ((4, 4), [64]),
    ],
)
def test_stylegans_blocks_at_other_sizes(shape, widths):
    images = jax.ShapeDtypeStruct((1, *shape, 3), jnp.float32)
    logits, variables = jax.eval_shape(
        StyleGANDiscriminator().init_with_output, jax.random.key(0), images
    )
    params = variables["params"]
    blocks = [params[f"block_{i}"] for i in range(len(widths) - 1)]
    found = [block["conv_1"]["bias"].size for block in blocks]
    assert [params["conv_in"]["bias"].size, *found] == widths
    assert params["conv_out"]["bias"].size == widths[-1]
    assert logits.shape == (1, 1, 1, 1)


@pytest.mark.parametrize("shape", [(36, 36), (32, 33), (30, 32)])
def test_stylegan_names_sizes_that_do_not_halve(shape):
    images = jnp.zeros((1, *shape, 3))
    module = StyleGANDiscriminator(width=2)
    words = f"config.loss.discriminator.*{shape[0]}x{shape[1]} pixels"
    with pytest.raises(UserError, match=words):
        jax.eval_shape(module.init, jax.random.key(0), images)


def test_stylegan_sees_each_image_alone_and_gives_float32(fill):
    x = draw(4, 16)
    module = StyleGANDiscriminator(width=8, max_width=16)
    params = fill(module, x)
    logits = jax.jit(module.apply)({"params": params}, x)
    alone = jax.jit(lambda p, x: module.apply(p, x, train=True))
    np.testing.assert_allclose(
        alone({"params": params}, x[2:3]), logits[2:3], rtol=1e-5
    )
    rounded = StyleGANDiscriminator(width=8, max_width=16, dtype=jnp.bfloat16)
    approximate = jax.jit(rounded.apply)({"params": params}, x)
    assert approximate.dtype == logits.dtype == jnp.float32
    np.testing.assert_allclose(approximate, logits, atol=0.1 * float(logits.std()))


def test_blur_pool_is_the_average_of_four_taps_in_both_directions():
    x = draw(2, 8)[:, :, :6]
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = np.array([1, 3, 3, 1]) / 8
    rows = sum(t * padded[:, i : i + 7 : 2] for i, t in enumerate(taps))
    expected = sum(t * rows[:, :, i : i + 5 : 2] for i, t in enumerate(taps))
    y = blur_pool(x)
    assert y.shape == (2, 4, 3, 3)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    assert blur_pool(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "patch", "width": 0}, "discriminator.width is 0; 1 is the least"),
        ({"name": "patch", "layers": -1}, "discriminator.layers is -1"),
        (
            {"name": "patch", "norm": "grup"},
            "discriminator.norm is 'grup'; did you mean 'group'\\? Known: batch",
        ),
        ({"name": "stylegan", "width": 0}, "discriminator.width is 0"),
        ({"name": "stylegan", "max_width": 0}, "discriminator.max_width is 0"),
        ({"name": "stylegan", "layers": 3}, "no field 'layers'"),
        ({"name": "stylegan2"}, "did you mean 'stylegan'"),
    ],
)
def test_a_wrong_field_is_named(fields, words):
    with pytest.raises(UserError, match=words):
        families.make(DISCRIMINATORS, fields, "config.loss.discriminator")
