"""Where a model lies: a folder, a repository of the Hub, a published model's name."""

from etils import epath

from movq_jax.families import nearest
from movq_jax.pretrained.named_models import NAMED_MODELS

HUB = "hf://"


def local(path: epath.PathLike) -> epath.PathLike:
    """A folder for what a person gave as a model's place.

    Args:
      path: a folder, which stays what it is; `hf://USER/NAME`, or with `@REVISION`; or
        a name of `movq_jax.pretrained.named_models`, unless a folder is called so.

    Raises:
      UserError: what is elsewhere cannot be fetched.
    """
    # Only where it is asked for: who has a folder needs none of this.
    if isinstance(path, str) and path.startswith(HUB):
        from movq_jax.pretrained.hub import fetch_from_hub

        return fetch_from_hub(path)
    if isinstance(path, str) and path in NAMED_MODELS and not epath.Path(path).exists():
        from movq_jax.pretrained.named import find_or_convert

        return find_or_convert(path)
    return path


def no_such_place(path: epath.PathLike) -> str:
    """Why there is nothing at a path; with the nearest name, if it may be one."""
    if not isinstance(path, str) or "/" in path:
        return "no such folder"
    known = nearest(path, NAMED_MODELS)
    return f"no such folder, and no published model is called so{known}"
