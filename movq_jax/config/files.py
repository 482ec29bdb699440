"""Finding the file of a config and loading it."""

import contextlib
import importlib.util
import inspect
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from movq_jax import families
from movq_jax.config.overrides import apply_override, parse_override
from movq_jax.config.records import kind_of, parts_of
from movq_jax.errors import UserError


def load_config(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Return the config that `spec` names, with `overrides` applied, locked.

    Args:
        spec: `configs/movq_photos.py`, `movq_photos` or a path, each with `:arg` or
            without. Looked for in the working directory first, then among the
            configs that are installed with the package.
        overrides: `--config.a.b=value` as on a command line, or `a.b=value`; a later
            one wins.

    Raises:
        UserError: there is no such config, it does not take the argument, or an
            override names no key or has a value of another type.

    Example:
        >>> config = load_config("movq_photos:tiny", ["train.num_steps=10"])
    """
    name, _, arg = spec.partition(":")
    path = find_config(name)
    config = _call_get_config(path, arg)
    _check_parts(config, path)
    for override in overrides:
        apply_override(config, *parse_override(override))
    # Anew: a family that a config file or an override replaced is not locked yet.
    return config.unlock().lock()


def find_config(name: str) -> Path:
    """Return the file of the config `name` (without `:arg`).

    Raises:
        UserError: there is none; the message lists what there is.
    """
    file = Path(name).expanduser()
    if file.suffix != ".py":
        file = file.with_name(f"{file.name}.py")
    candidates = [file]
    if file.parent in (Path("."), Path("configs")):
        candidates += [folder / file.name for folder in _config_folders()]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    known = available_configs()
    raise UserError(f"there is no config {name!r}{families.nearest(file.stem, known)}")


def available_configs() -> list[str]:
    """Return the names of the configs in `./configs` and of the installed ones."""
    files = (file for folder in _config_folders() for file in folder.glob("[!_]*.py"))
    return sorted({file.stem for file in files})


def run_name(spec: str) -> str:
    """Return what a run of `spec` is called.

    Example:
        >>> run_name("configs/movq_f8.py:102m,tiny")
        'movq_f8-102m-tiny'
    """
    name, _, arg = spec.partition(":")
    return "-".join([Path(name).stem, *filter(None, arg.split(","))])


def read_arg(arg: str, accepted: Iterable[str]) -> set[str]:
    """Split the `arg` of a `get_config` at its commas.

    Raises:
        UserError: a part of it is not one of `accepted`.

    Example:
        >>> sorted(read_arg("270m,tiny", ["67m", "270m", "tiny"]))
        ['270m', 'tiny']
    """
    accepted = list(accepted)
    words = {word.strip() for word in arg.split(",") if word.strip()}
    for word in sorted(words - set(accepted)):
        hint = families.nearest(word, accepted)
        raise UserError(f"there is no argument {word!r}{hint}")
    return words


def choose_one(words: set[str], choices: Sequence[str]) -> str:
    """Return the one of `choices` that is in `words`; the first of them if none is.

    Raises:
        UserError: more than one is.
    """
    chosen = [choice for choice in choices if choice in words]
    if len(chosen) > 1:
        raise UserError(f"the arguments {' and '.join(chosen)} exclude each other")
    return chosen[0] if chosen else choices[0]


def _config_folders() -> list[Path]:
    """Return the folders with configs, in the order in which they are searched."""
    folders = [Path("configs")]
    installed = importlib.util.find_spec("movq_jax.configs")
    if installed is not None and installed.submodule_search_locations:
        folders += [Path(place) for place in installed.submodule_search_locations]
    return folders


def _call_get_config(path: Path, arg: str) -> Any:
    function = getattr(_execute(path), "get_config", None)
    if function is None:
        raise UserError(f"{path} has no function get_config(arg), so it is no config")
    if arg and not inspect.signature(function).parameters:
        raise UserError(f"{path} takes no argument, but was given {arg!r}")
    with _errors_named(path):
        return function(arg) if arg else function()


def _execute(path: Path) -> ModuleType:
    # Not ml_collections' own loader: it uses what Python deprecates, and keeps the
    # module of the first config when a process loads a second one.
    spec = importlib.util.spec_from_file_location(f"{path.stem}_config", path)
    module = importlib.util.module_from_spec(spec)
    with _errors_named(path):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Make a `UserError`, with file and line, of whatever the code in `path` raises."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except SyntaxError as error:
        own = error.filename is None or _is_same(error.filename, path)
        where = path if own else error.filename
        raise UserError(f"{where}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if _is_same(frame.filename, path)]
        if not lines:  # not that file's doing
            raise
        kind = type(error).__name__
        raise UserError(f"{path}, line {lines[-1]}: {kind}: {error}") from error


def _is_same(filename: str, path: Path) -> bool:
    return Path(filename).resolve() == path.resolve()


def _check_parts(config: Any, path: Path) -> None:
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config() must return a ConfigDict")
    missing = [part for part in parts_of(config) if part not in config]
    if missing:
        start = {
            "tokenizer": "schema.tokenizer_config()",
            "prior": "prior_schema.prior_config()",
        }[kind_of(config)]
        raise UserError(
            f"{path}: the config lacks {', '.join(missing)}; "
            f"start it from movq_jax.config.{start}"
        )
