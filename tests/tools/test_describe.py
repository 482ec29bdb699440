import json

import pytest

from movq_jax.tools import command, describe

SMALL = [
    "--config=vqgan_imagenet:tiny",
    "--config.model.width=8",
    "--config.model.multipliers=(1,2)",
    "--config.model.attention_factors=(2,)",
    "--config.data.image_size=16",
    "--config.loss.discriminator.layers=1",
]


def run(flags, capsys):
    """Return exit code, stdout and stderr."""
    code = command.run(describe.main, flags)
    return code, *capsys.readouterr()


def test_a_full_size_config(tmp_path, capsys):
    where = tmp_path / "record.json"
    flags = ["--config=movq_f8:270m", "--config.loss.adversarial.name=none"]
    code, out, err = run([*flags, f"--json={where}"], capsys)
    assert (code, err) == (0, "")
    assert "256x256 pixels -> 32x32x1 indices of 16,384: 1,024 tokens" in out
    record = json.loads(where.read_text())
    assert record["parameters"]["tokenizer"] == 270_669_103  # the published number
    assert record["parameters"]["discriminator"] == 0
    assert record["tokens_per_image"] == 1024 and record["bits_per_position"] == 14
    assert record["bits_per_image"] == 14336
    assert record["compression_ratio"] == pytest.approx(24 * 64 / 14)
    assert record["flops"]["decode"] == pytest.approx(1871e9, rel=0.01)
    assert list(record["flops"]["train_step"]) == ["reconstruction"]
    # Parameters, their average, and two moments of Adam: four times float32.
    state = record["state_bytes"]["total"] - record["state_bytes"]["loss_networks"]
    assert state == pytest.approx(16 * 270_669_103, rel=1e-3)


def test_overrides_and_the_size_of_images(capsys):
    flags = [*SMALL, "--config.model.quantizer.codebook_size=8", "--image-size=32"]
    code, out, err = run([*flags, "--json"], capsys)
    record = json.loads(out)
    assert code == 0 and "16x16x1 indices of 8" in err  # stdout is the record's
    assert record["image_size"] == 32 and record["bits_per_position"] == 3
    assert {"encode", "decode", "discriminator"} < set(record["flops"])


def test_no_weights_are_needed(capsys):
    flags = ["--config.loss.perceptual.name=squeezenet", "--image-size=32"]
    flags += ["--config.loss.perceptual.weights=nowhere/squeezenet.npz"]
    flags += ["--config.loss.adversarial.name=none"]
    code, out, _ = run([*SMALL, *flags], capsys)
    assert code == 0 and "(perceptual: of a pair of images)" in out


@pytest.mark.parametrize(
    "flags, message",
    [
        (["train.accumulation=3"], "accumulation is 3, which does not divide"),
        (["train.accumulation=0"], "accumulation is 0; 1 is the least"),
        (["train.batch_size=0"], "batch_size is 0, but must be a whole number"),
        (["train.num_steps=0"], "num_steps is 0, but must be a whole number"),
        (["data.image_size=31"], "image_size is 31, but must be a multiple of 2"),
        (["loss.adversarial.warmup=50"], "warmup is 50, but start is 2"),
        (["loss.adversarial.r1.weight=1.0"], "r1 is on, but config.loss.discrimin"),
        (["loss.perceptual.name=squeezenet"], "needs at least 21"),
    ],
)
def test_what_training_refuses_is_refused(flags, message, capsys):
    flags = [*SMALL, *(f"--config.{flag}" for flag in flags)]
    code, out, err = run(flags, capsys)
    assert code == 2 and out == "" and message in err and err.count("\n") == 1


def test_a_bundle(tiny_bundle, capsys):
    code, out, _ = run([f"--model={tiny_bundle}", "--json"], capsys)
    record = json.loads(out)
    assert code == 0 and record["grid"] == [64, 64, 2]
    assert len(record["model"]["fingerprint"]) == 64
    assert record["parameters"]["tokenizer"] > 0 and "train_step" not in record["flops"]
    code, out, _ = run([f"--model={tiny_bundle}", "--image-size=16"], capsys)
    assert code == 0 and "16x16 pixels -> 4x4x2 indices of 32" in out


def test_the_largest_batch(tmp_path, capsys):
    where = tmp_path / "record.json"
    flags = [*SMALL, "--config.loss.adversarial.name=none", "--device-memory=0.004"]
    code, out, err = run([*flags, f"--json={where}"], capsys)
    found = json.loads(where.read_text())["device_memory"]
    assert code == 0 and f": {found['batch_size']:,} images" in out
    assert "8 x cpu" in out and found["devices"] == 8
    assert found["batch_size"] % 8 == 0 and found["bytes"] <= 0.004e9
    assert err.count("compiled a batch of") == len(found["compiled"]) in (3, 4)
    larger = [entry for entry in found["compiled"] if entry["bytes"] > 0.004e9]
    assert all(entry["batch_size"] > found["batch_size"] for entry in larger)
    code, _, err = run([*flags[:-1], "--device-memory=0.001"], capsys)
    assert code == 2 and "not even a batch of 8" in err.splitlines()[-1]


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "give either --config="),
        (["--config=movq_f8", "--model=runs/a"], "give either --config="),
        (["--config=movq_f9"], "there is no config 'movq_f9'; did you mean 'movq_f8'?"),
        (["--config=movq_f8", "--config.model.widht=3"], "config.model.width"),
        (["--config=movq_f8", "--image-size=100"], "must be a multiple of 8"),
        (["--config=movq_f8", "--device-memory=-1"], "'-1' is not a number above zero"),
        (["--model=nowhere"], "there is no model at nowhere"),
        (["--model=a", "--config.model.width=8"], "--config.model.width=8 needs"),
        (["--model=a", "--device-memory=8"], "--device-memory needs --config"),
    ],
)
def test_wrong_flags(flags, message, capsys):
    code, out, err = run(flags, capsys)
    assert code == 2 and out == ""
    assert message in err and err.count("\n") == 1


def test_the_config_of_a_prior(capsys):
    code, out, err = run(["--config=maskgit_movq_imagenet", "--json"], capsys)
    record = json.loads(out)
    assert code == 0 and "in 12 steps" in err
    assert record["classes"] == 1000 and record["grid"] == [16, 16, 4]
    # Three times 164 + 80 GFLOP, as the config says.
    assert record["flops"]["train_step"] == pytest.approx(0.73e12, rel=0.01)
    assert 12 <= record["flops"]["sample"] / record["flops"]["forward"] <= 13.8


def test_the_bundle_of_a_prior(tiny_prior_bundle, capsys):
    code, out, _ = run([f"--model={tiny_prior_bundle}", "--json"], capsys)
    record = json.loads(out)
    assert code == 0 and record["grid"] == [4, 4, 2] and record["classes"] == 3
    assert record["image_size"] == 16 and "train_step" not in record["flops"]
    code, out, err = run([f"--model={tiny_prior_bundle}", "--image-size=32"], capsys)
    assert code == 2 and "draws images of one size" in err
