import numpy as np
import pytest

from movq_jax.sampling import editing


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def hole(shape, rows, columns):
    mask = np.zeros(shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def test_a_token_is_unknown_where_one_pixel_of_its_patch_is():
    mask = np.zeros((8, 12), bool)
    mask[3, 4] = mask[4, 11] = True
    expected = [[False, True, False], [False, False, True]]
    np.testing.assert_array_equal(editing.unknown_tokens(mask, 4), expected)


def test_a_mask_of_whole_patches_makes_no_other_token_unknown():
    mask = hole((12, 12), (4, 8), (4, 8))
    assert editing.unknown_tokens(mask, 4).sum() == 1


def test_the_margin_goes_all_around():
    mask = hole((20, 20), (8, 12), (8, 12))
    unknown = editing.unknown_tokens(mask, 4, margin=1)
    np.testing.assert_array_equal(unknown, hole((5, 5), (1, 4), (1, 4)))
    assert editing.unknown_tokens(mask, 4, margin=10**9).all()
    assert not editing.unknown_tokens(np.zeros((8, 8), bool), 4, margin=3).any()


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_random_tokens_are_an_exact_share(share):
    chosen = editing.random_tokens((16, 10), share, np.random.default_rng(1))
    assert chosen.shape == (16, 10) and chosen.sum() == round(share * 160)
    again = editing.random_tokens((16, 10), share, np.random.default_rng(1))
    np.testing.assert_array_equal(chosen, again)


def test_what_a_mask_hides_does_not_matter():
    image, mask = picture(13, 10), hole((13, 10), (4, 9), (0, 7))
    other = np.where(mask[:, :, None], picture(13, 10, seed=1), image)
    filled = editing.fill_holes(image, mask)
    np.testing.assert_array_equal(filled, editing.fill_holes(other, mask))
    np.testing.assert_array_equal(filled[~mask], image[~mask])


def test_a_hole_in_a_flat_picture_becomes_flat():
    flat = np.full((17, 11, 3), (10, 200, 77), np.uint8)
    mask = hole((17, 11), (3, 15), (0, 9))
    damaged = np.where(mask[:, :, None], np.uint8(0), flat)
    np.testing.assert_array_equal(editing.fill_holes(damaged, mask), flat)


def test_a_filled_hole_goes_from_one_side_to_the_other():
    image = np.zeros((8, 32, 3), np.uint8)
    image[:, 16:] = 200
    mask = hole((8, 32), (0, 8), (4, 28))
    row = editing.fill_holes(image, mask)[4, :, 0].astype(int)
    assert row[5] < 60 and row[26] > 140 and (np.diff(row) >= 0).all()


def test_a_hole_that_is_everything_becomes_grey():
    filled = editing.fill_holes(picture(5, 5), np.ones((5, 5), bool))
    assert (filled == 128).all()


@pytest.mark.parametrize("blend", [0, 1, 5, 100])
def test_pixels_outside_the_mask_are_exact(blend):
    original, made = picture(20, 30), picture(20, 30, seed=1)
    mask = hole((20, 30), (5, 15), (10, 30))
    result = editing.composite(original, made, mask, blend)
    np.testing.assert_array_equal(result[~mask], original[~mask])
    hidden = np.where(mask[:, :, None], np.uint8(255) - original, original)
    again = editing.composite(hidden, made, mask, blend)
    np.testing.assert_array_equal(result, again)


def test_without_blending_the_mask_is_as_it_was_made():
    original, made = picture(20, 30), picture(20, 30, seed=1)
    mask = hole((20, 30), (5, 15), (10, 30))
    result = editing.composite(original, made, mask)
    np.testing.assert_array_equal(result[mask], made[mask])


def test_blending_fades_out_within_its_pixels():
    original = np.full((9, 40, 3), 120, np.uint8)
    made = np.full((9, 40, 3), 100, np.uint8)
    mask = hole((9, 40), (0, 9), (20, 40))
    row = editing.composite(original, made, mask, blend=9)[4, :, 0].astype(int)
    assert (row[:20] == 120).all() and (row[29:] == 100).all()
    np.testing.assert_array_equal(row[20:29], 120 - 2 * np.arange(1, 10))


@pytest.mark.parametrize("everything", [False, True])
def test_compositing_without_a_seam(everything):
    original, made = picture(6, 6), picture(6, 6, seed=1)
    mask = np.full((6, 6), everything)
    result = editing.composite(original, made, mask, blend=4)
    np.testing.assert_array_equal(result, made if everything else original)


def test_shown_tokens_of_a_picture_that_is_smaller_than_its_grid():
    image = picture(7, 6)
    known = np.array([[True, False], [False, True]])
    shown = editing.tokens_shown(image, known, 4)
    np.testing.assert_array_equal(shown[:4, :4], image[:4, :4])
    np.testing.assert_array_equal(shown[4:, 4:], image[4:, 4:])
    assert (shown[:4, 4:] == 214).all() and shown.shape == image.shape


def test_a_chessboard_where_the_mask_is():
    image, mask = picture(16, 16), hole((16, 16), (0, 16), (8, 16))
    shown = editing.checkered(image, mask)
    np.testing.assert_array_equal(shown[~mask], image[~mask])
    assert set(np.unique(shown[mask])) == {200, 232}
