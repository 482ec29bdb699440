import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import movq_jax
from movq_jax.pretrained.prior import PretrainedPrior
from movq_jax.tools import command, sample


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def run(tiny_prior_bundle, out, capsys):
    """A function that runs the command and returns (exit code, stdout, stderr)."""

    def run(*flags, model=tiny_prior_bundle, output=out):
        argv = [f"--model={model}", f"--output={output}", "--micro-batch=2", *flags]
        code = command.run(sample.main, argv)
        return code, *capsys.readouterr()

    return run


def images(folder):
    paths = sorted((folder / "samples").iterdir())
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def test_what_is_written(run, out, tiny_prior_bundle):
    code, text, _ = run("--num=7", "--npz", "--strip=1", "--json")
    assert code == 0
    record = json.loads(text)
    assert (record["num_images"], record["drawn"]) == (7, 7)
    names = {path.relative_to(out).as_posix() for path in out.rglob("*.*")}
    expected = {f"samples/{i:06d}.png" for i in range(7)}
    expected |= {"grid.png", "labels.csv", "settings.json", "samples.npz"}
    assert names == expected | {"strips/000000.png", "strips/000000.gif"}
    prior = movq_jax.load(tiny_prior_bundle, micro_batch=2)
    drawn = prior.tokenizer.decode(prior.sample(7))
    np.testing.assert_array_equal(images(out), drawn)
    with np.load(out / "samples.npz", allow_pickle=False) as archive:
        assert sorted(archive) == ["arr_0", "arr_1"]
        np.testing.assert_array_equal(archive["arr_0"], drawn)
        np.testing.assert_array_equal(archive["arr_1"], prior.labels(7))
        assert archive["arr_1"].dtype == np.int64


def test_the_same_command_goes_on_and_a_larger_number_adds(run, out):
    assert run("--num=3")[0] == 0
    three = images(out)
    (out / "samples" / "000001.png").unlink()
    code, text, _ = run("--num=5", "--json")
    record = json.loads(text)
    assert (code, record["num_images"], record["drawn"]) == (0, 5, 3)
    five = images(out)
    np.testing.assert_array_equal(five[:3], three)
    labels = (out / "labels.csv").read_text().splitlines()
    assert labels[0] == "file,label,class" and len(labels) == 6
    stamps = {path: path.stat().st_mtime_ns for path in (out / "samples").iterdir()}
    code, text, _ = run("--num=5", "--json")
    assert (code, json.loads(text)["drawn"]) == (0, 0)
    # Fewer than are there: nothing is taken off the sheets.
    grid = (out / "grid.png").read_bytes()
    assert run("--num=2")[0] == 0
    assert len((out / "labels.csv").read_text().splitlines()) == 6
    assert (out / "grid.png").read_bytes() == grid
    assert all(path.stat().st_mtime_ns == time for path, time in stamps.items())


def test_what_is_finished_is_kept_at_a_stop(run, out, monkeypatch):
    draw, calls = PretrainedPrior.sample, []

    def stopped(*args, **keywords):
        calls.append(args)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return draw(*args, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(PretrainedPrior, "sample", stopped)
        code, _, error = run("--num=20")
    assert code == 130 and "finished images are kept, the same command" in error
    assert len(images(out)) == 16 and not (out / "grid.png").exists()
    assert run("--num=20")[0] == 0
    assert len(images(out)) == 20 and (out / "grid.png").exists()


def test_other_settings_are_refused_with_the_difference(run, out, tmp_path):
    assert run("--num=1")[0] == 0
    before = images(out)
    code, _, error = run("--num=2", "--seed=4", "--temperature=1,0.5")
    assert code == 2 and "holds images of other settings" in error
    assert "seed was 0, now 4; temperature was 1.0, now [1.0, 0.5]" in error
    np.testing.assert_array_equal(images(out), before)
    (out / "settings.json").write_text("[]")
    code, _, error = run("--num=2")
    assert code == 2 and "was not written by `movq sample`" in error
    (out / "settings.json").unlink()
    code, _, error = run("--num=2")
    assert code == 2 and "and no settings.json, so nothing tells" in error
    file = tmp_path / "file"
    file.write_text("")
    code, _, error = run(output=file)
    assert code == 2 and "is a file: name a folder" in error


def test_settings_of_a_run_without_images_do_not_bind(run, out, monkeypatch):
    def stopped(*args, **keywords):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PretrainedPrior, "sample", stopped)
        assert run("--num=1", "--seed=7")[0] == 130
    assert (out / "settings.json").exists()
    assert run("--num=1", "--seed=8")[0] == 0
    assert json.loads((out / "settings.json").read_text())["seed"] == 8


def test_what_belongs_to_other_settings_is_not_kept(run, out):
    assert run("--num=1", "--npz", "--strip=1")[0] == 0
    shutil.rmtree(out / "samples")
    code, _, error = run("--num=1", "--seed=7")
    assert code == 2 and "holds images of other settings" in error


