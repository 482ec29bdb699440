"""Every config that is shipped, with every argument that it takes."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from movq_jax.config import (
    available_configs,
    difference,
    from_json,
    kind_of,
    load_config,
    to_json,
)
from movq_jax.data.settings import read_settings
from movq_jax.errors import UserError
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.training import prior_task
from movq_jax.training.checks import check

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "configs").glob("[!_]*.py"))
PRIORS = [file for file in FILES if "prior_schema" in file.read_text()]
PRIOR_ARGS = {
    "maskgit_photos": ["", "parallel", "independent"],
    "maskgit_movq_imagenet": ["", "parallel", "independent"],
    "maskgit_pictures": ["", "parallel", "independent"],
    "channels_small": ["depth", "parallel", "independent"],
    "ar_photos": ["", "flat"],
    "ar_movq_ffhq": ["", "flat"],
}
PRIOR_SPECS = [
    f"{file.stem}:{arg}" for file in PRIORS for arg in PRIOR_ARGS.get(file.stem, [""])
]
ARGS = {
    "movq_f8": ["", "67m", "102m", "270m", "102m,stable"],
    "movq_photos": [""],
    "movq_pictures": ["", "dual"],
    "movq_small": ["", "stable", "unguarded"],
    "dualvq_coco": ["", "stable", "depth0", "depth0,ema", "ema", "modulated"],
    "dualvq_ade20k": ["", "stable", "depth0,ema", "modulated"],
    "dualvq_celebahq": ["", "stable", "depth0", "ema", "modulated"],
    "dualvq_photos": ["", "depth0,ema"],
    "dualmovq_photos": ["", "ema"],
    "quantizers_small": [
        "vq",
        "multichannel",
        "dual",
        "product",
        "product_ema",
        "dualmovq",
        "dual,kmeans",
    ],
}
SPECS = [
    f"{file.stem}:{arg}"
    for file in FILES
    if file not in PRIORS
    for arg in ARGS.get(file.stem, ["", "stable"])
]
TINY = [f"{spec},tiny" for spec in SPECS]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("spec", SPECS + TINY)
def test_everything_in_it_can_be_built(spec):
    config = load_config(spec)
    read_settings(config.data)
    if "movq_small" in spec:  # its weights have no place of their own
        config.loss.perceptual.weights = "squeezenet.npz"
    check(config)
    if config.loss.adversarial.name != "none":
        assert config.loss.adversarial.start < config.train.num_steps
    assert config.optim.schedule.num_steps == config.train.num_steps
    assert difference(config, from_json(to_json(config))) == []


@pytest.mark.parametrize("spec", TINY)
def test_tiny_is_tiny_and_the_same_experiment(spec):
    tiny, full = load_config(spec), load_config(spec.removesuffix("tiny"))
    side = tiny.data.image_size
    tokenizer = build_tokenizer(tiny.model)
    params = jax.eval_shape(
        tokenizer.init, jax.random.key(0), jnp.zeros((1, side, side, 3))
    )
    assert sum(x.size for x in jax.tree.leaves(params)) < 600_000
    assert tiny.data.dataset == ("coco" if "_coco" in spec else "photos")
    assert side == 32 and side % tokenizer.factor == 0
    assert tiny.train.num_steps <= 10 and tiny.train.batch_size == 8
    assert tokenizer.factor == build_tokenizer(full.model).factor
    for key in ("model.quantizer.name", "model.decoder_norm.name", "optim.clip.gen"):
        assert not [line for line in difference(full, tiny) if line.startswith(key)]


def prior_tokens(config):
    """Fill in what a tokenizer of its config, and labelled data, would tell."""
    tokenizer = build_tokenizer(load_config(config.tokenizer_config).model)
    config.unlock()
    side = config.data.image_size // tokenizer.factor
    assert config.data.image_size % tokenizer.factor == 0
    config.tokens.update(
        grid=(side, side),
        codebook_sizes=tokenizer.codebook_sizes,
        books=tokenizer.channel_books,
    )
    if config.model.num_classes == -1:
        config.model.num_classes = 10
    return config.lock()


@pytest.mark.parametrize("spec", PRIOR_SPECS + [f"{spec},tiny" for spec in PRIOR_SPECS])
def test_everything_in_a_prior_can_be_built(spec):
    config = load_config(spec)
    assert kind_of(config) == "prior"
    assert difference(config, from_json(to_json(config))) == []
    assert config.optim.schedule.num_steps == config.train.num_steps
    read_settings(config.data)
    config = prior_tokens(config)
    prior_task.check(config)
    state = jax.eval_shape(lambda: prior_task.init_state(config))
    count = sum(x.size for x in jax.tree.leaves(state.gen_params))
    if "tiny" in spec:
        assert count < 200_000 and config.model.num_classes == 0
        assert config.train.num_steps <= 10 and config.train.batch_size == 8
        assert config.tokenizer_config.endswith(":tiny")
        assert config.data.dataset == ("coco" if "_coco" in spec else "photos")
        full = load_config(spec.removesuffix("tiny"))
        for key in ("model.name", "model.channels.name", "optim.gen.name"):
            assert not [x for x in difference(full, config) if x.startswith(key)]
    elif config.data.image_size == 256:
        assert 80e6 < count < 700e6
        assert config.tokens.grid == (16, 16)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_tells_the_command_the_number_and_the_cost(file):
    text = ast.get_docstring(ast.parse(file.read_text()))
    assert f"python -m movq_jax.main --config=configs/{file.name}" in text
    assert "Number to reach:" in text
    assert "Cost" in text
    assert "`tiny`" in text
    assert "stable" in text or file.stem.endswith("_photos") or file in PRIORS


def test_an_unknown_argument_is_answered_with_the_known_ones():
    with pytest.raises(UserError) as error:
        load_config("configs/movq_f8.py:68m")
    assert str(error.value) == (
        "configs/movq_f8.py: there is no argument '68m'; did you mean '67m'? "
        "Known: 102m, 270m, 67m, stable, tiny"
    )
    with pytest.raises(UserError, match="67m and 270m exclude each other"):
        load_config("movq_f8:270m,67m")


def test_the_readme_lists_them_all():
    readme = (ROOT / "README.md").read_text()
    assert available_configs() == [file.stem for file in FILES]
    for file in FILES:
        assert f"[`{file.stem}`](configs/{file.name})" in readme
