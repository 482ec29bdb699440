"""What XLA compiled, kept on disk: the second start of a command waits for less."""

import os
import stat
import warnings
from pathlib import Path

import jax

DEFAULT_FOLDER = "~/.cache/movq_jax/xla"


def enable() -> None:
    """Let jax keep compiled programs; to be called before the first one is compiled.

    The folder is `$JAX_COMPILATION_CACHE_DIR`, else `~/.cache/movq_jax/xla`, readable
    by its owner alone: what lies there is executed. A place that cannot be written,
    or that belongs to somebody else, is not used, with a warning.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return  # jax reads the variable itself
    folder = Path(DEFAULT_FOLDER).expanduser()
    try:
        _make_private(folder)
    except OSError as error:
        warnings.warn(f"no compilation cache in {folder}: {error}", stacklevel=2)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid():
        raise PermissionError("it belongs to another user")
    if stat.S_IMODE(status.st_mode) != 0o700:
        folder.chmod(0o700)
