import io

import numpy as np
import pytest
from PIL import Image

from movq_jax.errors import UserError
from movq_jax.evaluation import sample_sheets
from movq_jax.evaluation.sample_sheets import Step

BACKGROUND = (250, 250, 250)
GREEN = (10, 200, 30)


def flat(colour, height=32, width=32):
    return np.full((height, width, 3), colour, np.uint8)


def count(sheet, colour):
    """How many pixels of a sheet have a colour."""
    return int((sheet == np.uint8(colour)).all(axis=-1).sum())


def make_steps(number, grid=(4, 4), side=8):
    """Steps that make a green image known from its corner on."""
    steps = []
    for k in range(1, number + 1):
        known = np.arange(grid[0] * grid[1]).reshape(grid) < 16 * k / number
        confidence = np.where(known, -0.01, -3.0).astype(np.float32)
        image = flat(GREEN, grid[0] * side, grid[1] * side)
        steps.append(Step(image, known, confidence))
    return steps


def test_every_image_is_on_the_grid():
    colours = [(20 * i + 5, 7, 9) for i in range(7)]
    sheet = sample_sheets.sample_grid(np.stack([flat(c) for c in colours]))
    for colour in colours:
        assert count(sheet, colour) == 128 * 128  # enlarged four times
    assert sheet.shape == (3 * 132 - 4 + 32, 3 * 132 - 4 + 32, 3)


def test_large_images_are_reduced():
    sheet = sample_sheets.sample_grid([flat(GREEN, 512, 256)])
    assert count(sheet, GREEN) == 128 * 64


def test_a_row_a_class():
    images = np.stack([flat((40 * i + 5, 7, 9)) for i in range(6)])
    names = ["dog", "cat", "dog", "dog", "cat", "fish"]
    sheet = sample_sheets.class_grid(images, names, columns=2, max_rows=2, cell=32)
    rows = [np.flatnonzero((sheet == np.uint8(i[0, 0])).all(-1).any(1)) for i in images]
    assert rows[0][0] == rows[2][0] < rows[1][0] == rows[4][0]
    assert not len(rows[3]) and not len(rows[5])  # a third dog, a third class
    assert count(sheet[rows[0][0] : rows[0][-1]], (32, 33, 36)) > 20  # the name


def test_a_very_long_name_is_cut():
    sheet = sample_sheets.class_grid([flat(GREEN)], ["word " * 60])
    assert sheet.shape[1] < 128 + 256 + 60 and count(sheet, GREEN) == 128 * 128


@pytest.mark.parametrize("make", ["sample_grid", "decoding_strip"])
def test_nothing_to_show(make):
    with pytest.raises(UserError, match="there is no image to show"):
        getattr(sample_sheets, make)([])


def test_what_is_not_known_is_hatched():
    known = np.eye(2, dtype=bool)
    shown = sample_sheets.hatched(flat(GREEN, 16, 32), known)
    assert count(shown, GREEN) == 16 * 32 // 2
    assert (shown[:8, :16] == GREEN).all() and (shown[8:, 16:] == GREEN).all()
    assert len(np.unique(shown[:8, 16:].reshape(-1, 3), axis=0)) == 2


def test_the_heat_map_is_brighter_where_it_is_certain():
    values = [-np.inf, -9.0, -4.0, -2.0, -1.0, -0.5, 0.0, np.nan]
    heat = sample_sheets.heat_map(np.array([values], np.float32), (-4.0, -0.5))
    colours = heat[0].astype(int)
    assert (np.diff(colours.sum(axis=-1))[2:5] > 0).all()
    assert (colours[:3] == colours[0]).all()  # at the least, and below
    assert (colours[5:7] == (252, 255, 164)).all()
    assert np.ptp(colours[7]) < 5  # grey


def test_noise_is_not_made_a_difference():
    step = Step(flat(GREEN), np.eye(4, dtype=bool), np.full((4, 4), -5, np.float32))
    assert sample_sheets.scale_of([step]) == (-6.0, -5.0)


def test_a_strip_shows_the_first_and_the_last_step():
    steps = make_steps(4)
    sheet = sample_sheets.decoding_strip(steps)
    assert count(sheet, GREEN) == (4 + 8 + 12 + 16) * 24 * 24  # three times as large
    two = sample_sheets.decoding_strip(steps, max_steps=2)
    assert count(two, GREEN) == (4 + 16) * 24 * 24
    many = sample_sheets.decoding_strip(make_steps(16, side=64), max_steps=16)
    assert many.shape[1] <= 2000 + 32


def test_frames_are_of_one_size_and_make_a_gif():
    steps = make_steps(3)
    scale = sample_sheets.scale_of(steps)
    frames = [
        sample_sheets.decoding_frame(s, i + 1, 3, scale) for i, s in enumerate(steps)
    ]
    assert len({frame.shape for frame in frames}) == 1
    file = io.BytesIO()
    sample_sheets.write_gif(file, frames, milliseconds=100)
    with Image.open(file) as gif:
        assert gif.n_frames == 3 and gif.info["loop"] == 0
        times = []
        for number in range(3):
            gif.seek(number)
            times.append(gif.info["duration"])
        assert times == [100, 100, 600]
        green = np.abs(np.asarray(gif.convert("RGB")).astype(int) - GREEN).max(axis=-1)
        assert (green < 30).sum() >= 192 * 192
