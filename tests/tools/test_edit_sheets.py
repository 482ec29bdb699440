import numpy as np
import pytest

from movq_jax.tools.edit_sheets import COLUMNS, Overview

RED = (250, 0, 10)


def panels(count, size=(256, 256), caption=""):
    image = np.full((*size, 3), RED, np.uint8)
    return [("title", image, caption)] * count


def red_columns(sheet):
    """How many runs of red there are from left to right."""
    red = (sheet == RED).all(axis=2).any(axis=0)
    return int((np.diff(red.astype(int)) == 1).sum())


def red_rows(sheet):
    return red_columns(sheet.swapaxes(0, 1))


def test_a_row_a_picture_and_a_column_a_panel():
    overview = Overview(5)
    for name in "ab":
        overview.add(name, panels(3))
    sheet = overview.draw()
    assert (red_columns(sheet), red_rows(sheet)) == (3, 2)


def test_many_panels_are_wrapped():
    overview = Overview(5)
    overview.add("a", panels(COLUMNS + 1))
    sheet = overview.draw()
    assert (red_columns(sheet), red_rows(sheet)) == (COLUMNS, 2)


def test_only_the_first_pictures_are_shown():
    overview = Overview(2)
    for name in "abc":
        overview.add(name, panels(1))
    assert red_rows(overview.draw()) == 2


@pytest.mark.parametrize("size", [(1, 1), (600, 40), (40, 600), (7, 300)])
def test_pictures_of_any_shape_are_whole(size):
    overview = Overview(1)
    overview.add("a", panels(2, size, caption="12 dB"))
    sheet = overview.draw()
    assert (red_columns(sheet), red_rows(sheet)) == (2, 1)


def test_long_names_are_cut():
    short, long = Overview(1), Overview(1)
    short.add("a", panels(1))
    long.add("a" * 500, panels(1))
    assert short.draw().shape == long.draw().shape
