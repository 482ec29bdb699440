import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from movq_jax.errors import UserError
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.training.optimizers import decayed, make_optimizer, make_schedule


def optim(schedule=None, clip=None, gen=None):
    adam = {"name": "adam", "learning_rate": 0.1, "b1": 0.5, "b2": 0.9}
    none = {"name": "none", "value": 1.0}
    return {
        "gen": adam | (gen or {}),
        "disc": adam,
        "schedule": schedule or {"name": "constant"},
        "clip": {"gen": clip or none, "disc": none},
    }


def test_a_constant_rate_after_its_warm_up():
    rate = make_schedule(optim({"name": "constant", "warmup_steps": 4}), "gen")
    np.testing.assert_allclose(
        [rate(i) for i in range(6)], [0.025, 0.05, 0.075, 0.1, 0.1, 0.1], rtol=1e-6
    )


@pytest.mark.parametrize(("name", "middle"), [("cosine", 0.055), ("linear", 0.055)])
def test_a_rate_that_falls(name, middle):
    schedule = {"name": name, "num_steps": 12, "warmup_steps": 2, "end_factor": 0.1}
    rate = make_schedule(optim(schedule), "gen")
    np.testing.assert_allclose(
        [rate(1), rate(2), rate(7), rate(12), rate(99)],
        [0.1, 0.1, middle, 0.01, 0.01],
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", ["constant", "cosine", "linear"])
def test_what_begins_later_ends_with_the_others(name):
    """Its warm-up is its own; after it, at a training step both have one rate."""
    schedule = {"name": name, "warmup_steps": 3}
    if name != "constant":
        schedule |= {"num_steps": 20, "end_factor": 0.1}
    early = make_schedule(optim(schedule), "gen")
    late = make_schedule(optim(schedule), "disc", begins=8)
    np.testing.assert_allclose(
        [late(i) for i in range(3, 12)], [early(8 + i) for i in range(3, 12)], rtol=1e-6
    )
    np.testing.assert_allclose(late(0), 0.1 / 3, rtol=1e-6)


def step(config, gradient):
    optimizer = make_optimizer(config, "gen")
    params = jnp.zeros_like(gradient)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    return updates


def test_clipping():
    gradient = jnp.array([3.0, 4.0])

    def clipped(clip):
        return make_optimizer(optim(clip=clip), "gen").init(gradient)

    by_norm, _ = optax.clip_by_global_norm(1.0).update(gradient, ())
    np.testing.assert_allclose(by_norm, [0.6, 0.8], rtol=1e-6)
    for name in ("none", "global_norm", "layer_wise", "value"):
        assert clipped({"name": name, "value": 1.0})


def test_adam_divides_by_the_clipped_gradient():
    # With eps as large as the gradient, what was clipped before Adam is visible.
    gradient = jnp.array([3.0, 4.0])
    sizes = {
        name: np.abs(
            step(optim(clip={"name": name, "value": 1.0}, gen={"eps": 1.0}), gradient)
        )
        for name in ("none", "global_norm", "value")
    }
    np.testing.assert_allclose(sizes["none"], 0.1 * np.array([3 / 4, 4 / 5]), rtol=1e-5)
    np.testing.assert_allclose(
        sizes["global_norm"], 0.1 * np.array([0.6 / 1.6, 0.8 / 1.8]), rtol=1e-5
    )
    np.testing.assert_allclose(sizes["value"], 0.1 * np.array([0.5, 0.5]), rtol=1e-5)


def test_each_part_has_its_clipping():
    config = optim(clip={"name": "value", "value": 1e-3}, gen={"eps": 1.0})
    config["disc"] = config["gen"]
    gradient = jnp.array([3.0, 4.0])
    updates = {}
    for part in ("gen", "disc"):
        optimizer = make_optimizer(config, part)
        updates[part], _ = optimizer.update(gradient, optimizer.init(gradient))
    assert np.all(np.abs(updates["gen"]) < 2e-4) and np.all(
        np.abs(updates["disc"]) > 7e-2
    )


def clip_alone(clip, gradients):
    """What Adam is given: with b1 = b2 = 0 and a large eps it is linear."""
    huge = {"b1": 0.0, "b2": 0.0, "eps": 1e8, "learning_rate": 1e8}
    optimizer = make_optimizer(optim(clip=clip, gen=huge), "gen")
    updates, _ = optimizer.update(gradients, optimizer.init(gradients), gradients)
    return jax.tree.map(lambda a: -np.asarray(a), updates)


def test_clipping_by_value_is_clipping_by_hand():
    gradient = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    got = clip_alone({"name": "value", "value": 0.3}, jnp.asarray(gradient))
    np.testing.assert_allclose(got, np.clip(gradient, -0.3, 0.3), rtol=1e-5)


def test_clipping_layer_wise_shortens_each_tensor_for_itself():
    long, short = np.array([[3.0], [4.0]]), np.array([0.3, 0.4])
    zero = np.zeros((2, 2))
    gradients = {"a": {"kernel": long, "bias": short}, "b": {"kernel": zero}}
    gradients = jax.tree.map(jnp.float32, gradients)
    got = clip_alone({"name": "layer_wise", "value": 2.0}, gradients)
    np.testing.assert_allclose(got["a"]["kernel"], 2 / 5 * long, rtol=1e-5)
    np.testing.assert_allclose(got["a"]["bias"], short, rtol=1e-5)
    np.testing.assert_array_equal(got["b"]["kernel"], zero)


ADAMW = {"name": "adamw", "weight_decay": 0.5}


def test_only_kernels_decay(tiny_movq, fill):
    tokenizer = build_tokenizer(
        tiny_movq | {"multipliers": [1], "attention_factors": []}
    )
    params = fill(tokenizer, np.zeros((1, 4, 4, 3), np.float32))
    optimizer = make_optimizer(optim(gen=ADAMW), "gen")

    @jax.jit
    def step(params):
        zero = jax.tree.map(jnp.zeros_like, params)
        return optimizer.update(zero, optimizer.init(params), params)[0]

    updates = step(params)
    kept, shrunk = set(), set()
    for (path, update), param in zip(
        jax.tree_util.tree_leaves_with_path(updates),
        jax.tree.leaves(params),
        strict=True,
    ):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if np.any(update):
            np.testing.assert_allclose(update, -0.1 * 0.5 * param, rtol=1e-5)
            shrunk.add(name)
        else:
            assert np.any(param)
            kept.add(name)
    assert {name.rsplit("/")[-1] for name in shrunk} == {"kernel"}
    assert {name.rsplit("/")[-1] for name in kept} == {"bias", "scale", "rows"}
    assert "quantize/codebook/rows" in kept


def test_what_decays_is_told_by_name_and_axes():
    leaf = jnp.zeros((3, 3))
    params = {
        "dense": {"kernel": leaf, "bias": leaf},
        "one": {"kernel": jnp.zeros(3)},
        "words": {"embedding": leaf},
    }
    assert decayed(params) == {
        "dense": {"kernel": True, "bias": False},
        "one": {"kernel": False},
        "words": {"embedding": False},
    }
    assert decayed(leaf) is False


def test_adamw_without_decay_is_adam():
    gradient = {"kernel": jnp.array([[3.0, -4.0]])}

    def run(gen):
        optimizer = make_optimizer(optim(gen=gen), "gen")
        params, state = gradient, optimizer.init(gradient)
        for _ in range(3):
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params["kernel"]

    without = run(ADAMW | {"weight_decay": 0.0})
    np.testing.assert_allclose(without, run({}), rtol=1e-6)
    # The same steps, and each takes rate * decay off: kernel_t+1 = .95 kernel_t + step.
    start, steps = gradient["kernel"], without - gradient["kernel"]
    expected = 0.95**3 * start + steps / 3 * (0.95**2 + 0.95 + 1)
    np.testing.assert_allclose(run(ADAMW), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (optim(schedule={"name": "cosin"}), "'cosine'"),
        (optim(schedule={"name": "cosine"}), "num_steps"),
        (optim(clip={"name": "norm"}), "Known: global_norm, layer_wise, none, value"),
        (optim(gen={"name": "adams"}), "'adam'"),
        (optim(gen={"name": "adamw"}), r"gen \(adamw\).*weight_decay"),
        (optim(gen={"weight_decay": 0.1}), r"gen \(adam\) has no field"),
        (optim(gen={"beta1": 0.5}), "beta1"),
    ],
)
def test_a_wrong_field_is_named(config, words):
    with pytest.raises(UserError, match=words):
        make_optimizer(config, "gen")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (optim(gen={"learning_rate": -1.0}), "gen.learning_rate is -1.0; 0 is"),
        (optim(gen={"learning_rate": float("nan")}), "gen.learning_rate is nan"),
        (optim(gen={"learning_rate": "1e-4"}), "gen.learning_rate is '1e-4'"),
        (optim(gen={"b1": 1.0}), "gen.b1 is 1.0; it lies in 0..1, without 1"),
        (optim(gen={"b2": -0.1}), "gen.b2 is -0.1"),
        (optim(gen={"eps": 0.0}), "gen.eps is 0.0; it must be above 0"),
        (optim(gen=ADAMW | {"weight_decay": -1}), "gen.weight_decay is -1; 0 is"),
        (optim(clip={"name": "value", "value": 0.0}), "clip.gen.value is 0.0; it must"),
        (
            optim(schedule={"name": "constant", "warmup_steps": -1}),
            "schedule.warmup_steps is -1; 0 is the least",
        ),
        (
            optim(schedule={"name": "linear", "num_steps": 9, "end_factor": 1.5}),
            "schedule.end_factor is 1.5; it lies in 0..1",
        ),
    ],
)
def test_a_number_out_of_range_is_named(config, words):
    with pytest.raises(UserError, match="^config.optim." + words):
        make_optimizer(config, "gen")


def test_what_a_member_ignores_may_be_anything():
    ignored = {"name": "constant", "num_steps": -1, "end_factor": 7}
    assert make_optimizer(optim(ignored, {"name": "none", "value": 0}), "gen")
