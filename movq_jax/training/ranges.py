"""The ranges of what the loop itself reads in a config."""

from ml_collections import ConfigDict

from movq_jax.config import kind_of
from movq_jax.errors import UserError

# Key -> the least whole number.
LEAST = {
    "seed": 0,
    "train.num_steps": 1,
    "train.batch_size": 1,
    "train.max_bad_steps": 1,
    "eval.every": 0,
    "eval.num_examples": 0,
    "eval.batch_size": 1,
    "log.every": 0,
    "log.images_every": 0,
    "log.num_images": 1,
    "checkpoint.every": 0,
    "checkpoint.keep": 1,
}
MOST = {"seed": 2**32 - 1, "train.batch_size": 2**20, "eval.batch_size": 2**20}
LEAST_OF_PRIORS = {"eval.nll_samples": 1, "train.accumulation": 1}


def check_ranges(config: ConfigDict) -> None:
    """Refuses numbers that the loop cannot work with.

    Raises:
      UserError: the first key, its value, and what it could be.
    """
    least_of_all = LEAST | (LEAST_OF_PRIORS if kind_of(config) == "prior" else {})
    for key, least in least_of_all.items():
        value = config
        for name in key.split("."):
            value = value[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(
                f"config.{key} is {value!r}, but must be a whole number from {least} on"
            )
        if value > MOST.get(key, value):
            raise UserError(f"config.{key} is {value}, but {MOST[key]} is the most")
