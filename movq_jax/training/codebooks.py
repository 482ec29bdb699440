"""The codebooks of a training state: which of its arrays belong to a book's rows.

A book's rows stand in the parameters, in their average, in the optimizer's moments, and
what its rule remembers in `variables['codebooks']`. Who replaces rows has to bring all
four in order; that is done here.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from movq_jax.errors import UserError
from movq_jax.models.tokenizer import build_tokenizer
from movq_jax.training.codebook_rules import WHERE, make_rule
from movq_jax.training.state import TrainState

MODULE = "quantize"  # the quantizer, in the generator's parameters


def check_rule(config: ConfigDict) -> None:
    """Checks the rule, and that the quantizer has books for it.

    Raises:
      UserError: the rule is wrong, or there is no book that it could move.
    """
    rule = make_rule(config.train.codebook_update)
    quantizer = config.model.quantizer
    if rule.update is not None and not ruled_books(config):
        raise UserError(
            f"{WHERE}.name is {config.train.codebook_update.name!r}, but the quantizer "
            f"{quantizer.name!r} as it is set has no book whose rows could be set from "
            "features: use gradient, without revive_below"
        )
    if not rule.by_gradient and quantizer.get("legacy", False):
        raise UserError(
            f"{WHERE}.name is {config.train.codebook_update.name!r}, but "
            "config.model.quantizer.legacy is true: then beta weighs the term that "
            "pulls the codes, which running means replace. Set legacy to false"
        )


def ruled_books(config: ConfigDict) -> tuple[str, ...]:
    """Books whose rows a rule, or k-means, may set."""
    return build_tokenizer(config.model).make_quantizer(parent=None).ruled_books


def init_books(config: ConfigDict, gen_params: Any) -> dict[str, dict[str, jax.Array]]:
    """What the rule remembers of each book before the first step."""
    rule = make_rule(config.train.codebook_update)
    if rule.update is None:
        return {}
    return {
        book: rule.init(gen_params[MODULE][book]["rows"])
        for book in ruled_books(config)
    }


def without_rows(config: ConfigDict) -> Callable[[Any], Any]:
    """gradients -> gradients that are 0 for rows which the optimizer shall not see."""
    if make_rule(config.train.codebook_update).by_gradient:
        return lambda grads: grads

    def blind(grads):
        rows = {
            book: jnp.zeros_like(grads[MODULE][book]["rows"])
            for book in ruled_books(config)
        }
        return _with_rows(grads, rows)

    return blind


def make_update(config: ConfigDict) -> Callable | None:
    """(state, params_before, z, ids, key) -> state; None: there is nothing to do.

    It comes after the optimizer. `params_before` are the generator's parameters as
    they were before it, by which the codes were chosen; z [B, h, w, D] are the latents
    of the whole step, ids the indices that they got. The state's `ema_params` are
    still the average before the step: rows that begin anew are put there as well, the
    others will be averaged with the rest.
    """
    rule = make_rule(config.train.codebook_update)
    if rule.update is None:
        return None
    tokenizer = build_tokenizer(config.model)
    books = ruled_books(config)

    def update(
        state: TrainState, params_before: Any, z: jax.Array, ids: jax.Array, key
    ) -> TrainState:
        found = tokenizer.apply({"params": params_before}, z, ids, method="assigned")
        for number, book in enumerate(books):
            features, chosen = jax.lax.stop_gradient(found[book])
            rows = state.gen_params[MODULE][book]["rows"]
            memory = state.variables["codebooks"][book]
            new = rule.update(
                rows, memory, features, chosen, jax.random.fold_in(key, number)
            )
            state = _replaced(state, book, new.rows, new.anew)
            state = _remembering(state, {book: new.state})
        return state

    return update


def start_anew(
    config: ConfigDict, state: TrainState, rows: Mapping[str, jax.Array]
) -> TrainState:
    """The state with other rows [K, d] of the books in `rows`, without a past."""
    rule = make_rule(config.train.codebook_update)
    for book, new in rows.items():
        state = _replaced(state, book, new, jnp.ones(new.shape[0], bool))
        if rule.update is not None:
            state = _remembering(state, {book: rule.init(new)})
    return state


def _replaced(
    state: TrainState, book: str, rows: jax.Array, anew: jax.Array
) -> TrainState:
    """Rows [K, d] in the parameters; of those `anew` [K] all trace of the past goes."""
    anew = anew[:, None]
    average = state.ema_params[MODULE][book]["rows"]

    def forgotten(path, leaf):
        names = jax.tree_util.keystr(path, simple=True, separator="/")
        is_moment = names.endswith(f"{MODULE}/{book}/rows")
        return jnp.where(anew, 0.0, leaf) if is_moment else leaf

    return state.replace(
        gen_params=_with_rows(state.gen_params, {book: rows}),
        ema_params=_with_rows(state.ema_params, {book: jnp.where(anew, rows, average)}),
        gen_opt=jax.tree_util.tree_map_with_path(forgotten, state.gen_opt),
    )


def _remembering(state: TrainState, memory: dict[str, dict]) -> TrainState:
    books = {**state.variables["codebooks"], **memory}
    return state.replace(variables={**state.variables, "codebooks": books})


def _with_rows(params: Any, rows: Mapping[str, jax.Array]) -> Any:
    """A tree like the generator's parameters with other rows of some books."""
    quantizer = dict(params[MODULE])
    for book, new in rows.items():
        quantizer[book] = {**quantizer[book], "rows": new}
    return {**params, MODULE: quantizer}
