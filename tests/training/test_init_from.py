"""Runs that begin with the weights of another model."""

import shutil

import jax
import numpy as np
import pytest

from movq_jax.errors import Preempted, UserError
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.pretrained.bundle import Bundle, read_bundle
from movq_jax.pretrained.converting import convert, write_converted
from movq_jax.pretrained.formats.diffusers import write_diffusers
from movq_jax.pretrained.prior_bundle import read_prior_bundle
from movq_jax.training import log_writers, loop, prior_task, tokenizer_task
from movq_jax.training.preemption import StopNotice


def fresh(config, workdir, task=tokenizer_task):
    """The trainer, and the state before the first step."""
    trainer = loop.Trainer(task.resolve(config, workdir, None), workdir, task=task)
    return trainer, jax.device_get(trainer.fresh_state())


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def losses(workdir):
    records = log_writers.read_log(workdir, 100)
    return [r["train/loss_rec"] for r in records if "train/loss_rec" in r]


@pytest.fixture
def config(tiny_config, photos_dir):
    """Six steps without an evaluation between."""

    def make(*overrides):
        data = f"data.data_dir={photos_dir}"
        return tiny_config(data, "eval.every=0", "log.images_every=0", *overrides)

    return make


def test_the_model_comes_with_the_weights(config, tiny_bundle, tmp_path):
    bundle = read_bundle(tiny_bundle)
    changed = config(f"init_from={tiny_bundle}", "model.dropout=0.25")
    trainer, state = fresh(changed, tmp_path)
    assert_same(state.gen_params, bundle.params)
    assert_same(state.ema_params, bundle.params)
    model = trainer.config.model
    assert model.quantizer.name == "multichannel" and model.multipliers == (1, 2, 2)
    assert model.dropout == 0.25
    assert changed.train.codebook_init.name == "kmeans"
    assert trainer.config.train.codebook_init.name == "none"


def test_training_goes_on_and_the_source_may_go(config, tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    loop.train(config("train.num_steps=12"), first)
    options = (f"init_from={first}", "train.codebook_update.name=ema")
    with monkeypatch.context() as patch:
        patch.setattr(StopNotice, "reached", lambda self, step: step == 3)
        with pytest.raises(Preempted):
            loop.train(config(*options), second)
    # It goes on about where the other one ended, not where that began.
    assert np.mean(losses(second)) < np.mean(losses(first)[:3])
    shutil.rmtree(first)
    loop.train(config(*options), second)
    assert len(losses(second)) == 6
    loop.evaluate(config(*options), second)
    with pytest.raises(UserError, match="init_from: '.*first' -> ''"):
        loop.train(config(*options[1:]), second)


def test_the_discriminator_of_a_run(adversarial_config, photos_dir, tmp_path):
    run = tmp_path / "run"

    def config(*overrides):
        data = f"data.data_dir={photos_dir}"
        return adversarial_config(data, "eval.every=0", "train.num_steps=2", *overrides)

    loop.train(config(), run)
    trainer = loop.Trainer(config(), run, task=tokenizer_task)
    with trainer.open_checkpoints(read_only=True) as checkpoints:
        trained = jax.device_get(checkpoints.restore_latest(trainer.abstract))

    kept = f"init_from={run}", "init_discriminator=True"
    _, state = fresh(config(*kept), tmp_path / "kept")
    assert_same(state.disc_params, trained.disc_params)
    assert_same(state.variables["disc"], trained.variables["disc"])
    assert int(state.step) == 0
    _, anew = fresh(config(f"init_from={run}"), tmp_path / "anew")
    leaves = zip(
        jax.tree.leaves(anew.disc_params),
        jax.tree.leaves(trained.disc_params),
        strict=True,
    )
    assert any((a != b).any() for a, b in leaves)

    with pytest.raises(UserError, match="is not that of config.loss"):
        fresh(config(*kept, "loss.discriminator.width=16"), tmp_path / "wide")
    kept = f"init_from={run / 'model'}", "init_discriminator=True"
    with pytest.raises(UserError, match="is no run with checkpoints"):
        loop.train(config(*kept), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_what_one_cannot_begin_with(config, tiny_prior_bundle, tmp_path):
    for overrides, message in [
        (["init_from=nowhere"], "config.init_from: there is no model at nowhere"),
        ([f"init_from={tiny_prior_bundle}"], "a prior, but this config trains a tok"),
        (["init_discriminator=True"], "config.init_from is empty: set it"),
    ]:
        with pytest.raises(UserError, match=message):
            loop.train(config(*overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_prior(prior_config, tiny_bundle, tmp_path):
    run = tmp_path / "run"
    loop.train(prior_config("model.num_classes=-1", "train.num_steps=2"), run)
    trained = read_prior_bundle(run).prior
    begins = f"init_from={run}"
    _, state = fresh(prior_config(begins), tmp_path / "other", prior_task)
    assert_same(state.gen_params, trained.params)
    with pytest.raises(UserError, match="a prior has no discriminator"):
        fresh(prior_config(begins, "init_discriminator=True"), tmp_path, prior_task)
    with pytest.raises(UserError, match="is .*tokenizer, but this config trains a pr"):
        fresh(prior_config(f"init_from={tiny_bundle}"), tmp_path, prior_task)


def test_a_prior_of_other_tokens(prior_config, token_cache, tmp_path):
    run, ids = tmp_path / "run", np.zeros((16, 4, 4, 2), np.int32)
    loop.train(prior_config("train.num_steps=2"), run)
    other = prior_config(f"init_from={run}", cache=token_cache("large", ids))
    with pytest.raises(UserError, match=r"their grid is \(2, 2\), here \(4, 4\)"):
        fresh(other, tmp_path / "other", prior_task)


def test_a_converted_model_is_trained_on(config, tiny_movq, fill, tmp_path):
    shape = {"width": 32, "multipliers": [1, 1], "attention_factors": [2]}
    model = tiny_movq | shape
    model["quantizer"] = {
        "name": "vq",
        "codebook_size": 32,
        "dim": 8,
        "beta": 0.25,
        "legacy": False,
    }
    params = fill(build_tokenizer(model), np.zeros((1, 16, 16, 3)))
    theirs, converted = tmp_path / "theirs", tmp_path / "converted"
    write_diffusers(Bundle("tokenizer", "none", model, {}, params), theirs)
    write_converted(convert(theirs), converted)
    options = ("train.num_steps=30", "log.every=1", "optim.gen.learning_rate=3e-3")
    loop.train(config(f"init_from={converted}", *options), tmp_path / "run")
    assert np.mean(losses(tmp_path / "run")[-5:]) < losses(tmp_path / "run")[0]
