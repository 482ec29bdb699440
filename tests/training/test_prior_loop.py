"""Runs of priors: begun, stopped, resumed, evaluated."""

import shutil

import jax
import numpy as np
import pytest

from movq_jax.errors import Preempted, UserError
from movq_jax.pretrained.bundle import read_bundle
from movq_jax.pretrained.prior_bundle import read_prior_bundle
from movq_jax.training import log_writers, loop, prior_task
from movq_jax.training.preemption import StopNotice


def final_state(config, workdir):
    config = prior_task.resolve(config, workdir, None)
    trainer = loop.Trainer(config, workdir, task=prior_task)
    with trainer.open_checkpoints(read_only=True) as checkpoints:
        return jax.device_get(checkpoints.restore_latest(trainer.abstract))


def logged(workdir):
    timed = ("train/images_per_second", "train/data_wait_share")
    records = log_writers.read_log(workdir, 100)
    kept = [r for r in records if r.get("alarm") != "data_wait"]
    return [{k: v for k, v in r.items() if k not in timed} for r in kept]


def stopped_at(monkeypatch, step, config, workdir):
    with monkeypatch.context() as patch:
        patch.setattr(StopNotice, "reached", lambda self, now: now == step)
        with pytest.raises(Preempted, match=f"stopped at step {step}"):
            loop.train(config, workdir)


def test_six_steps_equal_three_a_stop_and_three(
    prior_config, tiny_bundle, tmp_path, monkeypatch
):
    options = ("model.num_classes=-1", "model.dropout=0.1", "train.accumulation=1")
    config = prior_config(*options)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    values = loop.train(config, whole)
    stopped_at(monkeypatch, 3, config, parts)
    loop.train(config, parts)
    jax.tree.map(
        np.testing.assert_array_equal,
        final_state(config, whole),
        final_state(config, parts),
    )
    assert logged(whole) == logged(parts)

    bundle = read_prior_bundle(whole)
    assert bundle.prior.fingerprint == read_prior_bundle(parts).prior.fingerprint
    assert bundle.tokenizer.fingerprint == read_bundle(tiny_bundle).fingerprint
    assert bundle.prior.model["prior"]["num_classes"] == 3
    protocol = bundle.prior.protocol
    assert protocol["step"] == 6 and protocol["classes"] == ["cat", "dog", "eel"]
    assert protocol["metrics"]["val/bits_per_token"] == values["val/bits_per_token"]
    assert set(values) == {
        "val/bits_per_token",
        "val/bits_per_image",
        "val/bits_channel_0",
        "val/bits_channel_1",
        "val/accuracy",
    }
    names = set().union(*logged(whole))
    assert {"train/loss", "train/accuracy", "train/grad_norm"} <= names

    # And of a finished run: evaluated, refused to another tokenizer.
    before = sorted(whole.rglob("*"))
    assert loop.evaluate(config, whole) == pytest.approx(values)
    assert sorted(whole.rglob("*")) == before
    with pytest.raises(UserError, match="config.model.width: 16 -> 32"):
        loop.evaluate(prior_config(*options, "model.width=32"), whole)
    moved = tmp_path / "moved"
    shutil.copytree(tiny_bundle, moved)
    loop.train(prior_config(*options, f"tokenizer={moved}"), whole)
    with pytest.raises(UserError, match="config.seed: 0 -> 1"):
        loop.train(prior_config(*options, "seed=1"), whole)


SMALL_TOKENIZER = """
from movq_jax.config import load_config

def get_config():
    return load_config(
        "movq_photos:tiny",
        ["model.width=8", "model.multipliers=(1,1)", "model.z_channels=8",
         "data.image_size=16", "data.eval.image_size=16", "train.num_steps=2",
         "train.codebook_init={'name': 'none'}", "log.images_every=0", "eval.every=0"],
    )
"""


@pytest.mark.slow
def test_the_tokenizer_comes_first_and_both_go_on(
    prior_config, photos_dir, tmp_path, monkeypatch
):
    spec, workdir = tmp_path / "small.py", tmp_path / "run"
    spec.write_text(SMALL_TOKENIZER)
    images = (
        "tokenizer=",
        f"tokenizer_config={spec}",
        f"data.data_dir={photos_dir}",
        "data.image_size=16",
        "data.eval.image_size=0",
        "train.num_steps=2",
        "eval.every=0",
        "log.images_every=0",
    )
    with pytest.raises(UserError, match="num_classes is -1, but .* has no labels"):
        loop.train(prior_config(*images, "model.num_classes=-1", cache=""), workdir)
    with pytest.raises(UserError, match="config.model.width is 0"):
        loop.train(prior_config(*images, "model.width=0", cache=""), workdir)
    assert not workdir.exists()  # before the tokenizer is trained

    config = prior_config(*images, cache="")
    stopped_at(monkeypatch, 1, config, workdir)
    assert (workdir / "tokenizer" / "checkpoints" / "1").exists()
    assert not (workdir / "config.json").exists()
    stopped_at(monkeypatch, 1, config, workdir)  # of the prior
    assert (workdir / "checkpoints" / "1").exists()
    loop.train(config, workdir)
    bundle = read_prior_bundle(workdir)
    assert bundle.prior.model["tokens"]["grid"] == [8, 8]
    assert bundle.prior.protocol["step"] == 2
    assert bundle.tokenizer.protocol["step"] == 2
