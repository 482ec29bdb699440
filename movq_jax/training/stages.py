"""The stage that a config trains: a tokenizer, or a prior over its indices."""

from types import ModuleType

from ml_collections import ConfigDict

from movq_jax.config import kind_of
from movq_jax.training import prior_task, tokenizer_task

STAGES = {"tokenizer": tokenizer_task, "prior": prior_task}


def task_of(config: ConfigDict) -> ModuleType:
    """The module with what the loop asks of a stage, see `movq_jax.training.loop`."""
    return STAGES[kind_of(config)]
