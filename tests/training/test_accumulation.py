"""A batch in parts against the whole of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.training import accumulation, sharding
from movq_jax.training import tokenizer_task as task
from movq_jax.training.accumulation import accumulate


def test_the_parts_of_each_image_come_back_together():
    images = jnp.arange(8.0).reshape(8, 1)

    def part(carry, images, number):
        return carry + 1, jnp.mean(images), images * 10

    carry, mean, collected = accumulate(part, jnp.zeros(()), images, 4)
    assert carry == 4 and mean == pytest.approx(3.5)
    assert sorted(np.asarray(collected).reshape(-1)) == [10 * i for i in range(8)]


def test_a_loop_is_the_same_as_parts_in_a_row(monkeypatch):
    images = jnp.arange(8.0).reshape(8, 1)

    def part(carry, images, number):
        return carry * 2 + number, jnp.mean(images), images * 10

    results = []
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(accumulation.jax, "default_backend", lambda b=backend: b)
        results.append(accumulate(part, jnp.ones((), int), images, 4))
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_one_part_is_a_plain_call():
    calls = []

    def part(carry, batch, number):
        calls.append(number)
        return carry, batch, batch

    assert accumulate(part, 1, 2, 1) == (1, 2, 2)
    assert calls == [0]


@pytest.fixture
def separable(adversarial_config):
    """A config all of whose losses are means over images, with a GAN and R1."""

    def make(*overrides):
        return adversarial_config(
            "loss.adversarial.name=non_saturating",
            "loss.adversarial.adaptive=False",
            "loss.adversarial.r1.weight=1.0",
            "loss.discriminator.norm=group",
            # Adam divides by the root of squared gradients: it makes rounding large.
            "optim.gen.eps=1e-3",
            "optim.disc.eps=1e-3",
            "optim.clip.disc.name=global_norm",
            *overrides,
        )

    return make


def one_step(config, batch, mesh=None, phase="adversarial"):
    state = jax.jit(lambda: task.init_state(config))()
    step = task.make_train_step(config, phase)
    if mesh is not None:
        everywhere = sharding.replicated(mesh)
        state = jax.device_put(state, everywhere)
        batch = sharding.shard_local_batch(batch, mesh)
    state, metrics = jax.jit(step)(state, batch, {})
    return jax.device_get(state), jax.device_get(metrics)


def assert_close(a, b, rtol=1e-5, atol=2e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, atol), a, b)


def test_four_parts_equal_one_batch(separable, batch):
    whole, metrics = one_step(separable(), batch)
    parts, metrics_of_parts = one_step(separable("train.accumulation=4"), batch)
    assert_close(whole, parts)
    assert_close(metrics, metrics_of_parts, rtol=1e-4)
    assert int(metrics["codes"].counts["codebook"].sum()) == 8 * 8 * 8 * 4


def test_devices_take_their_own_images_apart(separable, batch):
    batch = {"image": np.concatenate([batch["image"], batch["image"][::-1]])}
    config = separable("train.accumulation=2", "train.batch_size=16")
    alone = one_step(config, batch)
    together = one_step(config, batch, sharding.make_mesh(jax.devices()[:8]))
    assert_close(alone, together, rtol=1e-4)


def test_batch_norm_and_the_adaptive_weight_see_one_part(adversarial_config, batch):
    """The stated difference: each micro-batch has its own statistics and weight."""
    whole, _ = one_step(adversarial_config(), batch)
    parts, metrics = one_step(adversarial_config("train.accumulation=4"), batch)
    stats = [s.variables["disc"]["batch_stats"]["norm_1"] for s in (whole, parts)]
    assert not np.allclose(stats[0]["mean"], stats[1]["mean"], rtol=1e-3)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(parts))


def test_less_memory(separable, batch, monkeypatch):
    # As on an accelerator: on a CPU the parts are written out, and need not wait.
    monkeypatch.setattr(accumulation.jax, "default_backend", lambda: "gpu")

    def temporary(accumulation):
        config = separable(f"train.accumulation={accumulation}", "model.width=16")
        state = jax.eval_shape(lambda: task.init_state(config))
        images = jax.ShapeDtypeStruct((32, 32, 32, 3), jnp.uint8)
        step = jax.jit(task.make_train_step(config, "adversarial"))
        compiled = step.lower(state, {"image": images}, {}).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(4) < 0.5 * temporary(1)
