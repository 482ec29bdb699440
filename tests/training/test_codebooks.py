"""Codebooks in training: rules, accumulation, dropout, averages, devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from movq_jax.training import codebooks, sharding
from movq_jax.training import tokenizer_task as task
from movq_jax.training.metrics import compute

DUAL = {
    "name": "dual",
    "codebook_size": 16,
    "dim": 8,
    "depth": 1,
    "heads": 2,
    "ffn": 8,
    "dropout": 0.2,
}
RULES = {
    "ema": {"name": "ema", "decay": 0.5, "revive_below": 0.5},
    "revive": {"name": "gradient", "decay": 0.5, "revive_below": 0.5},
    "cvq": {"name": "cvq"},
}


def make(tiny_config, *overrides, quantizer=None, rule=None):
    config = tiny_config("train.ema_decay=0.5", *overrides)
    with config.unlocked():
        if quantizer:
            config.model.quantizer = quantizer
        if rule:
            config.train.codebook_update = rule
    return config


def init(config):
    return jax.jit(lambda: task.init_state(config))()


def step(config, state, batch, count=1):
    train_step = jax.jit(task.make_train_step(config, "reconstruction"))
    for _ in range(count):
        state, metrics = train_step(state, batch, {})
    return state, compute(jax.device_get(metrics), "train")


def rows(state, book="codebook", params="gen_params"):
    return np.asarray(getattr(state, params)["quantize"][book]["rows"])


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_moves_the_codes_and_keeps_them_used(tiny_config, batch, rule):
    before, plain = step(c := make(tiny_config), init(c), batch, 8)
    config = make(tiny_config, rule=RULES[rule])
    after, values = step(config, init(config), batch, 8)
    assert np.all(np.isfinite(rows(after)))
    assert values["train/codebook_usage"] > plain["train/codebook_usage"]
    assert values["train/codebook_usage"] + values["train/codebook_dead"] / len(
        rows(after)
    ) == pytest.approx(1)
    assert set(after.variables["codebooks"]) == {"codebook"}
    assert before.variables["codebooks"] == {}


def test_the_optimizer_does_not_see_averaged_codes(tiny_config, batch):
    config = make(tiny_config, rule=RULES["ema"])
    state, _ = step(config, init(config), batch, 3)
    moments = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.gen_opt)
        if jax.tree_util.keystr(path, simple=True, separator="/").endswith("book/rows")
    ]
    assert len(moments) == 2 and not any(np.any(leaf) for leaf in moments)


def test_micro_batches_are_one_batch_to_a_rule(tiny_config, batch):
    results = {}
    for parts in (1, 2):
        config = make(tiny_config, f"train.accumulation={parts}", rule=RULES["ema"])
        results[parts], _ = step(config, init(config), batch)
    np.testing.assert_allclose(rows(results[1]), rows(results[2]), atol=1e-5)
    memory = [results[parts].variables["codebooks"]["codebook"] for parts in (1, 2)]
    np.testing.assert_allclose(memory[0]["count"], memory[1]["count"])


def test_codes_that_begin_anew_have_no_past(tiny_config, batch):
    config = make(tiny_config, rule=RULES["revive"])
    state, _ = step(config, init(config), batch, 2)
    state = state.replace(
        variables={
            **state.variables,
            "codebooks": {"codebook": {"count": jnp.zeros(len(rows(state)))}},
        }
    )
    new, _ = step(config, state, batch)
    anew = np.any(rows(new) == rows(new, params="ema_params"), axis=-1)
    moments = [
        np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(new.gen_opt)
        if jax.tree_util.keystr(path, simple=True, separator="/").endswith("book/rows")
    ]
    assert 0 < anew.sum() < len(anew)
    for leaf in moments:
        assert not np.any(leaf[anew]) and np.any(leaf[~anew])


def test_a_bad_step_leaves_the_rules_memory_alone(tiny_config, batch):
    config = make(tiny_config, rule=RULES["ema"])
    state = init(config)
    bad = state.replace(
        gen_params=jax.tree.map(lambda x: x.at[..., 0].set(jnp.nan), state.gen_params)
    )
    after, _ = step(config, bad, batch)
    assert int(after.skipped_steps) == 1
    jax.tree.map(
        np.testing.assert_array_equal,
        after.variables["codebooks"],
        state.variables["codebooks"],
    )


@pytest.mark.parametrize("rule", RULES)
def test_eight_devices_are_one(tiny_config, batch, rule):
    config = make(tiny_config, rule=RULES[rule])
    state = init(config)
    one, _ = step(config, state, batch, 2)
    mesh = sharding.make_mesh()
    eight, _ = step(
        config,
        jax.device_put(state, sharding.replicated(mesh)),
        sharding.shard_local_batch(batch, mesh),
        2,
    )
    np.testing.assert_allclose(rows(one), rows(eight), atol=1e-4)


def test_of_a_dual_codebook_the_local_one_has_the_rule(tiny_config, batch):
    config = make(tiny_config, quantizer=DUAL, rule=RULES["ema"])
    assert codebooks.ruled_books(config) == ("local_codebook",)
    state = init(config)
    after, values = step(config, state, batch, 2)
    assert set(after.variables["codebooks"]) == {"local_codebook"}
    for book in ("global_codebook", "local_codebook"):
        assert np.any(rows(after, book) != rows(state, book))
        assert 0 < values[f"train/{book}_usage"] <= 1
    flat = make(tiny_config, quantizer={**DUAL, "depth": 0}, rule=RULES["ema"])
    assert codebooks.ruled_books(flat) == ("global_codebook", "local_codebook")


def test_eight_devices_see_one_draw_of_the_codes(tiny_config, batch):
    config = make(tiny_config, quantizer=DUAL)
    same = {"image": np.repeat(batch["image"][:1], 8, axis=0)}
    state, mesh = init(config), sharding.make_mesh()
    _, one = step(config, state, same)
    _, eight = step(
        config,
        jax.device_put(state, sharding.replicated(mesh)),
        sharding.shard_local_batch(same, mesh),
    )
    for name, value in one.items():
        assert eight[name] == pytest.approx(value, rel=1e-3), name


def test_books_that_no_counts_could_hold_are_left_out(tiny_config, batch):
    config = make(tiny_config, "train.codebook_init.name=none")
    with config.unlocked():
        config.model.quantizer = {"name": "lfq", "bits": 20, "group": 5}
    _, values = step(config, init(config), batch)
    assert not [name for name in values if "usage" in name]
    assert np.isfinite(values["train/loss_rec"])


def test_a_steps_micro_batches_see_one_draw_of_the_codes(tiny_config, batch):
    """With dropout, parts of equal images get equal ids; the next step others."""
    config = make(tiny_config, "train.accumulation=4", quantizer=DUAL)
    config.train.codebook_init.name = "none"
    same = {"image": np.repeat(batch["image"][:1], 8, axis=0)}
    state = init(config)
    results = {}
    for parts in (1, 4):
        config.train.accumulation = parts
        results[parts] = step(config, state, same)[1]
    for name, value in results[1].items():
        assert results[4][name] == pytest.approx(value, rel=1e-3), name
