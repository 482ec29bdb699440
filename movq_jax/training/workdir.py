"""The folder of a run: its config, who may train in it, and what is kept out."""

import contextlib
import os
from collections.abc import Iterator

import jax
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from movq_jax.atomic import write_text
from movq_jax.config import (
    difference,
    forbidden_changes,
    from_json,
    missing_keys,
    to_json,
)
from movq_jax.errors import UserError

try:
    import fcntl
except ImportError:  # Windows, where training is for WSL2
    fcntl = None

CONFIG_FILE = "config.json"
LOCK_FILE = "lock"
LEFT_BY_RUNS = ("checkpoints", "model", "metrics.jsonl")


def check_place(workdir: epath.PathLike) -> None:
    """Refuses a place that this installation cannot reach.

    Raises:
      UserError: a bucket, and the package that reads it is not installed.
    """
    try:
        epath.Path(workdir).exists()
    except ImportError as error:
        raise UserError(f"--workdir={workdir} cannot be used: {error}") from error
    except KeyError as error:
        raise UserError(
            f"--workdir={workdir} is of an unknown kind: give a folder or gs://..."
        ) from error
    if os.fspath(workdir).startswith("gs://"):
        # TensorBoard's files are written there by another package than the rest.
        try:
            import google.cloud.storage  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"--workdir={workdir} cannot be used: please install "
                "google-cloud-storage, which writes the TensorBoard files there"
            ) from error


@contextlib.contextmanager
def locked(workdir: epath.PathLike) -> Iterator[None]:
    """Makes the folder, and keeps other processes from training in it meanwhile.

    The system takes the lock back when the process ends, however it ends. Of several
    processes of one run the first takes it. There is none in buckets (`gs://`), nor on
    file systems without locks: there nobody notices a second run.

    Raises:
      UserError: another process trains there, or the folder cannot be made.
    """
    if fcntl is None or "://" in os.fspath(workdir) or jax.process_index() != 0:
        yield
        return
    path = epath.Path(workdir) / LOCK_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}") from error
    with file:
        _take(file, path)
        yield


def _take(file, path: epath.Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"another process is training in {path.parent} right now: wait for it, "
            "stop it, or choose another --workdir"
        ) from error
    except OSError as error:
        logging.warning("no lock on %s: %s", path, error)


def claim(workdir: epath.PathLike, config: ConfigDict) -> None:
    """Makes `workdir` the folder of a run of `config`.

    A folder where no step was ever taken, because the data was not there for example,
    may be claimed by another config.

    Raises:
      UserError: a run of another config lives there, or it cannot be written.
    """
    folder = epath.Path(workdir)
    stored = read_config(folder)
    if stored is not None and has_begun(folder):
        refuse_changes(folder, forbidden_changes(stored, config))
    elif stored is None:
        refuse_strangers(folder)
    if jax.process_index() == 0:
        write_text(folder / CONFIG_FILE, to_json(config))


def has_begun(folder: epath.Path) -> bool:
    """Whether a run left more in `folder` than its config."""
    metrics, checkpoints = folder / "metrics.jsonl", folder / "checkpoints"
    return (
        (folder / "model").exists()
        or (metrics.exists() and bool(metrics.read_bytes()))
        or (checkpoints.exists() and any(checkpoints.iterdir()))
    )


def read_config(workdir: epath.PathLike) -> ConfigDict | None:
    """The config of the run in `workdir`, or None where no run has begun.

    Raises:
      UserError: there is one that cannot be read.
    """
    path = epath.Path(workdir) / CONFIG_FILE
    if not path.exists():
        return None
    try:
        return from_json(path.read_text())
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not a run's config: {error}") from error


def config_to_evaluate(workdir: epath.PathLike, config: ConfigDict) -> ConfigDict:
    """The config that a run began with, if its model is that of `config`.

    It tells what the run's checkpoints hold, whatever losses `config` has.

    Raises:
      UserError: no run lives in `workdir`, its model differs, or it is the run of a
        version whose configs had fewer keys.
    """
    stored = check_is_run(workdir)
    parts = [part for part in ("model", "tokens") if part in config or part in stored]
    lines = difference(
        {part: stored[part] for part in parts if part in stored},
        {part: config[part] for part in parts if part in config},
    )
    refuse_changes(workdir, lines)
    lacking = missing_keys(stored, config)
    if lacking:
        raise UserError(
            f"{epath.Path(workdir) / CONFIG_FILE} lacks "
            f"{', '.join(f'config.{key}' for key in lacking)}: another version of "
            "movq_jax trained this run, and has to evaluate it"
        )
    return stored


def check_is_run(workdir: epath.PathLike) -> ConfigDict:
    """The config of the run in `workdir`.

    Raises:
      UserError: no run lives there.
    """
    stored = read_config(workdir)
    if stored is None:
        raise UserError(f"there is no run in {workdir}: train one with --mode=train")
    return stored


def refuse_changes(workdir: epath.PathLike, lines: list[str]) -> None:
    """Raises UserError, with the differences, if there are any."""
    if lines:
        listed = "\n".join(f"  config.{line}" for line in lines)
        raise UserError(
            f"{workdir} holds a run of another config (there -> here):\n{listed}\n"
            "Choose another --workdir, or give the values that the run began with."
        )


def refuse_strangers(folder: epath.Path) -> None:
    """Raises UserError where traces of a run lie without the config it began with."""
    found = [name for name in LEFT_BY_RUNS if (folder / name).exists()]
    if found:
        raise UserError(
            f"{folder} holds {', '.join(found)} but no {CONFIG_FILE}, so it is unknown "
            "which run left them: choose another --workdir"
        )
