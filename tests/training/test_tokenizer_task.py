"""One training step, looked at from all sides."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from movq_jax.training import losses, sharding
from movq_jax.training import metrics as metrics_lib
from movq_jax.training import tokenizer_task as task

# Of the first step, and the reconstruction loss of the second, which follows from the
# first one's gradients.
GOLDEN = {
    "reconstruction": {
        "loss_rec": 0.5592425,
        "loss_vq": 0.3636860,
        "grad_norm": 22.55637,
        "codebook_perplexity": 14.13645,
        "second_loss_rec": 0.5397336,
    },
    "adversarial": {
        "loss_rec": 0.5592425,
        "loss_adv": -0.06238868,
        "adv_weight": 3.633641,
        "grad_norm": 57.93806,
        "loss_disc": 0.9980767,
        "disc_grad_norm": 1.174921,
        "second_loss_rec": 0.5572571,
    },
}


def init(config):
    return jax.jit(lambda: task.init_state(config))()


def steps(config, state, batch, count=1, phase=None):
    """`count` steps on one batch; the last metrics as numbers."""
    step = jax.jit(task.make_train_step(config, phase or task.phase(config, 0)))
    for _ in range(count):
        state, metrics = step(state, batch, {})
    return state, metrics_lib.compute(jax.device_get(metrics), "train")


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("phase", GOLDEN)
def test_one_step_gives_the_golden_numbers(adversarial_config, batch, phase):
    config = adversarial_config()
    state, values = steps(config, init(config), batch, phase=phase)
    _, second = steps(config, state, batch, phase=phase)
    values["train/second_loss_rec"] = second["train/loss_rec"]
    got = {name: values[f"train/{name}"] for name in GOLDEN[phase]}
    assert got == pytest.approx(GOLDEN[phase], rel=5e-4)


def test_it_overfits_one_batch(tiny_config, batch):
    config = tiny_config("optim.schedule={'name': 'constant'}")
    config.optim.gen.learning_rate = 3e-3
    state = init(config)
    first = steps(config, state, batch)[1]["train/loss_rec"]
    last = steps(config, state, batch, 150)[1]["train/loss_rec"]
    assert last < 0.3 * first


def test_one_device_equals_eight(adversarial_config, batch):
    config = adversarial_config()
    results = []
    for count in (1, 8):
        mesh = sharding.make_mesh(jax.devices()[:count])
        everywhere = sharding.replicated(mesh)
        state = jax.jit(lambda: task.init_state(config), out_shardings=everywhere)()
        step = jax.jit(
            task.make_train_step(config, "adversarial"),
            out_shardings=(everywhere, everywhere),
        )
        state, metrics = step(state, sharding.shard_local_batch(batch, mesh), {})
        results.append((jax.device_get(metrics), jax.device_get(state.variables)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results
    )


def test_the_discriminator_leaves_the_generator_alone(adversarial_config, batch):
    config = adversarial_config("loss.adversarial.weight=0.0")
    state = init(config)
    alone, _ = steps(config, state, batch, phase="reconstruction")
    beside, _ = steps(config, state, batch, phase="adversarial")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        alone.gen_params,
        beside.gen_params,
    )
    assert_trees_equal(alone.disc_params, state.disc_params)
    for layer in ("conv_0", "conv_1", "conv_out"):
        before, after = (s.disc_params[layer]["kernel"] for s in (state, beside))
        assert jnp.any(before != after)


def test_the_phases_follow_each_other(adversarial_config, tiny_config):
    config = adversarial_config("loss.adversarial.start=5", "loss.adversarial.warmup=2")
    phases = [task.phase(config, step) for step in range(7)]
    assert phases == 3 * ["reconstruction"] + 2 * ["warmup"] + 2 * ["adversarial"]
    without = tiny_config("loss.adversarial.start=0")
    assert task.phase(without, 100) == "reconstruction"


def test_in_the_warmup_the_discriminator_learns_and_does_not_push(
    adversarial_config, batch
):
    config = adversarial_config()
    state = init(config)
    alone, _ = steps(config, state, batch, phase="reconstruction")
    beside, values = steps(config, state, batch, phase="warmup")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        alone.gen_params,
        beside.gen_params,
    )
    kernels = [s.disc_params["conv_0"]["kernel"] for s in (state, beside)]
    assert jnp.any(kernels[0] != kernels[1])
    assert "train/loss_disc" in values and "train/adv_weight" not in values


def test_everything_at_once(adversarial_config, batch):
    """R1 when it is due, LeCAM, augmentation, remat, bfloat16, two parts."""
    config = adversarial_config(
        "model.dtype=bfloat16",
        "loss.adversarial.name=non_saturating",
        "loss.adversarial.adaptive=False",
        "loss.adversarial.r1.weight=1.0",
        "loss.adversarial.r1.every=2",
        "loss.adversarial.lecam.weight=0.1",
        "loss.adversarial.augment.policies=('translation','color','cutout')",
        "loss.discriminator={'name': 'stylegan', 'width': 8, 'max_width': 16}",
        "train.remat_levels=(0,)",
        "train.accumulation=2",
        "optim.clip.gen.name=layer_wise",
    )
    state = init(config)
    step = jax.jit(task.make_train_step(config, "adversarial"))
    seen = []
    for _ in range(3):
        state, metrics = step(state, batch, {})
        seen.append(metrics_lib.compute(jax.device_get(metrics), "train"))
    assert ["train/r1" in values for values in seen] == [True, False, True]
    assert seen[0]["train/r1"] > 0
    assert int(state.skipped_steps) == 0
    assert float(state.variables["lecam"]["real"]) != 0.0
    assert {x.dtype.name for x in jax.tree.leaves(state.disc_params)} == {"float32"}


def test_the_weights_of_the_perceptual_loss_are_no_part_of_the_state(
    adversarial_config,
):
    plain, perceptual = adversarial_config(), adversarial_config()
    perceptual.loss.perceptual.update(name="lpips_vgg")
    shapes = [
        jax.eval_shape(lambda c=c: task.init_state(c)) for c in (plain, perceptual)
    ]
    assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])
    frozen = jax.tree.leaves(task.abstract_frozen(perceptual))
    assert sum(x.size for x in frozen) == 14_714_688 + 1_472  # VGG16 to conv5_3, heads


def test_each_optimizer_steps_once_a_step(adversarial_config, batch):
    config = adversarial_config()
    state, _ = steps(config, init(config), batch, 3)
    for optimizer in (state.gen_opt, state.disc_opt):
        counts = optax.tree.get_all_with_path(optimizer, "count")
        assert counts and all(count == 3 for _, count in counts)


def test_the_average_follows_the_weights(tiny_config, batch):
    config = tiny_config("train.ema_decay=0.0")
    state, _ = steps(config, init(config), batch)
    assert_trees_equal(state.ema_params, state.gen_params)
    config = tiny_config("train.ema_decay=1.0")
    start = init(config)
    state, _ = steps(config, start, batch)
    # The warm-up: at step 0 the old average weighs 1/10.
    expected = jax.tree.map(
        lambda old, new: 0.1 * old + 0.9 * new, start.ema_params, state.gen_params
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        state.ema_params,
        expected,
    )


@pytest.fixture
def poisoned_by_white(monkeypatch):
    """An L1 loss that is NaN for a batch of white images."""

    def loss(x, x_hat):
        return losses.l1_loss(x, x_hat) + jnp.where(jnp.mean(x) > 0.99, jnp.nan, 0.0)

    monkeypatch.setitem(losses.RECONSTRUCTION_LOSSES, "l1", loss)


def test_a_bad_step_changes_nothing_but_the_counters(
    adversarial_config, batch, poisoned_by_white
):
    config = adversarial_config()
    good, _ = steps(config, init(config), batch, 2)
    white = {"image": np.full_like(batch["image"], 255)}
    bad, values = steps(config, good, white, 2)
    assert (int(bad.step), int(bad.skipped_steps), int(bad.skipped_in_row)) == (4, 2, 2)
    for part in ("gen_params", "gen_opt", "ema_params", "disc_params", "disc_opt"):
        assert_trees_equal(getattr(bad, part), getattr(good, part))
    assert_trees_equal(bad.variables, good.variables)
    assert "train/loss_rec" not in values  # there is no number to tell
    again, _ = steps(config, bad, batch)
    assert (int(again.skipped_steps), int(again.skipped_in_row)) == (2, 0)


def test_the_adaptive_weight_costs_at_most_5_percent(adversarial_config):
    def flops(*overrides):
        # Large enough that convolutions, not bookkeeping, are what is counted.
        config = adversarial_config(
            "model.width=32",
            "data.image_size=32",
            "loss.discriminator.layers=2",
            *overrides,
        )
        state = jax.eval_shape(lambda: task.init_state(config))
        images = jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.uint8)
        step = jax.jit(task.make_train_step(config, "adversarial"))
        return (
            step.lower(state, {"image": images}, {}).compile().cost_analysis()["flops"]
        )

    fixed = flops("loss.adversarial.adaptive=False")
    assert fixed < flops() <= 1.05 * fixed


def test_evaluation_leaves_the_padding_out(tiny_config, batch):
    config = tiny_config()
    state = init(config)
    evaluate = jax.jit(task.make_eval_step(config))
    whole = evaluate(state, {"image": batch["image"][:5], "mask": np.ones(5, bool)}, {})
    padded = np.concatenate([batch["image"][:5], np.zeros((3, 16, 16, 3), np.uint8)])
    masked = evaluate(state, {"image": padded, "mask": np.arange(8) < 5}, {})
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, masked
    )
    assert float(jnp.sum(whole["codes"].counts["codebook"])) == 5 * 8 * 8 * 4


def test_bfloat16_trains_with_float32_parameters(adversarial_config, batch):
    config = adversarial_config("model.dtype=bfloat16")
    state, values = steps(config, init(config), batch)
    assert {x.dtype.name for x in jax.tree.leaves(state.gen_params)} == {"float32"}
    assert all(np.isfinite(value) for value in values.values())


def test_the_codebook_comes_from_encoder_features(tiny_config, batch):
    config = tiny_config()
    state = init(config)
    assert task.fits_to_data(config, 0)
    fitted = task.fit_to_data(config, state, iter([batch] * 10))
    codebook = fitted.gen_params["quantize"]["codebook"]["rows"]
    assert_trees_equal(codebook, fitted.ema_params["quantize"]["codebook"]["rows"])
    _, before = steps(config, state, batch)
    _, after = steps(config, fitted, batch)
    name = "train/quantisation_mse"
    assert after[name] < 0.5 * before[name]
    assert after["train/codebook_usage"] > before["train/codebook_usage"]
