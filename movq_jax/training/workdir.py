"""The folder of a run: its config, and the refusal to let another config into it."""

from etils import epath
from ml_collections import ConfigDict

from movq_jax.atomic import write_text
from movq_jax.config import difference, forbidden_changes, from_json, to_json
from movq_jax.errors import UserError

CONFIG_FILE = "config.json"
LEFT_BY_RUNS = ("checkpoints", "model", "metrics.jsonl")


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
    write_text(folder / CONFIG_FILE, to_json(config))


def has_begun(folder: epath.Path) -> bool:
    """Whether a run left more in `folder` than its config."""
    metrics, checkpoints = folder / "metrics.jsonl", folder / "checkpoints"
    return (
        (folder / "model").exists()
        or (metrics.exists() and bool(metrics.read_text()))
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


def check_same_model(workdir: epath.PathLike, config: ConfigDict) -> None:
    """Refuses to evaluate a run's weights as another model.

    Raises:
      UserError: no run lives in `workdir`, or its model differs.
    """
    stored = read_config(workdir)
    if stored is None:
        raise UserError(f"there is no run in {workdir}: train one with --mode=train")
    lines = difference({"model": stored.model}, {"model": config.model})
    refuse_changes(workdir, lines)


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
