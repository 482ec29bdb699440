import pytest

from movq_jax.errors import UserError
from movq_jax.training.ranges import LEAST, check_ranges


@pytest.mark.parametrize("key", LEAST)
def test_below_the_least_is_refused(tiny_config, key):
    check_ranges(tiny_config(f"{key}={LEAST[key]}"))
    with pytest.raises(UserError, match=f"config.{key} is {LEAST[key] - 1}, but must"):
        check_ranges(tiny_config(f"{key}={LEAST[key] - 1}"))


def test_what_is_no_whole_number_is_refused(tiny_config):
    config = tiny_config().unlock()
    del config.log.every
    config.log.every = 2.5
    with pytest.raises(UserError, match="config.log.every is 2.5"):
        check_ranges(config)


@pytest.mark.parametrize("value", ["train.batch_size=4294967297", "seed=4294967296"])
def test_numbers_beyond_all_machines(value, tiny_config):
    key = value.partition("=")[0]
    with pytest.raises(UserError, match=f"config.{key} is 42949672.*is the most"):
        check_ranges(tiny_config(value))
