"""What all commands share: the wrapper, the argument parser, JSON records.

A command is a module with `main(argv)` that raises `MovqError` for what a person can
act on, and ends in::

    if __name__ == "__main__":
        sys.exit(command.run(main))
"""

import argparse
import contextlib
import io
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np

from movq_jax.atomic import check_writable, write_text
from movq_jax.data.codes import MAX_MICRO_BATCH
from movq_jax.errors import EXIT_DONE, MovqError, Preempted, UserError
from movq_jax.families import closest

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell counts
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
STDOUT = "-"


def run(main: Callable[..., Any], argv: Sequence[str] | None = None) -> int:
    """Call `main(argv)` and return the exit code of the process.

    A `MovqError` becomes one message on stderr and its own exit code; a bug keeps
    its traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file's name may hold letters that the terminal's encoding does not have.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main(argv)
        sys.stdout.flush()
    except MovqError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader left, as `| head` does
        # Python flushes stdout once more when it ends: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except SystemExit as request:  # --help and --version
        return request.code if isinstance(request.code, int) else EXIT_DONE
    return EXIT_DONE


class _Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt, no error that a file could cause."""


@contextlib.contextmanager
def sigterm_stops(message: str) -> Iterator[None]:
    """Stop at SIGTERM as at Ctrl-C.

    Raises:
        Preempted: it came; with this message.
    """

    def stop(*_: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield  # no other thread gets signals
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except _Terminated as error:
        raise Preempted(message) from error
    finally:
        signal.signal(signal.SIGTERM, before)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the nearest of `names`, or nothing."""
    meant = closest(name, names)
    return f" (did you mean {meant!r}?)" if meant else ""


class ArgumentParser(argparse.ArgumentParser):
    """`argparse` with the habits of this project.

    `--max-side` and `--max_side` are one flag; `--input=a b` and `--input a b` mean
    the same for a flag that takes several values; flags are not abbreviated; a
    misspelt one is answered with the nearest; an empty value (of a variable that is
    not set, in a script) is refused; what is wrong is a `UserError`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def parse_args(self, args=None, namespace=None):
        """Parse all of `args` (default: those of the process)."""
        args = sys.argv[1:] if args is None else list(args)
        self._refuse_unknown_flags(args)
        return super().parse_args(args, namespace)

    def parse_known_args(self, args=None, namespace=None):
        """Parse what is known of `args`; return the rest as it was given."""
        args = sys.argv[1:] if args is None else list(args)
        values, rest = super().parse_known_args(self._as_declared(args), namespace)
        self._refuse_empty_values(values)
        return values, rest

    def error(self, message: str) -> NoReturn:
        """Raise `UserError` instead of printing the usage and leaving."""
        raise UserError(f"{message} (`{self.prog} --help` shows all flags)")

    def _refuse_unknown_flags(self, args: Sequence[str]) -> None:
        # Before argparse, which would first complain of a required flag that is
        # missing only because it was misspelt.
        flags = self._declared_flags()
        for arg in args:
            if arg == "--":
                return
            name = arg.partition("=")[0]
            if name.startswith("--") and _canonical(name) not in flags:
                self.error(f"unknown flag {name}{did_you_mean(name, flags)}")

    def _refuse_empty_values(self, values: argparse.Namespace) -> None:
        for action in self._actions:
            value = getattr(values, action.dest, None)
            several = value if isinstance(value, list) else [value]
            if value != action.default and "" in several:
                self.error(f"{'/'.join(action.option_strings)} has an empty value")

    def _as_declared(self, args: Sequence[str]) -> list[str]:
        """Write each flag the way it was declared."""
        flags = self._declared_flags()
        result: list[str] = []
        for position, arg in enumerate(args):
            if arg == "--":
                return result + list(args[position:])
            name, equals, value = arg.partition("=")
            declared = flags.get(_canonical(name)) if name.startswith("--") else None
            if declared is None:
                result.append(arg)
            elif equals and self._takes_several(declared) and value[:1] != "-":
                result += [declared, value]
            else:
                result.append(declared + equals + value)
        return result

    def _declared_flags(self) -> dict[str, str]:
        """Return the long flags: canonical spelling -> as declared."""
        return {
            _canonical(flag): flag
            for flag in self._option_string_actions
            if flag.startswith("--")
        }

    def _takes_several(self, flag: str) -> bool:
        return self._option_string_actions[flag].nargs in ("+", "*")


def positive_int(text: str) -> int:
    """Read a flag's value that must be a whole number above zero."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def micro_batch(text: str) -> int:
    """Read `--micro-batch`: a whole number from 1 to `MAX_MICRO_BATCH`."""
    number = positive_int(text)
    if number > MAX_MICRO_BATCH:
        raise argparse.ArgumentTypeError(f"{text} is above {MAX_MICRO_BATCH}")
    return number


def positive_number(text: str) -> float:
    """Read a flag's value that must be a number above zero."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above zero")
    return number


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--json` (print the record) and `--json=FILE` (write it) to `parser`."""
    parser.add_argument(
        "--json",
        metavar="FILE",
        nargs="?",
        const=STDOUT,
        type=_json_place,
        help="print the record as JSON, or write it to FILE",
    )


def _json_place(text: str) -> str:
    if text not in ("", STDOUT):
        check_writable(text)
    return text


def human_stream(where: str | None) -> io.TextIOBase:
    """Return where text for people goes: `--json` keeps stdout for the record."""
    return sys.stderr if where == STDOUT else sys.stdout


def emit_json(record: Any, where: str | None) -> None:
    """Print or write `record`, as the value of `--json` says (None: neither)."""
    if where == STDOUT:
        print(to_json(record))
    elif where is not None:
        write_text(os.path.expanduser(where), to_json(record) + "\n")


def to_json(record: Any) -> str:
    """Return `record` as strict JSON.

    NumPy values become plain ones, paths strings, and numbers that JSON does not
    know (infinite, NaN) null.
    """
    return json.dumps(_plain(record), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _canonical(flag: str) -> str:
    return flag.replace("_", "-")
