"""Runs: begun, stopped, resumed, given up."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import movq_jax
from movq_jax.errors import NonFiniteError, Preempted, UserError
from movq_jax.training import loop, losses
from movq_jax.training.preemption import StopNotice


@pytest.fixture
def config(tiny_config, photos_dir):
    """Six steps with an evaluation and a checkpoint after each third."""

    def make(*overrides):
        return tiny_config(f"data.data_dir={photos_dir}", *overrides)

    return make


def final_state(config, workdir):
    trainer = loop.Trainer(config, workdir)
    with trainer.open_checkpoints(read_only=True) as checkpoints:
        return jax.device_get(checkpoints.restore_latest(trainer.abstract))


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def records(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def without_times(records):
    timed = ("train/images_per_second", "train/data_wait_share")
    return [{k: v for k, v in r.items() if k not in timed} for r in records]


def stop_after(monkeypatch, step):
    monkeypatch.setattr(StopNotice, "reached", lambda self, now: now == step)


ADVERSARIAL = ("loss.adversarial.name=hinge", "loss.adversarial.start=2")


def test_six_steps_equal_three_a_stop_and_three(config, tmp_path, monkeypatch):
    # A codebook estimate on either side of the stop, the GAN's start before it.
    options = (*ADVERSARIAL, "train.codebook_init.steps=(0,3,4)")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    loop.train(config(*options), whole)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Preempted, match="stopped at step 3"):
            loop.train(config(*options), parts)
    loop.train(config(*options), parts)
    assert_same(
        final_state(config(*options), whole), final_state(config(*options), parts)
    )
    assert without_times(records(whole)) == without_times(records(parts))
    bundles = [movq_jax.load(workdir).fingerprint for workdir in (whole, parts)]
    assert bundles[0] == bundles[1]


def test_a_killed_run_goes_on_from_its_last_checkpoint(config, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    loop.train(config(), whole)

    def die(self, now):
        if now == 5:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(StopNotice, "reached", die)
        with pytest.raises(RuntimeError):
            loop.train(config(), killed)
    assert [r["step"] for r in records(killed)][-1] == 5
    loop.train(config(), killed)
    assert_same(final_state(config(), whole), final_state(config(), killed))
    assert without_times(records(whole)) == without_times(records(killed))


def test_a_finished_run_is_evaluated_and_can_be_lengthened(config, tmp_path):
    first = loop.train(config(), tmp_path)
    before = records(tmp_path)
    assert loop.train(config(), tmp_path) == pytest.approx(first)
    assert records(tmp_path) == before
    loop.train(config("train.num_steps=8"), tmp_path)
    assert records(tmp_path)[-1]["step"] == 8


def test_what_a_run_leaves_behind(config, tmp_path):
    values = loop.train(config("log.num_images=2"), tmp_path)
    assert set(values) == {
        "val/psnr",
        "val/loss_rec",
        "val/codebook_usage",
        "val/codebook_perplexity",
    }
    tok = movq_jax.load(tmp_path)
    assert tok.protocol["step"] == 6
    assert tok.protocol["metrics"]["val/psnr"] == values["val/psnr"]
    assert list((tmp_path / "tensorboard").iterdir())
    logged = set().union(*records(tmp_path))
    assert {
        "train/loss_rec",
        "train/loss_vq",
        "train/grad_norm",
        "train/codebook_usage",
        "train/codebook_perplexity",
        "train/learning_rate",
        "train/skipped_steps",
        "train/images_per_second",
        "train/data_wait_share",
        "val/psnr",
    } <= logged


def test_evaluating_a_run(config, tmp_path, capsys):
    values = loop.train(config(), tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert loop.evaluate(config("eval.batch_size=16"), tmp_path) == pytest.approx(
        values
    )
    assert sorted(tmp_path.rglob("*")) == before
    assert "val/psnr" in capsys.readouterr().err
    with pytest.raises(UserError, match="config.model.width: 8 -> 16"):
        loop.evaluate(config("model.width=16"), tmp_path)
    with pytest.raises(UserError, match="there is no run in"):
        loop.evaluate(config(), tmp_path / "elsewhere")


def test_another_config_is_kept_out_of_a_workdir(config, tmp_path):
    loop.train(config("train.num_steps=1"), tmp_path)
    before = records(tmp_path)
    with pytest.raises(UserError) as error:
        loop.train(config("optim.gen.learning_rate=0.5", "seed=7"), tmp_path)
    assert "config.optim.gen.learning_rate: 0.001 -> 0.5" in str(error.value)
    assert "config.seed: 0 -> 7" in str(error.value)
    assert records(tmp_path) == before
    loop.train(config("train.num_steps=1", "log.every=2"), tmp_path)  # may change


def test_a_start_that_failed_does_not_block_the_workdir(config, tmp_path):
    with pytest.raises(UserError):
        loop.train(config("data.dataset=phtos"), tmp_path)
    loop.train(config("train.num_steps=1"), tmp_path)


def test_an_update_that_is_not_finite_is_skipped(config, tmp_path):
    with pytest.raises(NonFiniteError):
        loop.train(config("optim.gen.learning_rate=1e38", "eval.every=0"), tmp_path)


def test_remains_of_an_unknown_run_are_not_touched(config, tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match="it is unknown which run left them"):
        loop.train(config(), tmp_path)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.batch_size=12", "config.train.batch_size is 12.*multiple.* 8"),
        ("eval.batch_size=0", "config.eval.batch_size is 0"),
        ("data.split_eval=valid", "valid"),
        ("data.image_size=15", "config.data.image_size is 15.*multiple of 2"),
        ("train.num_steps=0", "config.train.num_steps is 0"),
        ("model.quantizer.codebook_size=0", "quantizer.codebook_size is 0"),
        ("data.dataset=nothing", "nothing"),
        ("model.quantizer.name=multichanel", "did you mean 'multichannel'"),
        ("loss.reconstruction.name=l3", "Known: l1, l2"),
        ("loss.adversarial.name=hing", "did you mean 'hinge'"),
    ],
)
def test_a_config_that_cannot_train_is_refused(config, tmp_path, override, words):
    with pytest.raises(UserError, match=words):
        loop.train(config(override), tmp_path / "run")


def poison(monkeypatch, *, when):
    """Makes the L1 loss NaN where `when` (mean of x -> bool) holds."""

    def loss(x, x_hat):
        bad = when(jnp.mean(x))
        return jnp.mean(jnp.abs(x - x_hat)) + jnp.where(bad, jnp.nan, 0.0)

    monkeypatch.setitem(losses.RECONSTRUCTION_LOSSES, "l1", loss)


def test_a_run_that_only_meets_nan_gives_up(config, tmp_path, monkeypatch):
    poison(monkeypatch, when=lambda mean: mean < 9)
    with pytest.raises(NonFiniteError, match="3 steps in a row, up to step 3") as error:
        loop.train(config("train.max_bad_steps=3", "eval.every=0"), tmp_path)
    assert error.value.exit_code == 3
    saved = np.load(tmp_path / "bad_batch_2.npz")["image"]
    assert saved.shape == (8, 16, 16, 3) and saved.dtype == np.uint8
    assert str(tmp_path / "bad_batch_2.npz") in str(error.value)


def test_a_stop_signal_saves(config, tmp_path):
    with StopNotice() as notice:
        assert not notice.reached(0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice.reached(0)
    with StopNotice() as notice:
        os.kill(os.getpid(), signal.SIGINT)
        assert notice.reached(0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


def main(workdir, photos_dir, *flags):
    """`python -m movq_jax.main` as a process."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "movq_jax.main",
            "--config=movq_photos:tiny",
            f"--workdir={workdir}",
            f"--config.data.data_dir={photos_dir}",
            *flags,
        ],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_stops_at_a_signal_and_continues(photos_dir, tmp_path):
    long = "--config.train.num_steps=100000"
    with main(tmp_path, photos_dir, long) as process:
        for line in process.stderr:
            if line.startswith("step 4/"):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stderr.read()
    assert process.returncode == 75, rest
    stopped = int(rest.rpartition("stopped at step ")[2].partition(",")[0])
    assert stopped >= 4

    more = f"--config.train.num_steps={stopped + 2}"
    with main(tmp_path, photos_dir, more) as process:
        printed = process.stderr.read()
    assert process.returncode == 0, printed
    assert f"resuming at step {stopped}" in printed
    assert movq_jax.load(tmp_path).protocol["step"] == stopped + 2
