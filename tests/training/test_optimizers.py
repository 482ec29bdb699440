import jax.numpy as jnp
import numpy as np
import optax
import pytest

from movq_jax.errors import UserError
from movq_jax.training.optimizers import make_optimizer, make_schedule


def optim(schedule=None, clip=None, gen=None):
    adam = {"name": "adam", "learning_rate": 0.1, "b1": 0.5, "b2": 0.9}
    return {
        "gen": adam | (gen or {}),
        "schedule": schedule or {"name": "constant"},
        "clip": clip or {"name": "none", "value": 1.0},
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
    for name in ("none", "global_norm", "value"):
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


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (optim(schedule={"name": "cosin"}), "'cosine'"),
        (optim(schedule={"name": "cosine"}), "num_steps"),
        (optim(clip={"name": "norm"}), "Known: global_norm, none, value"),
        (optim(gen={"name": "adamw"}), "'adam'"),
        (optim(gen={"beta1": 0.5}), "beta1"),
    ],
)
def test_a_wrong_field_is_named(config, words):
    with pytest.raises(UserError, match=words):
        make_optimizer(config, "gen")
