"""Of pipes and devices nothing is read: that might never end."""

from pathlib import Path

from movq_jax.errors import UserError


def check_regular(path: Path) -> None:
    """Refuse to read what is there, but is no file.

    Raises:
        UserError: it is a folder, a pipe or a device.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file but a folder, a pipe or a device")