def test_an_npz_has_all_that_is_there(run, out):
    assert run("--num=3")[0] == 0
    code, text, _ = run("--num=2", "--npz")
    assert code == 0 and "samples.npz has all 3 that are in the folder" in text


def test_guidance_needs_a_prior_that_dropped_classes(
    run, out, make_prior_bundle, tiny_masked
):
    bundle = make_prior_bundle(tiny_masked)
    config = bundle / "model/config.json"
    record = json.loads(config.read_text())
    record["protocol"]["class_dropout"] = 0.0
    config.write_text(json.dumps(record))
    code, _, error = run("--guidance=2", model=bundle)
    assert code == 2 and "never learned that (config.loss.class_dropout" in error
    assert run("--num=1", model=bundle)[0] == 0


def test_classes(run, out):
    assert run("--num=4", "--classes=dog,Sea Horse")[0] == 0
    lines = (out / "labels.csv").read_text().splitlines()[1:]
    names = [line.split(",", 2)[2] for line in lines]
    assert sorted(names) == ["dog", "dog", "sea horse", "sea horse"]
    for flags, message in {
        ("--classes=dgo",): "there is no class 'dgo'; did you mean 'dog'?",
        ("--classes=1,9",): "there is no class 9: give numbers 0 to 2",
        ("--classes=",): "--classes has an empty value",
    }.items():
        code, _, error = run(*flags)
        assert code == 2 and message in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num=0"], "'0' is not a positive whole number"),
        (["--num=99999999"], "--num=99999999 is above 10,000,000"),
        (["--steps=0"], "'0' is not a positive whole number"),
        (["--steps=9999999"], "9999999 is above 1048576"),
        (["--seed=-1"], "'-1' is not a whole number from 0"),
        (["--temperature=hot"], "'hot' is not a number from 0 on"),
        (
            ["--temperature=1,1,1"],
            "--temperature has 3 values and the prior 2 channels",
        ),
        (["--top-p=2"], "--top-p is 2.0; give a number above 0 and at most 1"),
        (["--order=halon"], "'halon'; did you mean 'halton'?"),
        (["--schedule=power:x"], "'power:x' is not power:NUMBER"),
        (["--order=halton:x"], "'halton:x' is not halton or halton:roll"),
        (["--schedule=cosine:2"], "'cosine:2' is not cosine"),
        (["--schedule=power:0"], "--schedule.exponent is 0.0"),
        (["--steps=17"], "--steps=17 is more than the 16 units that the prior can"),
        (["--schedule=power"], "lacks 'exponent': give it too"),
        (["--micro-batch=9999"], "9999 is above 1024"),
    ],
)
def test_flags_that_are_refused(run, out, flags, message):
    code, _, error = run(*flags)
    assert code == 2 and message in error and error.count("\n") == 1
    assert not out.exists()


def test_models_that_are_refused(run, out, tiny_bundle, tiny_ar_bundle, tmp_path):
    code, _, error = run(model=tiny_bundle)
    assert code == 2 and "is a tokenizer, which draws nothing new" in error
    code, _, error = run("--order=random", model=tiny_ar_bundle)
    assert code == 2 and "--order is for masked priors" in error
    code, _, error = run(model=tmp_path / "none")
    assert code == 2 and "no such folder" in error
    assert not out.exists()


def test_an_autoregressive_prior(run, out, tiny_ar_bundle):
    flags = ("--num=2", "--strip=1", "--top-k=5", "--guidance=1")
    assert run(*flags, model=tiny_ar_bundle)[0] == 0
    assert len(images(out)) == 2 and (out / "strips" / "000000.gif").exists()
    assert "steps" not in json.loads((out / "settings.json").read_text())


def test_a_prior_without_classes(run, out, make_prior_bundle, tiny_masked):
    model = make_prior_bundle(tiny_masked | {"num_classes": 0}, (), steps=2)
    assert run("--num=3", "--npz", "--order=halton:roll", model=model)[0] == 0
    assert (out / "grid.png").exists() and not (out / "labels.csv").exists()
    with np.load(out / "samples.npz") as archive:
        assert list(archive) == ["arr_0"] and len(archive["arr_0"]) == 3
    code, _, error = run("--classes=cat", model=model)
    assert code == 2 and "this prior is unconditional" in error
    code, _, error = run("--guidance=2", model=model)
    assert code == 2 and "this prior is unconditional: leave it out" in error


def test_too_little_memory(run, monkeypatch):
    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(PretrainedPrior, "sample", fail)
    code, _, error = run()
    assert code == 2
    assert "not enough memory for 2 images at once: lower --micro-batch" in error


def test_runs_of_missing_images():
    numbers = [0, 1, 2, 3, 4, 7, 9, 10]
    assert list(sample._runs(numbers, 3)) == [(0, 3), (3, 2), (7, 1), (9, 2)]
    assert list(sample._runs([], 3)) == []
