import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from movq_jax.data.settings import read_settings
from movq_jax.data.transforms import CenterCrop, NoResize, RandomCrop, ShortSide
from movq_jax.errors import UserError


@pytest.mark.parametrize("kind", [dict, ConfigDict, FrozenConfigDict])
def test_dicts_and_config_dicts(data_config, kind):
    settings = read_settings(kind(data_config))
    assert settings.dataset == "small"
    assert settings.train.resize == NoResize(16)
    assert settings.train.crop == RandomCrop(16)
    assert settings.train.flip and not settings.eval.flip
    assert settings.eval.resize == ShortSide(16)
    assert settings.eval.crop == CenterCrop(16)


def test_evaluation_may_have_a_size_of_its_own(data_config):
    data_config["eval"]["image_size"] = 24
    settings = read_settings(data_config)
    assert (settings.train.image_size, settings.eval.image_size) == (16, 24)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda c: c.update(image_sise=3),
            r"data has no field 'image_sise'; did you mean 'image_size'",
        ),
        (
            lambda c: c["train"].update(flipp=True),
            r"data\.train has no field 'flipp'; did you mean 'flip'",
        ),
        (
            lambda c: c["eval"].update(flip=True),
            r"data\.eval has no field 'flip'",
        ),
        (lambda c: c.pop("prefetch"), "data lacks prefetch"),
        (
            lambda c: c["train"].update(crop={"name": "randm"}),
            r"data\.train\.crop\.name is 'randm'; did you mean 'random'",
        ),
        (
            lambda c: c["eval"].update(resize={"name": "short_side", "sise": 3}),
            r"data\.eval\.resize \(short_side\) has no field 'sise'; did you mean",
        ),
        (
            lambda c: c["train"].update(
                crop={"name": "random_scaled", "min_scale": 1.0}
            ),
            r"data\.train\.crop \(random_scaled\).*max_scale",
        ),
        (
            lambda c: c.update(image_size=0),
            r"data\.image_size is 0: a whole number from 1",
        ),
        (lambda c: c.update(num_threads=-1), r"data\.num_threads is -1"),
        (lambda c: c.update(num_workers=True), r"data\.num_workers is True"),
        (lambda c: c.update(max_broken_share=2), r"data\.max_broken_share is 2; give"),
        (
            lambda c: c["train"].update(reduced_decoding=1),
            r"data\.train\.reduced_decoding is 1; use true or false",
        ),
        (lambda c: c.update(prefetch=2.5), r"data\.prefetch is 2\.5"),
        (lambda c: c["eval"].update(image_size=-1), r"data\.eval\.image_size is -1"),
    ],
)
def test_what_is_wrong_is_named(data_config, change, message):
    change(data_config)
    with pytest.raises(UserError, match=message):
        read_settings(data_config)
