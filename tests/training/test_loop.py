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
from movq_jax.training import console as consoles
from movq_jax.training import (
    log_writers,
    loop,
    losses,
    sharding,
    tokenizer_task,
    workdir,
)
from movq_jax.training.evaluating import Evaluator
from movq_jax.training.preemption import StopNotice


@pytest.fixture
def config(tiny_config, photos_dir):
    """Six steps with an evaluation and a checkpoint after each third."""

    def make(*overrides):
        return tiny_config(f"data.data_dir={photos_dir}", *overrides)

    return make


def final_state(config, workdir, task=tokenizer_task):
    trainer = loop.Trainer(config, workdir, task=task)
    with trainer.open_checkpoints(read_only=True) as checkpoints:
        return jax.device_get(checkpoints.restore_latest(trainer.abstract))


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def records(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def without_times(records):
    timed = ("train/images_per_second", "train/data_wait_share")
    kept = [r for r in records if r.get("alarm") != "data_wait"]
    return [{k: v for k, v in r.items() if k not in timed} for r in kept]


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


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    config, stage, tmp_path, monkeypatch
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    loop.train(config(), whole, task=stage)

    def die(self, now):
        if now == 5:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(StopNotice, "reached", die)
        with pytest.raises(RuntimeError):
            loop.train(config(), killed, task=stage)
    assert [r["step"] for r in records(killed)][-1] == 5
    loop.train(config(), killed, task=stage)
    assert_same(
        final_state(config(), whole, stage), final_state(config(), killed, stage)
    )
    assert without_times(records(whole)) == without_times(records(killed))


def test_a_finished_run_is_evaluated_and_can_be_lengthened(config, stage, tmp_path):
    first = loop.train(config(), tmp_path, task=stage)
    before = records(tmp_path)
    assert loop.train(config(), tmp_path, task=stage) == pytest.approx(first)
    assert records(tmp_path) == before
    loop.train(config("train.num_steps=8"), tmp_path, task=stage)
    assert records(tmp_path)[-1]["step"] == 8


def test_what_a_run_leaves_behind(config, tmp_path):
    values = loop.train(config("log.num_images=2"), tmp_path)
    assert set(values) == {
        "val/psnr",
        "val/ssim",
        "val/loss_rec",
        "val/codebook_usage",
        "val/codebook_perplexity",
        "val/codebook_entropy",
        "val/codebook_dead",
        "val/quantisation_mse",
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
    # Their states have other shapes than this run's, which is no damage to it.
    other = config(*ADVERSARIAL, "loss.reconstruction.name=l2")
    assert loop.evaluate(other, tmp_path)["val/psnr"] == values["val/psnr"]
    with pytest.raises(UserError, match="config.model.width: 8 -> 16"):
        loop.evaluate(config("model.width=16"), tmp_path)
    with pytest.raises(UserError, match="there is no run in"):
        loop.evaluate(config(), tmp_path / "elsewhere")


def test_another_config_is_kept_out_of_a_workdir(config, stage, tmp_path):
    loop.train(config("train.num_steps=1"), tmp_path, task=stage)
    before = records(tmp_path)
    with pytest.raises(UserError) as error:
        loop.train(
            config("optim.gen.learning_rate=0.5", "seed=7"), tmp_path, task=stage
        )
    assert "config.optim.gen.learning_rate: 0.001 -> 0.5" in str(error.value)
    assert "config.seed: 0 -> 7" in str(error.value)
    assert records(tmp_path) == before
    loop.train(config("train.num_steps=1", "log.every=2"), tmp_path, task=stage)


def test_a_start_that_failed_does_not_block_the_workdir(config, stage, tmp_path):
    with pytest.raises(UserError):
        loop.train(config("data.dataset=phtos"), tmp_path, task=stage)
    loop.train(config("train.num_steps=1"), tmp_path, task=stage)


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
        ("eval.num_examples=-1", "config.eval.num_examples is -1"),
        ("train.ema_decay=1.5", "config.train.ema_decay is 1.5"),
        ("data.eval.crop={'name': 'centre'}", "did you mean 'center'"),
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
    assert not (tmp_path / "run").exists()


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


def signal_at(monkeypatch, step):
    """Sends SIGTERM to this process in the middle of a step."""
    real = loop.Run.take_step

    def take_step(self, state, batch, number):
        if number + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, state, batch, number)

    monkeypatch.setattr(loop.Run, "take_step", take_step)


def test_a_stop_comes_before_an_evaluation_that_is_made_up_for(
    config, stage, tmp_path, monkeypatch
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    loop.train(config(), whole, task=stage)
    with monkeypatch.context() as patch:
        signal_at(patch, 3)
        with pytest.raises(Preempted, match="stopped at step 3"):
            loop.train(config(), parts, task=stage)
    assert not any("val/psnr" in record for record in records(parts))
    loop.train(config(), parts, task=stage)
    assert without_times(records(whole)) == without_times(records(parts))
    assert stage.saved == [3, 6, 3, 6]


def test_a_stop_breaks_an_evaluation_off(config, stage, tmp_path, monkeypatch):
    real = Evaluator.evaluate

    def evaluate(self, state, frozen, stopped):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, state, frozen, stopped)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "evaluate", evaluate)
        with pytest.raises(Preempted, match="stopped at step 6"):
            loop.train(config("eval.every=0"), tmp_path, task=stage)
    values = loop.train(config("eval.every=0"), tmp_path, task=stage)
    assert stage.saved == [6]
    assert records(tmp_path)[-1] == {"step": 6, **values}


