"""The way to matplotlib, which is an extra."""

from movq_jax.errors import UserError


def figure_class() -> type:
    """`matplotlib.figure.Figure`.

    Raises:
      UserError: matplotlib is not installed.
    """
    try:
        # Not pyplot, which looks for a screen.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            "drawing needs matplotlib: pip install 'movq_jax[plots]'"
        ) from error
    return Figure
