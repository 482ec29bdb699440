"""Train a model, or evaluate one: a tokenizer, or a prior over its indices.

    python -m movq_jax.main --config=configs/movq_photos.py --workdir=runs/a
    python -m movq_jax.main --config=configs/maskgit_photos.py --config.tokenizer=runs/a

The same command again resumes. `--config=configs/movq_photos.py:tiny` runs in seconds;
`--config.train.num_steps=1000` overrides a key of the config. `--profile=10:15` writes
a trace of the steps 10 to 15 to WORKDIR/profile.
"""

import sys
from collections.abc import Sequence

from absl import flags

from movq_jax.config import load_config, run_name, split_overrides
from movq_jax.errors import UserError
from movq_jax.tools import command
from movq_jax.training.profiler import read_steps


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line `argv` (default: that of the process)."""
    words, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
    values = define_flags()
    parse(values, words)
    if values.help:
        print(f"{__doc__}\n{values.module_help('movq_jax.main')}")
        return
    if not values.config:
        raise UserError(
            "which experiment? Give --config=configs/movq_photos.py, or another file "
            "(`python -m movq_jax.main --help` shows all flags)"
        )
    config = load_config(values.config, overrides)
    workdir = values.workdir or f"runs/{run_name(values.config)}"
    profile = read_steps(values.profile)
    if profile and values.mode == "eval":
        raise UserError("--profile traces training steps, and --mode=eval has none")
    # Only now: jax takes seconds, and a typing mistake should be answered at once.
    from movq_jax import compilation_cache
    from movq_jax.training import loop

    compilation_cache.enable()
    if values.mode == "eval":
        loop.evaluate(config, workdir)
    else:
        loop.train(config, workdir, profile=profile)


def define_flags() -> flags.FlagValues:
    """Return the flags, of this call alone."""
    values = flags.FlagValues()
    where = {"flag_values": values, "module_name": "movq_jax.main"}
    flags.DEFINE_string(
        "config", None, "config file or name, with `:arg` or without", **where
    )
    flags.DEFINE_string(
        "workdir", None, "where the run lives (default: runs/CONFIG[-ARG])", **where
    )
    flags.DEFINE_enum("mode", "train", ["train", "eval"], "what to do", **where)
    flags.DEFINE_string(
        "profile", None, "write a trace of this step, or of FIRST:LAST", **where
    )
    flags.DEFINE_boolean("help", False, "show this", short_name="h", **where)
    return values


def parse(values: flags.FlagValues, words: Sequence[str]) -> None:
    """Set `values` from the command line, and mark absl's own flags as parsed."""
    try:
        _, *rest = values(["movq_jax.main", *words])
    except flags.UnrecognizedFlagError as error:
        wrong = f"--{error.flagname.partition('.')[0]}"
        nearest = command.did_you_mean(wrong, [f"--{name}" for name in values])
        raise UserError(f"unknown flag --{error.flagname}{nearest}") from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    if rest:
        raise UserError(f"unexpected {rest[0]!r}: did you mean --config={rest[0]}?")
    flags.FLAGS(["movq_jax.main"])  # Grain refuses to work before


if __name__ == "__main__":
    sys.exit(command.run(main))