def test_two_do_not_train_in_one_workdir(config, stage, tmp_path):
    with workdir.locked(tmp_path):
        with pytest.raises(UserError, match="another process is training in"):
            loop.train(config(), tmp_path, task=stage)
    loop.train(config(), tmp_path, task=stage)


def test_a_missing_file_of_weights_leaves_the_workdir_alone(config, stage, tmp_path):
    def load_frozen(config):
        raise UserError("no weights")

    stage.load_frozen = load_frozen
    with pytest.raises(UserError, match="no weights"):
        loop.train(config(), tmp_path / "run", task=stage)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("devices", [1, 4])
def test_the_evaluation_batch_fits_any_number_of_devices(
    config, stage, tmp_path, devices
):
    options = config("eval.batch_size=3", "train.num_steps=1", "log.num_images=1")
    devices = jax.devices()[:devices]
    values = loop.train(options, tmp_path, task=stage, devices=devices)
    whole = Evaluator(config("eval.batch_size=8"), stage, sharding.make_mesh())
    state = stage.init_state(options)
    state = state.replace(ema_params={"w": jnp.float32(0.1)})
    expected = whole.evaluate(state, stage.frozen)
    assert values == pytest.approx(expected, rel=1e-5)


def test_the_pace_is_that_of_training_alone(config, stage, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(
        loop, "Stopwatch", lambda: consoles.Stopwatch(clock=lambda: now[0])
    )

    def taking(seconds, cls, name):
        real = getattr(cls, name)

        def slow(*args):
            now[0] += seconds
            return real(*args)

        monkeypatch.setattr(cls, name, slow)

    taking(2.0, sharding, "shard_local_batch")  # within a step, and waited for
    taking(100.0, Evaluator, "evaluate")
    taking(1000.0, Evaluator, "pictures")
    stage.phase = lambda config, step: "late" if step >= 4 else "early"
    loop.train(config("eval.every=2"), tmp_path, task=stage)
    paces = [r.get("train/images_per_second") for r in records(tmp_path)]
    found = {r["step"]: p for r, p in zip(records(tmp_path), paces, strict=True) if p}
    # 8 images in 2 s; the first step of each phase is compiled, and says nothing.
    assert found == pytest.approx({2: 4.0, 3: 4.0, 4: 4.0, 6: 4.0})


def test_without_log_lines_nothing_piles_up(config, stage, tmp_path, monkeypatch):
    monkeypatch.setattr("movq_jax.training.metrics._FOLD_AT", 3)
    loop.train(config("log.every=1"), tmp_path / "each", task=stage)
    loop.train(config("log.every=0"), tmp_path / "last", task=stage)
    losses = [
        r["train/loss_rec"] for r in records(tmp_path / "each") if "train/loss_rec" in r
    ]
    (line,) = [r for r in records(tmp_path / "last") if "train/loss_rec" in r]
    assert line["step"] == 6
    assert line["train/loss_rec"] == pytest.approx(np.mean(losses))


def test_an_alarm_reaches_the_log_once(config, stage, tmp_path, capsys, monkeypatch):
    stage.frozen = {"scale": np.float32("nan")}
    options = ("train.num_steps=4", "eval.every=0")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Preempted):
            loop.train(config(*options, "train.max_bad_steps=9"), tmp_path, task=stage)
    loop.train(config(*options, "train.max_bad_steps=9"), tmp_path, task=stage)
    alarms = [r for r in records(tmp_path) if r.get("alarm") == "steps_skipped"]
    ((step, message),) = [(r["step"], r["message"]) for r in alarms]
    assert step == 1 and message.startswith("1 of the steps since")
    assert f"step 1: ALARM steps_skipped: {message}" in capsys.readouterr().err


def test_a_trace_of_some_steps(config, stage, tmp_path, capsys):
    options = config("train.num_steps=4", "eval.every=0")
    with pytest.raises(UserError, match="asks for step 5, but the run ends at step 4"):
        loop.train(options, tmp_path, task=stage, profile=range(3, 6))
    assert not any(tmp_path.iterdir())
    loop.train(options, tmp_path, task=stage, profile=range(2, 4))
    assert "the trace of steps 2 to 3 is in" in capsys.readouterr().err
    assert list((tmp_path / "profile").rglob("perfetto_trace.json.gz"))
    more = config("train.num_steps=5", "eval.every=0")
    loop.train(more, tmp_path, task=stage, profile=range(2, 4))  # of a launcher
    assert "past the steps of --profile" in capsys.readouterr().err


def test_only_the_first_process_writes(config, stage, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(jax, "process_index", lambda: 1)
        with log_writers.LogWriters(tmp_path, resumed_at=0) as writers:
            writers.scalars(1, {"train/loss": 1.0})
            writers.images(1, {"a": np.zeros((2, 2, 3), np.uint8)})
        workdir.claim(tmp_path, config())
        with workdir.locked(tmp_path):
            pass
    assert not any(tmp_path.iterdir())


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
