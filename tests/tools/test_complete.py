import json

import numpy as np
import pytest
from PIL import Image

import movq_jax
from movq_jax.tools import command, complete


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def pictures(tmp_path):
    """A folder with a picture of the prior's size, and one of another shape."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in {"a": (16, 16), "b": (24, 40)}.items():
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def run(tiny_ar_bundle, pictures, out, capsys):
    """A function that runs the command and returns (exit code, stdout, stderr)."""

    def run(*flags, model=tiny_ar_bundle, output=out, inputs=pictures):
        argv = [f"--model={model}", f"--input={inputs}", f"--output={output}"]
        code = command.run(complete.main, [*argv, "--micro-batch=2", *flags])
        return code, *capsys.readouterr()

    return run


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_what_is_written(run, pictures, out, tiny_ar_bundle):
    code, text, _ = run("--num=2", "--rows=1", "--seed=3", "--json")
    assert code == 0
    record = json.loads(text)
    assert (record["num_pictures"], record["rows"], record["of_rows"]) == (2, 1, 4)
    names = {path.relative_to(out).as_posix() for path in out.rglob("*.*")}
    expected = {f"completions/{name}-{i}.png" for name in "ab" for i in (1, 2)}
    assert names == expected | {
        "side_by_side/a.png",
        "side_by_side/b.png",
        "overview.png",
        "complete.json",
    }
    prior = movq_jax.load(tiny_ar_bundle, micro_batch=2)
    ids = prior.tokenizer.encode(read(pictures / "a.png")[None])
    known = np.zeros(ids.shape[1:], bool)
    known[:1] = True
    drawn = prior.sample(
        2, labels=3, seed=3, ids=ids.repeat(2, axis=0), known=known[None].repeat(2, 0)
    )
    np.testing.assert_array_equal(drawn[:, :1], ids[:, :1].repeat(2, axis=0))
    assert (drawn[:, 1:] != ids[:, 1:]).mean() > 0.5
    made = prior.tokenizer.decode(drawn)
    for number in range(2):
        path = out / "completions" / f"a-{number + 1}.png"
        np.testing.assert_array_equal(read(path), made[number])


def test_a_picture_does_not_depend_on_the_others(run, pictures, out, tmp_path):
    assert run("--num=1", "--rows=0.5")[0] == 0
    alone = tmp_path / "alone"
    flags = ("--num=1", "--rows=2")
    assert run(*flags, inputs=pictures / "b.png", output=alone)[0] == 0
    one, two = (read(p / "completions" / "b-1.png") for p in (out, alone))
    np.testing.assert_array_equal(one, two)


def test_classes(run, out):
    code, text, _ = run("--classes=dog,sea horse", "--num=1", "--json")
    assert code == 0
    assert json.loads(text)["completions"] == ["dog", "sea horse"]
    code, text, _ = run("--classes=dog", "--num=2", "--json")
    assert code == 0 and json.loads(text)["completions"] == ["dog (1)", "dog (2)"]
    code, _, error = run("--classes=dogg")
    assert code == 2 and "did you mean 'dog'?" in error
    code, _, error = run("--guidance=1")
    assert code == 2 and "--guidance leads towards a class: give --classes" in error


@pytest.mark.parametrize("rows", ["0", "4", "1.0", "0.1", "half", "-1", "inf"])
def test_rows_that_keep_nothing_or_all(run, out, rows):
    code, _, error = run(f"--rows={rows}")
    assert code == 2 and "keeps none or all of the 4 rows" in error
    assert not out.exists()


def test_what_is_refused(run, pictures, out, tiny_prior_bundle, tiny_bundle):
    code, _, error = run(model=tiny_prior_bundle)
    assert code == 2 and "is masked" in error and "`movq edit outpaint`" in error
    code, _, error = run(model=tiny_bundle)
    assert code == 2 and "is a tokenizer, which draws nothing new" in error
    code, _, error = run("--steps=3")
    assert code == 2 and "unknown flag --steps" in error
    code, _, error = run("--num=2000")
    assert code == 2 and "--num=2000 is above 1000" in error
    (pictures / "letter.png").write_text("no image")
    code, _, error = run("--num=1")
    assert code == 4 and "letter.png" in error
    assert (out / "completions" / "b-1.png").exists()
