"""Which of the things in a checkpoint are the model's weights.

Trainings save their weights under a key ('state_dict', 'model', ...) beside optimizers,
epochs and callbacks, sometimes with averaged weights under another. Of such a tree one
set of tensors is chosen here, and what is left out is told.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from movq_jax.pretrained.formats.state_dict_names import (
    plain_names,
    within_diffusion,
    without_training,
    without_twins,
)
from movq_jax.pretrained.refusals import Refused
from movq_jax.pretrained.torch_pickles import Placeholder

_PLAIN = (  # earlier ones are preferred
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "generator",
    "params",
    "weights",
    "net",
    "network",
    "autoencoder",
    "vae",
    "vqgan",
    "vqvae",
    "vqmodel",
    "vq_model",
    "tokenizer",
)
_AVERAGED = (
    "ema",
    "model_ema",
    "ema_model",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema_state_dict",
    "ema_model_state_dict",
    "generator_ema",
    "params_ema",
    "ema_params",
    "shadow",
    "shadow_params",
)
# Under another key a lone dict of tensors is the model's, but for these.
_NEVER = ("optim", "opt_", "sched", "lr_", "scaler", "amp", "disc", "loss", "callback")
_AROUND_PARAMS = ("target", "model", "state", "train_state")  # in flax
_DEEPEST = 4
_LISTED = 5


class Chosen(NamedTuple):
    """One set of weights of a file."""

    part: str  # where it was, '' for the whole
    tensors: dict[str, Any]
    skipped: dict[str, str]  # what was left out -> why


IsTensor = Callable[[Any], bool]


def choose(
    tree: Mapping[str, Any], is_tensor: IsTensor, kind: str, averaged: bool = True
) -> Chosen:
    """The model's tensors in the tree of a file.

    Args:
      tree: names -> tensors, dicts like this one, or anything else.
      is_tensor: tells the tensors, which have `shape` and `dtype`.
      kind: 'msgpack', where modules are nested dicts; else a state dict's names are
        flat, with dots.
      averaged: prefer averaged weights where the file has both.

    Raises:
      Refused: it cannot be told which tensors are meant, or there are none.
    """
    if kind == "msgpack":
        chosen = _in_flax(tree, is_tensor, averaged, "")
    else:
        chosen = _in_torch(tree, is_tensor, averaged, "")
        chosen = _cleaned(chosen, averaged)
    if not chosen.tensors:
        held = _listed(f"{name} ({why})" for name, why in chosen.skipped.items())
        raise Refused("it holds no weights" + (f", only {held}" if held else ""))
    return chosen


def _in_torch(
    tree: Mapping[Any, Any], is_tensor: IsTensor, averaged: bool, part: str
) -> Chosen:
    """The state dict in a tree, its names as they are."""
    key, average = _keys(tree, is_tensor, averaged)
    if key is None:
        return _flat(tree, is_tensor, part)
    inner = _in_torch(tree[key], is_tensor, averaged, _joined(part, key))
    skipped = {
        _name(other): _what(value, is_tensor)
        for other, value in tree.items()
        if other not in (key, average)
    } | inner.skipped
    if average is None or average == key:
        return inner._replace(skipped=skipped)
    twin = _in_torch(tree[average], is_tensor, averaged, _joined(part, average))
    return _averaged(inner._replace(skipped=skipped), twin, average)


def _keys(
    tree: Mapping[Any, Any], is_tensor: IsTensor, averaged: bool
) -> tuple[str | None, str | None]:
    """The keys of the weights and of their averages: None where there are none."""
    known: dict[int, bool] = {}
    holders = [
        key
        for key, value in tree.items()
        if isinstance(key, str) and _holds(value, is_tensor, known, _DEEPEST)
    ]
    plain = next((key for key in _PLAIN if key in holders), None)
    average = next((key for key in _AVERAGED if key in holders), None)
    if plain is not None:
        return plain, average if averaged else None
    if average is not None:
        return average, average
    if any(is_tensor(value) for value in tree.values()):
        return None, None
    others = [key for key in holders if not key.lower().startswith(_NEVER)]
    if len(others) > 1:
        raise Refused(
            f"it holds several sets of tensors ({_listed(others)}), and none under a "
            "name that is known; save the model's alone"
        )
    return (others or [None])[0], None


def _holds(
    value: Any, is_tensor: IsTensor, known: dict[int, bool], levels: int
) -> bool:
    """Whether a dict holds tensors, or dicts that do; `known` are the answers."""
    if not isinstance(value, dict) or not levels:
        return False
    if id(value) not in known:
        known[id(value)] = False  # while it is looked for: a dict may hold itself
        known[id(value)] = any(
            is_tensor(v) or _holds(v, is_tensor, known, levels - 1)
            for v in value.values()
        )
    return known[id(value)]


def _flat(tree: Mapping[Any, Any], is_tensor: IsTensor, part: str) -> Chosen:
    tensors, skipped = {}, {}
    for name, value in tree.items():
        if is_tensor(value) and isinstance(name, str):
            tensors[name] = value
            continue
        asked = getattr(value, "asked", "") if isinstance(value, Placeholder) else ""
        if asked.startswith(("torch._", "torch.storage.")) or (
            asked.startswith("torch.") and asked.endswith("Storage")
        ):
            raise Refused(
                f"its tensor {_name(name)!r} is made with {asked}, which is not read; "
                "let torch load it and save a state dict of ordinary tensors"
            )
        skipped[_name(name)] = _what(value, is_tensor)
    return Chosen(part, tensors, skipped)


def _averaged(plain: Chosen, twin: Chosen, key: str) -> Chosen:
    """The weights with those that have an average replaced by it."""
    averages = plain_names(twin.tensors)
    weights = plain_names(plain.tensors)
    count = len(averages)
    fit = averages and all(
        name in weights and tuple(weights[name].shape) == tuple(tensor.shape)
        for name, tensor in averages.items()
    )
    if not fit:
        why = f"{count} tensors, averages of something else than {plain.part!r}"
        return plain._replace(skipped=plain.skipped | {key: why})
    why = f"{count} tensors, whose averages in {twin.part!r} are taken"
    return Chosen(
        f"{plain.part}, averaged weights of {twin.part}",
        weights | averages,
        plain.skipped | {plain.part: why},
    )


def _cleaned(chosen: Chosen, averaged: bool) -> Chosen:
    """A state dict without its wrappers' prefixes and the training's own tensors."""
    part, tensors = chosen.part, plain_names(chosen.tensors)
    tensors, beside, within = within_diffusion(tensors)
    tensors, twins, are_averages = without_twins(tensors, averaged)
    tensors, losses = without_training(tensors)
    for more in (within, "averaged weights" if are_averages else ""):
        part = f"{part}, {more}" if part and more else part or more
    return Chosen(part, tensors, chosen.skipped | beside | twins | losses)


def _in_flax(
    tree: Mapping[str, Any], is_tensor: IsTensor, averaged: bool, part: str
) -> Chosen:
    """The parameters in a tree of flax, their names joined with '/'."""
    tables = [key for key, value in tree.items() if isinstance(value, dict)]
    key = "params" if "params" in tables else None
    around = [k for k in _AROUND_PARAMS if k in tables and "params" in tree[k]]
    averages = [k for k in _AVERAGED if k in tables]
    if key is None:
        key = next(iter(around + averages), None)
    if key is None:
        return _joined_names(tree, is_tensor, part)
    chosen = _in_flax(tree[key], is_tensor, averaged, _joined(part, key))
    for other in averages if averaged else ():
        twin = _in_flax(tree[other], is_tensor, averaged, _joined(part, other))
        # A collection of another purpose may be called so: the codebook's statistics.
        if _shapes(twin) == _shapes(chosen):
            key, chosen = other, twin
            break
    skipped = {k: _what(v, is_tensor) for k, v in tree.items() if k != key}
    return chosen._replace(skipped=skipped | chosen.skipped)


def _shapes(chosen: Chosen) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in chosen.tensors.items()}


def _joined_names(tree: Mapping[str, Any], is_tensor: IsTensor, part: str) -> Chosen:
    tensors, skipped = {}, {}

    def walk(table: Mapping[str, Any], prefix: str) -> None:
        for key, value in table.items():
            name = prefix + key
            if isinstance(value, dict):
                walk(value, f"{name}/")
            elif not is_tensor(value):
                skipped[name] = _what(value, is_tensor)
            elif name in tensors:
                raise Refused(f"it holds two arrays that are called {name!r}")
            else:
                tensors[name] = value

    walk(tree, "")
    return Chosen(part, tensors, skipped)


def _what(value: Any, is_tensor: IsTensor) -> str:
    """What something is that is left out. Never its repr, which may be endless."""
    if is_tensor(value):
        return "a tensor beside the weights"
    if isinstance(value, Placeholder):
        return f"no tensor: {value.asked}"
    if _holds(value, is_tensor, {}, _DEEPEST):
        return "tensors that are not these weights"
    return f"no tensor: {type(value).__name__}"


def _name(key: Any) -> str:
    return str(key) if isinstance(key, (str, int)) else f"({type(key).__name__})"


def _joined(part: str, key: str) -> str:
    return f"{part}.{key}" if part else key


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
