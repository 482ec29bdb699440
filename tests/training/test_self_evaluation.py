"""What a run measures of itself is what the commands measure of its model."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from movq_jax import main
from movq_jax.tools import evaluate, prepare
from movq_jax.training import loop


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A data dir with `pictures`: 16 x 16, of three classes, 6 to evaluate on."""
    source, data_dir = (tmp_path_factory.mktemp(name) for name in ("images", "data"))
    y, x = np.mgrid[:16, :16] / 16
    rng = np.random.default_rng(0)
    for number in range(18):
        split = "train" if number < 12 else "validation"
        name = ("cat", "dog", "eel")[number % 3]
        folder = source / split / name
        folder.mkdir(parents=True, exist_ok=True)
        waves = [np.sin(9 * rng.random() * x + 7 * rng.random() * y) for _ in range(3)]
        image = np.uint8(np.stack(waves, axis=-1) * 100 + 128)
        Image.fromarray(image).save(folder / f"{number}.png")
    name = "--name=pictures"
    prepare.main(
        ["--dataset=folder", name, f"--source={source}", f"--data-dir={data_dir}"]
    )
    return data_dir


@pytest.fixture
def settings(data_dir, random_squeezenet):
    """Overrides: the pictures, and a distance of three of them."""
    return [
        "data.dataset=pictures",
        f"data.data_dir={data_dir}",
        "data.image_size=16",
        "data.eval.image_size=16",
        "data.train.resize.name=short_side",
        "eval.distance.name=squeezenet_fd",
        "eval.distance.num_examples=3",
        f"eval.distance.weights={random_squeezenet}",
    ]


def test_a_tokenizer(settings, tiny_config, data_dir, random_squeezenet, tmp_path):
    run, where = tmp_path / "run", tmp_path / "record.json"
    config = tiny_config(*settings, "eval.num_examples=3", "train.num_steps=2")
    values = loop.train(config, run)
    assert values["val/squeezenet_fd_3"] > 0
    flags = [
        f"--model={run}",
        "--dataset=pictures",
        f"--data-dir={data_dir}",
        "--max-images=3",
        "--metrics=psnr,ssim,squeezenet_fd",
        f"--squeezenet={random_squeezenet}",
        f"--json={where}",
    ]
    evaluate.main(flags)
    metrics = json.loads(where.read_text())["metrics"]
    for name in ("psnr", "ssim"):
        value = metrics[name]["value"]
        assert values[f"val/{name}"] == pytest.approx(value, rel=1e-4)
    distance = metrics["squeezenet_fd"]["value"]
    assert values["val/squeezenet_fd_3"] == pytest.approx(distance, rel=1e-3)

    # In other batches, on one device instead of eight.
    config = tiny_config(*settings, "eval.num_examples=3", "eval.batch_size=2")
    other = loop.evaluate(config, run, devices=jax.devices()[:1])
    assert other == pytest.approx(values, rel=1e-3)


@pytest.mark.parametrize("spec", ["maskgit_photos:tiny", "ar_photos:tiny"])
def test_a_prior(spec, settings, tiny_bundle, data_dir, tmp_path, capsys):
    run, where = tmp_path / "run", tmp_path / "record.json"
    overrides = [
        *settings,
        f"tokenizer={tiny_bundle}",
        "model.num_classes=-1",
        "eval.num_examples=0",
        "train.num_steps=2",
    ]
    flags = [
        f"--config=configs/{spec.replace(':', '.py:')}",
        f"--workdir={run}",
        *(f"--config.{text}" for text in overrides),
    ]
    main.main(flags)
    main.main([*flags, "--mode=eval", "--config.eval.batch_size=8"])
    printed = capsys.readouterr().err.splitlines()[-1]
    trained = dict(part.split()[-2:] for part in printed.split(" · "))
    flags = ["--metrics=nll", f"--json={where}"]
    flags += [f"--model={run}", "--dataset=pictures", f"--data-dir={data_dir}"]
    evaluate.main(flags)
    nll = json.loads(where.read_text())["metrics"]["nll"]
    # As printed: four digits.
    assert float(trained["val/bits_per_token"]) == pytest.approx(nll["value"], rel=1e-3)
    assert float(trained["val/squeezenet_fd_3"]) > 0


def test_a_prior_of_a_cache_says_what_it_is_compared_with(
    prior_config, random_squeezenet, tmp_path
):
    config = prior_config(
        "eval.distance.name=squeezenet_fd",
        "eval.distance.num_examples=3",
        "train.num_steps=2",
        f"eval.distance.weights={random_squeezenet}",
    )
    values = loop.train(config, tmp_path / "run")
    assert values["val/squeezenet_fd_3_decoded"] > 0
