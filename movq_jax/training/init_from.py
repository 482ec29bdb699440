"""Training that begins with the weights of another model: `config.init_from`.

The model trained is then that one, whatever `config.model` says but for `HOW_TRAINED`;
data, losses and optimizers are the config's. The optimizers begin anew, and codes come
with the model, so that none are estimated from data.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from movq_jax.config import kind_of, with_tuples
from movq_jax.errors import UserError
from movq_jax.pretrained.bundle import Bundle, check_fit, read_bundle
from movq_jax.training import workdir as workdirs
from movq_jax.training.checkpoints import FOLDER as CHECKPOINTS
from movq_jax.training.checkpoints import Checkpoints
from movq_jax.training.state import TrainState

WHERE = "config.init_from"
HOW_TRAINED = ("dropout", "dtype", "attention")  # and not what is trained


def with_model(config: ConfigDict, workdir: epath.PathLike) -> ConfigDict:
    """`config` with the model that it begins with; as it is where that is none.

    A run that has begun knows its model, and the other one is not opened again.

    Raises:
      UserError: there is no such model, or it is of the other stage.
    """
    if not config.init_from:
        if config.init_discriminator:
            raise UserError(
                f"config.init_discriminator is on, but {WHERE} is empty: set it to the "
                "run whose discriminator is to go on"
            )
        return config
    if config.init_discriminator and kind_of(config) == "prior":
        raise UserError(
            "config.init_discriminator is on, but a prior has no discriminator: set it "
            "to False"
        )
    model = _model_of_run(config, epath.Path(workdir)) or _model_of_bundle(config)
    kept = {key: config.model[key] for key in HOW_TRAINED if key in config.model}
    resolved = config.copy_and_resolve_references()
    with resolved.unlocked():
        resolved.model = ConfigDict(with_tuples(model) | kept)
        if "codebook_init" in resolved.train:
            resolved.train.codebook_init = ConfigDict({"name": "none"})
    return resolved.lock()


def _model_of_run(config: ConfigDict, folder: epath.Path) -> dict[str, Any] | None:
    stored = workdirs.read_config(folder)
    if stored is None or not workdirs.has_begun(folder):
        return None
    same = stored.get("init_from") == config.init_from
    return stored.model.to_dict() if same else None


def _model_of_bundle(config: ConfigDict) -> dict[str, Any]:
    bundle = _read(config)
    return bundle.model["prior"] if bundle.kind == "prior" else bundle.model


def _read(config: ConfigDict) -> Bundle:
    try:
        bundle = read_bundle(config.init_from)
    except UserError as error:
        raise UserError(f"{WHERE}: {error}") from error
    if bundle.kind != kind_of(config):
        raise UserError(
            f"{WHERE} is {config.init_from}, a {bundle.kind}, but this config trains "
            f"a {kind_of(config)}"
        )
    return bundle


def read_params(config: ConfigDict, abstract: TrainState) -> Any:
    """The weights to begin with, and nothing else: nested NumPy float32.

    Args:
      config: with its model, see `with_model`.
      abstract: what a state of it looks like.

    Raises:
      UserError: they are not there, are of other tokens, or do not fit.
    """
    bundle = _read(config)
    if bundle.kind == "prior":
        _check_tokens(config, bundle.model["tokens"])
    try:
        check_fit(abstract.gen_params, bundle.params)
    except UserError as error:
        raise UserError(f"{WHERE}: {config.init_from}: {error}") from error
    return bundle.params


def _check_tokens(config: ConfigDict, theirs: Mapping[str, Any]) -> None:
    ours = config.tokens.to_dict()
    for name in ("fingerprint", "grid", "codebook_sizes"):
        here, there = with_tuples(ours[name]), with_tuples(theirs[name])
        if here != there:
            raise UserError(
                f"{WHERE} is {config.init_from}, a prior of other tokens: their {name} "
                f"is {there}, here {here}. Set config.tokenizer to the tokenizer in "
                "its folder model/tokenizer, and the size of the images to its own"
            )


def read_discriminator(
    config: ConfigDict,
    abstract: TrainState,
    *,
    abstract_of: Callable[[ConfigDict], TrainState],
    score: Callable[[dict[str, float]], float],
) -> tuple[Any, Any]:
    """The discriminator of the run that `config.init_from` is: parameters, variables.

    Args:
      config: to begin with.
      abstract: what a state of it looks like.
      abstract_of: the same for another config.
      score: see `Checkpoints`.

    Raises:
      UserError: it is no run with checkpoints, or its discriminator is another.
    """
    run = epath.Path(config.init_from).expanduser()
    state = None
    if (run / CHECKPOINTS).exists():
        stored = workdirs.check_is_run(run)
        with Checkpoints(run, score=score, read_only=True) as checkpoints:
            state = checkpoints.restore_latest(abstract_of(stored))
    if state is None:
        raise UserError(
            f"config.init_discriminator is on, but {config.init_from} is no run with "
            "checkpoints: a model folder has no discriminator"
        )
    found = state.disc_params, state.variables["disc"]
    wanted = abstract.disc_params, abstract.variables["disc"]
    shapes = [jax.tree.map(lambda x: x.shape, tree) for tree in (found, wanted)]
    if shapes[0] != shapes[1] or not found[0]:
        raise UserError(
            f"the discriminator of {config.init_from} is not that of config.loss: give "
            "its config.loss.discriminator, or set config.init_discriminator to False"
        )
    return found
