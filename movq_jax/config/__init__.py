"""Configs: finding and loading them, overriding single keys, comparing, storing.

A config is a Python file with `get_config(arg="")` that returns a
`ml_collections.ConfigDict`; `schema.py` and, of priors, `prior_schema.py` tell what
its keys mean. On a command line it
is named `configs/movq_f8.py:270m,tiny`: a path or the name of an installed config, and
after the colon the arguments that it takes. `--config.train.batch_size=16` overrides a
single key.

Nothing here imports jax, so that commands answer at once.
"""

from movq_jax.config.files import (
    available_configs,
    choose_one,
    find_config,
    load_config,
    read_arg,
    run_name,
)
from movq_jax.config.overrides import apply_override, split_overrides
from movq_jax.config.records import (
    difference,
    forbidden_changes,
    from_json,
    kind_of,
    missing_keys,
    to_json,
    with_tuples,
)

__all__ = [
    "apply_override",
    "available_configs",
    "choose_one",
    "difference",
    "find_config",
    "forbidden_changes",
    "from_json",
    "kind_of",
    "load_config",
    "missing_keys",
    "read_arg",
    "run_name",
    "split_overrides",
    "to_json",
    "with_tuples",
]
