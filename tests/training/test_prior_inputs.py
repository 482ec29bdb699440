"""What a prior learns from: resolved, checked, and refused."""

import shutil

import numpy as np
import pytest

from movq_jax.config import load_config, to_json
from movq_jax.data.tokens.cache import TokenCache
from movq_jax.errors import UserError
from movq_jax.pretrained.bundle import read_bundle
from movq_jax.training import prior_inputs, prior_resolving
from movq_jax.training.prior_checks import check
from movq_jax.training.prior_resolving import resolve


def test_what_a_config_leaves_open_is_filled_in(prior_config, tiny_bundle, tmp_path):
    config = prior_config("model.num_classes=-1")
    found = resolve(config, tmp_path, None)
    assert found.tokens.fingerprint == read_bundle(tiny_bundle).fingerprint
    assert found.tokens.grid == (2, 2) and found.tokens.factor == 4
    assert found.tokens.codebook_sizes == (32, 32)
    assert found.tokens.books == ("codebook", "codebook")
    assert found.tokens.classes == ("cat", "dog", "eel")
    assert found.model.num_classes == 3
    assert config.tokens.fingerprint == ""  # it is left as it is
    again = resolve(found, tmp_path, None)
    assert again.to_dict() == found.to_dict()


def test_without_classes_none_are_known(prior_config, tmp_path):
    found = resolve(prior_config(), tmp_path, None)
    assert found.model.num_classes == 0 and found.tokens.classes == ()


def test_the_grid_of_images_is_that_of_their_size(prior_config, tmp_path):
    sides = ("data.image_size=16", "data.eval.image_size=0")
    found = resolve(prior_config(*sides, cache=""), tmp_path, None)
    assert found.tokens.grid == (4, 4)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("tokenizer=nowhere",), "there is no model at nowhere"),
        (("cache.train=nowhere",), "there is no token cache in nowhere"),
        (("model.num_classes=4",), "num_classes is 4, but the token cache .* has 3"),
        (("tokens.fingerprint=abc",), "config.tokens.fingerprint is abc"),
        (("tokenizer=",), "config.tokenizer is empty"),
    ],
)
def test_what_does_not_fit_is_refused(prior_config, tmp_path, overrides, words):
    with pytest.raises(UserError, match=words):
        resolve(prior_config(*overrides), tmp_path, None)


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        (("data.image_size=10",), "image_size is 10, but must be a multiple of 4"),
        (("data.eval.image_size=16",), "eval.image_size is 16, but a prior is of one"),
    ],
)
def test_images_that_do_not_fit_are_refused(prior_config, tmp_path, sides, words):
    with pytest.raises(UserError, match=words):
        resolve(prior_config(*sides, cache=""), tmp_path, None)


def test_caches_of_others_are_refused(prior_config, token_cache, toy_ids, tmp_path):
    other = token_cache("other", toy_ids, fingerprint="b" * 64)
    with pytest.raises(UserError, match="was made by the tokenizer bbbb"):
        resolve(prior_config(cache=other), tmp_path, None)
    larger = token_cache("larger", np.zeros((4, 3, 3, 2), np.int32))
    with pytest.raises(UserError, match="has 3 x 3 positions an image .* not 2 x 2"):
        resolve(prior_config(f"cache.eval={larger}"), tmp_path, None)
    classes = token_cache("classes", toy_ids, classes=("a", "b", "c"))
    options = (f"cache.eval={classes}", "model.num_classes=-1")
    with pytest.raises(UserError, match="has 3 classes, which are not the 3 that"):
        resolve(prior_config(*options), tmp_path, None)
    resolve(prior_config(f"cache.eval={classes}"), tmp_path, None)  # it learns none


def test_images_to_evaluate_on_are_those_of_the_cache(
    prior_config, token_cache, toy_ids, tmp_path, monkeypatch
):
    cache = token_cache("other_size", toy_ids)
    sizes = ("cache.eval=", "data.image_size=16", "data.eval.image_size=0")
    with pytest.raises(UserError, match="of 8 x 8 pixels, but those .* of 16 x 16"):
        resolve(prior_config(*sizes, f"cache.train={cache}"), tmp_path, None)
    names = {"classes": ("dog", "cat", "eel")}
    monkeypatch.setattr(prior_resolving, "read_classes", lambda _: names["classes"])
    sizes = ("cache.eval=", "data.image_size=8", "data.eval.image_size=0")
    config = prior_config(*sizes, "model.num_classes=-1", f"cache.train={cache}")
    with pytest.raises(UserError, match="cat, dog, eel, but .* has dog, cat, eel"):
        resolve(config, tmp_path, None)
    names["classes"] = ("cat", "dog", "eel")
    assert resolve(config, tmp_path, None).model.num_classes == 3


