"""The steps of the prior stage, on a toy that can be learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax import load
from movq_jax.training import metrics as metrics_lib
from movq_jax.training import prior_task as task

KINDS = {
    "depth": "maskgit_photos:tiny",
    "parallel": "maskgit_photos:parallel,tiny",
    "independent": "maskgit_photos:independent,tiny",
    "ar": "ar_photos:tiny",
    "flat": "ar_photos:flat,tiny",
}


@pytest.fixture
def resolved(prior_config, tmp_path):
    """Make a config whose tokens are known."""

    def make(*overrides, **options):
        return task.resolve(prior_config(*overrides, **options), tmp_path, None)

    return make


def run(config, batch, steps, frozen=None):
    """Returns the state after some steps, and the metrics of each."""
    frozen = task.load_frozen(config) if frozen is None else frozen
    step = jax.jit(task.make_train_step(config, "prior"))
    state, found = jax.jit(lambda: task.init_state(config))(), []
    for _ in range(steps):
        state, metrics = step(state, batch, frozen)
        found.append(metrics_lib.compute(jax.device_get(metrics), "train"))
    return state, found


@pytest.fixture
def batch(toy_ids):
    return {"ids": jnp.asarray(toy_ids[:8]), "label": jnp.arange(8) % 3}


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_what_can_be_learned(resolved, batch, kind):
    config = resolved(
        "loss.label_smoothing=0.0", "train.ema_decay=0.0", spec=KINDS[kind]
    )
    frozen = task.load_frozen(config)
    evaluate = jax.jit(task.make_eval_step(config))
    examples = batch | {"mask": jnp.ones(8, bool), "index": jnp.arange(8)}

    def evaluated(state):
        metrics = jax.device_get(evaluate(state, examples, frozen))
        return metrics_lib.compute(metrics, "val")

    before = evaluated(jax.jit(lambda: task.init_state(config))())
    state, found = run(config, batch, 50, frozen)
    first, last, after = found[0], found[-1], evaluated(state)
    assert first["train/loss"] == pytest.approx(np.log(32), rel=0.25)
    assert last["train/loss"] < 0.4 * first["train/loss"]
    assert last["train/accuracy"] > 0.6
    for channel in range(2):
        assert last[f"train/loss_channel_{channel}"] < 2
        assert 0 <= last[f"train/accuracy_channel_{channel}"] <= 1
    quarters = {name for step in found for name in step if "masked" in name}
    expected = {f"train/loss_masked_{name}" for name in task.QUARTERS}
    assert quarters == (set() if kind in ("ar", "flat") else expected)
    assert int(state.step) == 50 and int(state.skipped_steps) == 0

    assert before["val/bits_per_token"] == pytest.approx(5, rel=0.3)
    assert after["val/bits_per_token"] < 0.5 * before["val/bits_per_token"]
    assert after["val/accuracy"] > before["val/accuracy"]
    assert after["val/bits_per_image"] == pytest.approx(8 * after["val/bits_per_token"])
    channels = [after[f"val/bits_channel_{m}"] for m in range(2)]
    assert np.mean(channels) == pytest.approx(after["val/bits_per_token"], rel=1e-5)
    assert task.score(after) > task.score(before)


@pytest.mark.parametrize("kind", ["depth", "ar"])
def test_padding_and_the_batch_do_not_change_an_evaluation(resolved, batch, kind):
    config = resolved(spec=KINDS[kind])
    frozen = task.load_frozen(config)
    state = jax.jit(lambda: task.init_state(config))()
    evaluate = jax.jit(task.make_eval_step(config))
    batch |= {"mask": jnp.ones(8, bool), "index": jnp.arange(8) + 100}
    whole = evaluate(state, batch, frozen)
    parts = []
    for start, count in ((0, 5), (5, 3)):
        rows = (np.arange(8) + start) % 8
        part = {name: value[rows] for name, value in batch.items()}
        part["mask"] = jnp.arange(8) < count
        parts.append(jax.device_get(evaluate(state, part, frozen)))
    whole = metrics_lib.compute(jax.device_get(whole), "val")
    assert metrics_lib.compute(metrics_lib.merge(parts), "val") == pytest.approx(
        whole, rel=1e-5
    )


def test_images_are_the_indices_that_the_tokenizer_makes_of_them(resolved, tiny_bundle):
    config = resolved()
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    ids = load(tiny_bundle).encode(images)
    labels = np.zeros(8, np.int32)
    _, from_images = run(config, {"image": images, "label": labels}, 2)
    _, from_ids = run(config, {"ids": ids, "label": labels}, 2)
    assert from_images[-1] == pytest.approx(from_ids[-1], rel=1e-5)


def test_parts_of_a_batch_give_the_gradient_of_the_whole(resolved, batch):
    whole = resolved("loss.label_smoothing=0.0", spec=KINDS["ar"])
    parts = resolved(
        "loss.label_smoothing=0.0", "train.accumulation=4", spec=KINDS["ar"]
    )
    assert run(parts, batch, 3)[1][-1] == pytest.approx(
        run(whole, batch, 3)[1][-1], 1e-3
    )


def test_parts_of_a_batch_have_masks_of_their_own(resolved, toy_ids):
    config = resolved("train.accumulation=2")
    loss = jax.jit(task.make_loss(config))
    state = jax.jit(lambda: task.init_state(config))()
    ids, labels = jnp.asarray(toy_ids[:4]).reshape(4, 4, 2), jnp.zeros(4, jnp.int32)

    def masked(step, number):
        _, found = loss(state.gen_params, ids, labels, step, number)
        return np.asarray(found["by_image"])

    np.testing.assert_array_equal(masked(0, 0), masked(0, 0))
    assert not np.array_equal(masked(0, 0), masked(0, 1))
    assert not np.array_equal(masked(0, 0), masked(1, 0))


def test_a_bad_step_is_skipped(resolved, batch):
    config = resolved("optim.gen.learning_rate=1e38", "optim.schedule.warmup_steps=0")
    state, found = run(config, batch, 3)
    assert int(state.skipped_steps) >= 1 and int(state.step) == 3
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.gen_params))


def test_classes_are_learned_and_dropped(resolved, toy_ids):
    """The class alone tells the two grids apart; without it half of them are wrong."""
    options = ("model.num_classes=-1", "loss.class_dropout=0.5", "train.ema_decay=0.0")
    smooth = ("loss.label_smoothing=0.0",)
    config = resolved(*options, *smooth, spec=KINDS["ar"])
    assert config.model.num_classes == 3
    batch = {"ids": jnp.asarray(toy_ids[:8]), "label": jnp.arange(8) % 2}
    state, _ = run(config, batch, 80)
    evaluate = jax.jit(task.make_eval_step(config))
    frozen = task.load_frozen(config)
    batch |= {"mask": jnp.ones(8, bool), "index": jnp.arange(8)}

    def bits(labels):
        metrics = jax.device_get(evaluate(state, batch | {"label": labels}, frozen))
        return metrics_lib.compute(metrics, "val")["val/bits_per_image"]

    told, not_told = bits(batch["label"]), bits(jnp.full(8, 3))
    assert told < 1 and not_told > told + 0.5


@pytest.mark.parametrize("kind", ["depth", "flat"])
def test_samples_of_the_log(resolved, batch, kind):
    config = resolved("model.num_classes=-1", spec=KINDS[kind])
    frozen = task.load_frozen(config)
    state = jax.jit(lambda: task.init_state(config))()
    draw = task.preview(config)
    batch = {"mask": np.ones(4, bool)}
    first = draw(state, batch, frozen)["val/samples"]
    assert first.dtype == np.uint8 and first.ndim == 3 and first.shape[-1] == 3
    np.testing.assert_array_equal(draw(state, batch, frozen)["val/samples"], first)


def test_full_size_states_have_the_published_sizes(resolved):
    """MaskGIT's prior has 172.5 M; it has rows for 1,000 classes and one more here."""
    config = resolved(spec="maskgit_photos:parallel").unlock()
    config.model.update(width=768, depth=24, heads=16, mlp=3072, num_classes=1000)
    config.tokens.update(grid=(16, 16), codebook_sizes=(1024,), books=("codebook",))
    state = jax.eval_shape(lambda: task.init_state(config))
    count = sum(x.size for x in jax.tree.leaves(state.gen_params))
    assert count == pytest.approx(172_457_193, rel=1e-4)
