import pytest

from movq_jax.config import apply_override, prior_schema, schema, split_overrides
from movq_jax.config.overrides import parse_override
from movq_jax.errors import UserError


@pytest.fixture
def config():
    return schema.tokenizer_config()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("seed", "3", 3),
        ("seed", "-1", -1),
        ("optim.gen.learning_rate", "1e-3", 1e-3),
        ("optim.gen.learning_rate", "1", 1.0),
        ("data.decode_once", None, True),
        ("data.train.flip", "false", False),
        ("model.multipliers", "1,2", (1, 2)),
        ("model.multipliers", "(1, 2, 4)", (1, 2, 4)),
        ("model.multipliers", "3", (3,)),
        ("data.dataset", "coco/2017", "coco/2017"),
        ("data.data_dir", "a b=c", "a b=c"),
        ("data.data_dir", "", ""),
    ],
)
def test_values(config, key, text, value):
    apply_override(config, key, text)
    section, _, name = key.rpartition(".")
    holder = config
    for part in filter(None, section.split(".")):
        holder = holder[part]
    assert holder[name] == value
    assert type(holder[name]) is type(value)


def test_a_family_is_replaced_as_a_whole(config):
    apply_override(config, "model.quantizer", "{'name': 'new', 'levels': 8}")
    assert config.model.quantizer.to_dict() == {"name": "new", "levels": 8}
    apply_override(config, "model.quantizer.levels", "5")
    assert config.model.quantizer.levels == 5


def test_the_schedule_follows_the_training(config):
    apply_override(config, "train.num_steps", "7")
    assert config.optim.schedule.num_steps == 7
    apply_override(config, "optim.schedule.num_steps", "3")
    assert (config.optim.schedule.num_steps, config.train.num_steps) == (3, 7)


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("seed", "1.5", "a whole number"),
        ("seed", "", "a whole number"),
        ("optim.gen.learning_rate", "fast", "a number"),
        ("optim.gen.learning_rate", "nan", "a number"),
        ("optim.gen.learning_rate", "inf", "a number"),
        ("data.train.flip", "maybe", "true or false"),
        ("model.multipliers", "1,a", "a tuple such as (1,2)"),
        ("model.multipliers", "1,2.5", "a tuple such as (1,2)"),
        ("model.quantizer", "vq", "a dict such as {'name': ...}"),
        ("model.quantizer", "{'dim': 3}", "a dict such as {'name': ...}"),
    ],
)
def test_a_value_of_another_type_is_refused(config, key, text, expected):
    with pytest.raises(UserError) as error:
        apply_override(config, key, text)
    assert str(error.value) == f"config.{key} expects {expected}, not {text!r}"


def test_a_missing_value_is_refused(config):
    with pytest.raises(UserError, match=r"config.seed expects .*: --config.seed=VALUE"):
        apply_override(config, "seed", None)


def test_a_section_cannot_be_replaced(config):
    with pytest.raises(UserError, match="config.model is a section; set a key of it"):
        apply_override(config, "model", "{}")


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train.batchsize", "config.train.batch_size"),
        ("optim.gen.learning_rte", "config.optim.gen.learning_rate"),
        ("optim.gen.b1.x", "config.optim.gen.b1"),
        ("modle.width", "config.model.width"),
        (
            "learning_rate",
            "config.optim.disc.learning_rate or config.optim.gen.learning_rate",
        ),
        ("codebook_sise", "config.model.quantizer.codebook_size"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(config, key, nearest):
    with pytest.raises(UserError) as error:
        apply_override(config, key, "1")
    assert str(error.value) == f"there is no config.{key}; did you mean {nearest}?"


def test_a_key_like_no_other_is_answered_with_the_sections(config):
    with pytest.raises(UserError, match="no config.zzz; the sections are checkpoint,"):
        apply_override(config, "zzz", "1")


@pytest.mark.parametrize(
    ("override", "pair"),
    [
        ("--config.a.b=1", ("a.b", "1")),
        ("-config.a.b=1=2", ("a.b", "1=2")),
        ("a.b=1", ("a.b", "1")),
        ("--config.a", ("a", None)),
        ("--noconfig.a", ("a", "false")),
        ("nothing", ("nothing", None)),
    ],
)
def test_parse_override(override, pair):
    assert parse_override(override) == pair


def test_split_overrides():
    rest, overrides = split_overrides(
        "--config=x --config.a=1 --config.b 2 --c d --config.e --f "
        "--noconfig.g h --config.i -1 -- --config.j".split()
    )
    assert rest == "--config=x --c d --f h -- --config.j".split()
    assert overrides == (
        "--config.a=1 --config.b=2 --config.e --noconfig.g --config.i=-1".split()
    )


def test_a_familys_member_may_get_fields_that_the_config_does_not_have(config):
    for key, text, value in [
        ("model.quantizer.estimator", "rotation", "rotation"),
        ("model.quantizer.codebook_size", "(16, 8)", (16, 8)),
        ("model.quantizer.codebook_size", "32", 32),
        ("data.train.resize.size", "300", 300),
    ]:
        apply_override(config, key, text)
        found = config
        for part in key.split("."):
            found = found[part]
        assert found == value and type(found) is type(value)
    with pytest.raises(UserError, match="expects a whole number, not 'x'"):
        apply_override(config, "model.quantizer.codebook_size", "x")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("sample.temperature", "0.9", 0.9),
        ("sample.temperature", "(1.0, 0.9)", (1.0, 0.9)),
        ("sample.top_k", "(8,16)", (8, 16)),
        ("sample.top_p", "1", 1),
        ("sample.order.name", "halton", "halton"),
        ("loss.mask.exponent", "2.0", 2.0),
        ("model.channels", "{'name': 'parallel'}", {"name": "parallel"}),
    ],
)
def test_values_of_a_prior(key, text, value):
    config = prior_schema.prior_config()
    apply_override(config, key, text)
    for part in key.split("."):
        config = config[part]
    assert (config.to_dict() if hasattr(config, "to_dict") else config) == value


def test_what_is_no_number_of_a_channel():
    config = prior_schema.prior_config()
    for text in ("high", "()", "(1, 'a')"):
        with pytest.raises(UserError, match="config.sample.temperature expects"):
            apply_override(config, "sample.temperature", text)
    with pytest.raises(UserError, match="there is no config.sample.temperatur"):
        apply_override(config, "sample.temperatur", "1.0")