def test_a_tokenizer_that_lies_in_the_workdir(
    prior_config, tiny_bundle, tmp_path, photos_dir
):
    """It is taken as it is, but not for that of another config."""

    def train(config, folder):
        raise AssertionError("it is trained already")

    sizes = ("data.image_size=16", "data.eval.image_size=0", "tokenizer=")
    config = prior_config(*sizes, f"data.data_dir={photos_dir}", cache="")
    shutil.copytree(tiny_bundle, tmp_path / "tokenizer")
    found = resolve(config, tmp_path, train)
    assert found.tokens.fingerprint == read_bundle(tiny_bundle).fingerprint
    other = load_config("dualvq_photos:tiny")
    (tmp_path / "tokenizer" / "config.json").write_text(to_json(other))
    with pytest.raises(UserError, match="holds a run of another config"):
        resolve(config, tmp_path, train)


@pytest.mark.parametrize("override", ["log.num_images=0", "train.max_bad_steps=0"])
def test_wrong_numbers_are_told_before_a_tokenizer_is_trained(
    prior_config, tmp_path, photos_dir, override
):
    def train(config, folder):
        raise AssertionError("the config is wrong")

    where = f"data.data_dir={photos_dir}"
    config = prior_config("tokenizer=", where, override, cache="")
    with pytest.raises(UserError, match=f"config.{override.partition('=')[0]} is 0"):
        resolve(config, tmp_path, train)


@pytest.mark.parametrize(
    ("labels", "words"),
    [([0] * 15 + [-1], "an example without a label"), ([0] * 15 + [3], "the label 3")],
)
def test_labels_are_classes(
    prior_config, token_cache, toy_ids, tmp_path, labels, words
):
    cache = token_cache("labels", toy_ids, labels)
    config = resolve(prior_config("model.num_classes=-1", cache=cache), tmp_path, None)
    with prior_inputs.train_batches(config, 0) as batches:
        with pytest.raises(UserError, match=words):
            for _ in range(2):  # an epoch
                next(batches)
    unconditional = resolve(prior_config(cache=cache), tmp_path, None)
    with prior_inputs.eval_batches(unconditional, batch_size=16) as batches:
        assert not next(batches)["label"].any()


def test_data_without_labels_have_no_classes(
    prior_config, token_cache, toy_ids, tmp_path
):
    cache = token_cache("unlabelled", toy_ids, [-1] * 16, classes=())
    for number in (-1, 3):
        with pytest.raises(UserError, match="has no labels: set it to 0"):
            resolve(
                prior_config(f"model.num_classes={number}", cache=cache), tmp_path, None
            )


@pytest.mark.parametrize("process_count", [1, 2])
def test_evaluation_numbers_its_examples(prior_config, tmp_path, process_count):
    config = resolve(prior_config("model.num_classes=-1"), tmp_path, None)
    found = {}
    for process in range(process_count):
        with prior_inputs.eval_batches(
            config,
            batch_size=6,
            num_examples=15,
            process_index=process,
            process_count=process_count,
        ) as batches:
            for batch in batches:
                for row in np.flatnonzero(batch["mask"]):
                    found[int(batch["index"][row])] = batch["ids"][row]
    cache = TokenCache.open(config.cache.eval)
    assert sorted(found) == list(range(15))
    for number, ids in found.items():
        np.testing.assert_array_equal(ids, cache[number]["ids"])


def test_training_batches_are_a_function_of_their_number(prior_config, tmp_path):
    config = resolve(prior_config("model.num_classes=-1"), tmp_path, None)
    with prior_inputs.train_batches(config, 3) as batches:
        found = next(batches)
    assert found["ids"].shape == (8, 2, 2, 2) and batches.refused is None
    for name, value in prior_inputs.batch_at(config, 3).items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.width=0", "config.model.width is 0"),
        ("model.channels.name=deep", "channels"),
        ("loss.mask.name=cosin", "did you mean 'cosine'"),
        ("loss.min_rate=1.5", "config.loss.min_rate is 1.5"),
        ("loss.label_smoothing=1.0", "leaves nothing to learn"),
        ("loss.class_dropout=-0.1", "config.loss.class_dropout is -0.1"),
        ("loss.unmasked_weight=2.0", "config.loss.unmasked_weight is 2.0"),
        ("train.ema_decay=1.5", "config.train.ema_decay is 1.5"),
        ("train.accumulation=3", "accumulation is 3, which does not divide"),
        ("sample.steps=0", "steps is 0"),
        ("sample.top_k=(1,2,3)", "config.sample.top_k has 3 numbers; .* 2 channels"),
        ("sample.guidance=1.0", "guidance needs classes"),
        ("optim.gen.weight_decay=-1.0", "weight_decay is -1.0"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(
    prior_config, tmp_path, override, words
):
    with pytest.raises(UserError, match=words):
        check(resolve(prior_config(override), tmp_path, None))
