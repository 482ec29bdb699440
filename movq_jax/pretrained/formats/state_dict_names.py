"""Names in a state dict: without wrappers, averages and what only training needs."""

import collections
from collections.abc import Mapping
from typing import Any

from movq_jax.pretrained.refusals import Refused

_WRAPPER = "module."  # DataParallel's and its kin's, before all names
_COMPILED = "_orig_mod."  # torch.compile's, before the names of any module
# A diffusion model has its tokenizer within.
_WITHIN = "first_stage_model."
_TRAINING = {
    "loss.": "of the training's loss",
    "discriminator.": "of the training's discriminator",
    "perceptual_loss.": "of the training's loss",
    "lpips.": "of the training's loss",
}
# Of Lightning's `LitEma`, by which one is known.
_DECAY, _UPDATES = ".decay", ".num_updates"

Tensors = dict[str, Any]
Skipped = dict[str, str]


def plain_names(tensors: Mapping[str, Any]) -> Tensors:
    """The tensors by their names without the prefixes of wrappers.

    Raises:
      Refused: two would have the same name.
    """
    plain: Tensors = {}
    for name, tensor in tensors.items():
        short = name.replace(_COMPILED, "")
        while short.startswith(_WRAPPER):
            short = short.removeprefix(_WRAPPER)
        if short in plain:
            raise Refused(f"it holds the tensor {short!r} twice, once as {name!r}")
        plain[short] = tensor
    return plain


def within_diffusion(tensors: Tensors) -> tuple[Tensors, Skipped, str]:
    """The tokenizer's tensors where a diffusion model holds it, else all.

    Returns:
      (tensors, groups that were left out -> why, the part that was taken or '')
    """
    within = {
        name.removeprefix(_WITHIN): tensor
        for name, tensor in tensors.items()
        if name.startswith(_WITHIN)
    }
    if not within:
        return tensors, {}, ""
    roots = (n.split(".")[0] for n in tensors if not n.startswith(_WITHIN))
    skipped = {
        f"{root}.*": f"{_tensors(count)} beside {_WITHIN}*"
        for root, count in collections.Counter(roots).items()
    }
    return within, skipped, _WITHIN.removesuffix(".")


def without_training(tensors: Tensors) -> tuple[Tensors, Skipped]:
    """The tensors but those of losses and discriminators."""
    kept, counts = {}, collections.Counter()
    for name, tensor in tensors.items():
        root = next((root for root in _TRAINING if name.startswith(root)), None)
        if root is None:
            kept[name] = tensor
        else:
            counts[root] += 1
    skipped = {f"{r}*": f"{_tensors(n)} {_TRAINING[r]}" for r, n in counts.items()}
    return kept, skipped


def without_twins(tensors: Tensors, averaged: bool) -> tuple[Tensors, Skipped, bool]:
    """The tensors without those of `LitEma`; if `averaged`, with their numbers.

    A `LitEma` of a module keeps the average of its parameter `a.b.c` as `abc`, beside
    `decay` and `num_updates`, under a name such as 'model_ema' (of everything) or
    'ema_decoder' (of the module `decoder`). Where a parameter has no twin, as one that
    is not trained, it is its own average.

    Returns:
      (tensors, groups that were left out -> why, whether averages are among them)
    """
    plain, skipped, replaced = tensors, {}, {}
    averages = {root: _below(tensors, root) for root in _roots(tensors)}
    for root in averages:
        plain = {n: t for n, t in plain.items() if not n.startswith(f"{root}.")}
    for root, twins in averages.items():
        names = _restored(root, twins, plain)
        if names is None:
            why = f"{_tensors(len(twins))}, averages of none of the others"
        elif not averaged:
            why = f"{_tensors(len(twins))}, averages"
        else:
            replaced |= {names[twin]: tensor for twin, tensor in twins.items()}
            why = f"averages that take the place of {_tensors(len(twins))}"
        skipped[f"{root}.*"] = why
    return plain | replaced, skipped, bool(replaced)


def _roots(tensors: Tensors) -> list[str]:
    """Where the averages are: 'model_ema'."""
    names = (n.removesuffix(_UPDATES) for n in tensors if n.endswith(_UPDATES))
    return [name for name in names if name + _DECAY in tensors]


def _below(tensors: Tensors, root: str) -> Tensors:
    """The averages of a `LitEma`, by their names in it."""
    found = {n.removeprefix(root): t for n, t in tensors.items() if n.startswith(root)}
    return {
        name[1:]: tensor
        for name, tensor in found.items()
        if name[:1] == "." and name not in (_DECAY, _UPDATES)
    }


def _restored(root: str, twins: Tensors, plain: Tensors) -> dict[str, str] | None:
    """Twin -> the name of its parameter, or None where they do not belong together."""
    parent, _, last = root.rpartition(".")
    parent = f"{parent}." if parent else ""
    module = last.removeprefix("ema_").removesuffix("_ema")
    for prefix in (f"{parent}{module}.", parent):
        names: dict[str, list[str]] = {}
        for name in plain:
            if name.startswith(prefix):
                dotless = name.removeprefix(prefix).replace(".", "")
                names.setdefault(dotless, []).append(name)
        if twins and all(
            len(names.get(twin, ())) == 1
            and tuple(plain[names[twin][0]].shape) == tuple(tensor.shape)
            for twin, tensor in twins.items()
        ):
            return {twin: names[twin][0] for twin in twins}
    return None


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count} tensors"
