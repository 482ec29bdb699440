"""`movq`, or `python -m movq_jax`: lists the commands and starts them."""

import importlib
import sys
from collections.abc import Sequence

from movq_jax import __version__
from movq_jax.errors import UserError
from movq_jax.tools import TOOLS, command

TRAIN = "train"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `movq [NAME] [flags]` and return the exit code."""
    args = sys.argv[1:] if argv is None else list(argv)
    name, rest = (args[0], args[1:]) if args else ("--help", [])
    if name in ("-h", "--help", "help"):
        return command.run(lambda _: print(overview()))
    if name == "--version":
        return command.run(lambda _: print(f"movq_jax {__version__}"))
    if name in (TRAIN, *TOOLS):
        # Only the one that is asked for: some take seconds to import.
        where = "movq_jax.main" if name == TRAIN else f"movq_jax.tools.{name}"
        return command.run(importlib.import_module(where).main, rest)
    return command.run(_refuse, [name])


def overview() -> str:
    """Return what there is, and how to begin."""
    names = {TRAIN: "train a model, or evaluate it with --mode=eval", **TOOLS}
    width = max(map(len, names))
    lines = [
        f"movq_jax {__version__}: images as indices, in JAX",
        "",
        "Commands (`movq NAME --help` shows the flags of one):",
        *(f"  {name:{width}}  {what}" for name, what in names.items()),
        "",
        "To begin:",
        "  movq prepare --dataset=photos",
        "  movq train --config=configs/movq_photos.py --workdir=runs/a",
        "  movq reconstruct --model=runs/a --input=photos/ --output=out/",
        "  movq train --config=configs/maskgit_photos.py --config.tokenizer=runs/a \\",
        "    --workdir=runs/p",
        "  movq sample --model=runs/p --output=out/",
        "",
        "`movq NAME` is `python -m movq_jax.tools.NAME`, and `movq train` is",
        "`python -m movq_jax.main`.",
    ]
    return "\n".join(lines)


def _refuse(args: Sequence[str]) -> None:
    nearest = command.did_you_mean(args[0], [TRAIN, *TOOLS])
    raise UserError(f"no command {args[0]}{nearest}; `movq` lists them all")


if __name__ == "__main__":
    sys.exit(main())
