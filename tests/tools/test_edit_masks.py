import argparse

import numpy as np
import pytest
from PIL import Image

from movq_jax.errors import UserError
from movq_jax.tools.edit_masks import Masks, masks_of, parse_box, read_mask

HOLE = np.zeros((6, 9), bool)
HOLE[1:3, 4:8] = True


def save(path, array, mode=None, **options):
    Image.fromarray(array, mode).save(path, **options)
    return path


def with_alpha(alpha, colour=90):
    colours = np.full((*alpha.shape, 3), colour, np.uint8)
    return np.concatenate([colours, alpha[:, :, None].astype(np.uint8)], axis=2)


@pytest.mark.parametrize("name", ["m.png", "m.jpg", "m.bmp"])
def test_white_is_to_be_filled(tmp_path, name):
    mask = np.zeros((32, 48), bool)
    mask[8:16, 16:40] = True
    path = save(tmp_path / name, np.uint8(mask * 255))
    np.testing.assert_array_equal(read_mask(path), mask)


def test_a_mask_of_two_values(tmp_path):
    path = tmp_path / "m.png"
    Image.fromarray(HOLE).save(path)
    np.testing.assert_array_equal(read_mask(path), HOLE)


def test_what_is_cut_out_of_a_mask_is_to_be_filled(tmp_path):
    path = save(tmp_path / "m.png", with_alpha(np.where(HOLE, 0, 255)))
    np.testing.assert_array_equal(read_mask(path), HOLE)


def test_an_opaque_alpha_channel_changes_nothing(tmp_path):
    grey = np.uint8(HOLE[:, :, None] * 255).repeat(3, axis=2)
    opaque = np.full((6, 9, 1), 255, np.uint8)
    path = save(tmp_path / "m.png", np.concatenate([grey, opaque], axis=2))
    np.testing.assert_array_equal(read_mask(path), HOLE)


def test_white_on_a_transparent_ground_could_mean_either(tmp_path):
    path = save(tmp_path / "m.png", with_alpha(HOLE * 255, colour=255))
    with pytest.raises(UserError, match="white on a transparent ground"):
        read_mask(path)


def test_a_mask_that_is_no_picture(tmp_path):
    (tmp_path / "m.png").write_text("no")
    with pytest.raises(UserError, match=r"m\.png is not an image"):
        read_mask(tmp_path / "m.png")
    with pytest.raises(UserError, match="cannot read"):
        read_mask(tmp_path / "none.png")
    with pytest.raises(UserError, match="is no file"):
        read_mask(tmp_path)


def test_a_mask_of_another_size_is_refused(tmp_path):
    masks = masks_of(str(save(tmp_path / "m.png", np.uint8(HOLE * 255))), None)
    np.testing.assert_array_equal(masks.of(tmp_path / "a.png", (6, 9)), HOLE)
    with pytest.raises(UserError, match=r"is 9 x 6, but .*a\.png is 6 x 9"):
        masks.of(tmp_path / "a.png", (9, 6))


@pytest.mark.parametrize("rim", [0, 254])
def test_the_pictures_own_transparency(tmp_path, rim):
    path = save(tmp_path / "a.png", with_alpha(np.where(HOLE, rim, 255)))
    np.testing.assert_array_equal(masks_of("alpha", None).of(path, (6, 9)), HOLE)


def test_transparency_is_turned_as_the_picture_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    alpha = np.where(HOLE, 0, 255)
    path = save(tmp_path / "a.png", with_alpha(alpha), exif=exif)
    found = masks_of("alpha", None).of(path, (9, 6))
    np.testing.assert_array_equal(found, np.rot90(HOLE, -1))


def test_a_picture_without_transparency_is_refused(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((6, 9, 3), np.uint8))
    with pytest.raises(UserError, match=r"a\.png has no transparency"):
        Masks(alpha=True).of(path, (6, 9))


def test_boxes_are_put_together(tmp_path):
    masks = masks_of(None, [(4, 1, 8, 2), (4, 2, 8, 3)])
    np.testing.assert_array_equal(masks.of(tmp_path / "a.png", (6, 9)), HOLE)
    masks.of(tmp_path / "a.png", (3, 8))
    for size, box in (((3, 7), "4,1,8,2"), ((2, 8), "4,2,8,3")):
        with pytest.raises(UserError, match=f"the box {box} reaches beyond"):
            masks.of(tmp_path / "a.png", size)


def test_how_a_box_is_written():
    assert parse_box("0, 1,2,3") == (0, 1, 2, 3)
    for text in ("1,2,3", "1,2,3,4,5", "a,0,1,1", "-1,0,1,1", "0.5,0,1,1", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="four whole numbers"):
            parse_box(text)
    for text in ("3,0,3,5", "0,5,3,4"):
        with pytest.raises(argparse.ArgumentTypeError, match="is empty"):
            parse_box(text)
