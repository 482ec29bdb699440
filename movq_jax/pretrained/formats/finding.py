"""Which file of a folder holds the weights, and the config beside it."""

import json
from pathlib import Path
from typing import Any

from etils import epath

from movq_jax.errors import UserError
from movq_jax.pretrained.formats.diffusers import CONFIG_FILE, WEIGHTS_FILES

# Of a pipeline of diffusers: where its VQModel may lie.
_PIPELINE_FOLDERS = ("movq", "vqvae", "vqmodel")
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack")
_TAMING_FOLDER = "checkpoints"  # of a published run, beside `configs`
_INDEX = "*.safetensors.index.json"
_MOST_BYTES = 1 << 20  # of a config.json: they have 1 kB


def find_weights(path: Path) -> Path:
    """The file of weights that a person means by a file or a folder.

    A folder is one of diffusers (or a pipeline's, with the model in a folder of it), or
    holds one file of weights, itself or in `checkpoints`, as taming's runs do.

    Raises:
      UserError: there is no such file or folder, it is a model of this project, or it
        is not clear which file is meant.
    """
    if not path.exists():
        raise UserError(f"there is no file or folder {path} to convert")
    if not path.is_dir():
        return path
    for own in (path, path / "model"):
        config = read_config(own / CONFIG_FILE)
        if config and "fingerprint" in config and "format_version" in config:
            raise UserError(
                f"{path} is a model of this project already: use it as it is, with "
                f"--model={path} or movq_jax.load"
            )
    for folder in (path, *(path / name for name in _PIPELINE_FOLDERS)):
        for name in WEIGHTS_FILES:
            if (folder / name).is_file():
                return folder / name
    for folder in (path, path / _TAMING_FOLDER):
        found = _candidates(folder)
        if len(found) > 1:
            names = ", ".join(file.name for file in found[:5])
            raise UserError(
                f"{folder} holds several files of weights ({names}): give one of them"
            )
        if found:
            return found[0]
    raise UserError(
        f"there are no weights in {path}: expected {WEIGHTS_FILES[0]} and "
        f"{CONFIG_FILE} of diffusers, or one of {', '.join(_SUFFIXES)}"
    )


def _candidates(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    indices = sorted(folder.glob(_INDEX))
    if indices:
        return indices
    return [
        file
        for file in sorted(folder.iterdir())
        if file.is_file()
        and not file.name.startswith(".")
        # MaskGIT's published files have no suffix: tokenizer_imagenet256_checkpoint.
        and (file.suffix in _SUFFIXES or file.name.endswith("_checkpoint"))
    ]


def read_config(path: epath.Path | Path) -> dict[str, Any] | None:
    """A config.json, or None where there is none that can be read as a dict."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES)
        config = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) else None
