import json

import pytest
from ml_collections import ConfigDict

from movq_jax.config import (
    difference,
    forbidden_changes,
    from_json,
    kind_of,
    missing_keys,
    prior_schema,
    schema,
    to_json,
)


@pytest.fixture
def config():
    return schema.tokenizer_config()


def test_equal_configs_have_no_difference(config):
    assert difference(config, schema.tokenizer_config()) == []
    assert difference(config, from_json(to_json(config))) == []


def test_difference_names_the_keys_and_both_values(config):
    other = schema.tokenizer_config()
    other.optim.gen.learning_rate = 2e-4
    other.model.multipliers = (1, 2)
    other.model.quantizer = {"name": "vq", "new": ""}
    config.optim.gen.learning_rate = 1e-4
    lines = difference(config, other)
    assert "optim.gen.learning_rate: 0.0001 -> 0.0002" in lines
    assert "model.multipliers: [1, 1, 2, 2, 4] -> [1, 2]" in lines
    assert "model.quantizer.new: (absent) -> ''" in lines
    assert "model.quantizer.dim: 256 -> (absent)" in lines
    assert lines == sorted(lines)


def test_difference_ignores_what_patterns_match():
    old, new = {"a": {"b": 1, "c": 1}, "d": 1}, {"a": {"b": 2, "c": 2}, "d": 2}
    assert difference(old, new, ["a.*"]) == ["d: 1 -> 2"]
    assert difference(old, new, ["a.b", "d"]) == ["a.c: 1 -> 2"]
    assert difference(old, new, ["a"]) == ["a.b: 1 -> 2", "a.c: 1 -> 2", "d: 1 -> 2"]


def test_an_empty_section_is_not_an_absent_one():
    assert difference({"a": {}}, {}) == ["a: {} -> (absent)"]


def test_what_may_change_on_resume(config):
    other = schema.tokenizer_config()
    other.train.num_steps = 7  # the schedule follows
    other.log.every = 7
    other.eval.num_examples = 7
    other.checkpoint.keep = 7
    other.data.update(data_dir="elsewhere", num_threads=7, prefetch=7, num_workers=7)
    assert forbidden_changes(config, other) == []
    other.train.batch_size = 7
    other.data.image_size = 7
    assert forbidden_changes(config, other) == [
        "data.image_size: 256 -> 7",
        "train.batch_size: 48 -> 7",
    ]


def test_a_schedule_of_its_own_length_may_not_change(config):
    other = schema.tokenizer_config()
    other.optim.schedule.num_steps = 7
    assert forbidden_changes(config, other) == ["optim.schedule.num_steps: 100000 -> 7"]


def test_json_is_canonical_and_gives_the_config_back(config):
    text = to_json(config)
    again = from_json(text)
    assert again == config.copy_and_resolve_references()
    assert again.model.multipliers == (1, 1, 2, 2, 4)
    assert again.is_locked and again.model.quantizer.is_locked
    assert to_json(again) == text
    assert list(json.loads(text)) == sorted(config.keys())
    shuffled = ConfigDict({key: config[key] for key in reversed(list(config.keys()))})
    assert to_json(shuffled) == text


def test_keys_that_an_old_config_lacks(config):
    old = json.loads(to_json(config))
    assert missing_keys(old, config) == []
    del old["loss"]["perceptual"], old["train"]["accumulation"]
    old["loss"]["discriminator"] = {"name": "another"}
    assert missing_keys(old, config) == ["loss.perceptual", "train.accumulation"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "{}", '{"model": 3}'])
def test_from_json_refuses_what_is_no_config(text):
    with pytest.raises(ValueError, match="."):
        from_json(text)


def test_to_json_refuses_what_json_does_not_know():
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"a": float("nan")})


def test_a_prior_is_told_from_a_tokenizer(config):
    prior = prior_schema.prior_config()
    assert (kind_of(config), kind_of(prior)) == ("tokenizer", "prior")
    assert difference(prior, from_json(to_json(prior))) == []
    stored = json.loads(to_json(prior))
    del stored["cache"]
    with pytest.raises(ValueError, match="it lacks cache"):
        from_json(json.dumps(stored))


def test_what_a_prior_may_change_when_it_resumes():
    old, new = prior_schema.prior_config(), prior_schema.prior_config()
    new.tokenizer, new.sample.steps, new.eval.nll_samples = "elsewhere", 3, 1
    assert forbidden_changes(old, new) == []
    new.tokens.fingerprint, new.cache.train = "b", "tokens"
    assert forbidden_changes(old, new) == [
        "cache.train: '' -> 'tokens'",
        "tokens.fingerprint: '' -> 'b'",
    ]
    old.cache.train, old.tokens.fingerprint = "before", "b"  # it lies elsewhere now
    assert forbidden_changes(old, new) == []
