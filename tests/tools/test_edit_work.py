import numpy as np
import pytest

from movq_jax.sampling.editing import fill_holes
from movq_jax.tools.edit_work import Editor, Margins, Variant, window_seed

FACTOR = 4


class Tokenizer:
    """Its ids are the means of a patch; its pictures are flat patches."""

    factor = FACTOR

    def encode(self, images):
        batch, height, width, _ = images.shape
        blocks = images.reshape(batch, height // 4, 4, width // 4, 4, 3)
        return blocks.mean(axis=(2, 4)).astype(np.int32)

    def decode(self, ids):
        return ids.astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)


class Prior:
    """Draws 100 + the image's number, and notes how it was called."""

    grid, num_classes, classes = (4, 4), 3, ("a", "b", "c")

    def __init__(self):
        self.tokenizer, self.calls = Tokenizer(), []

    def sample(self, num, *, labels, seed, first, ids, known, **options):
        assert ids.shape == known.shape == (num, 4, 4, 3)
        assert known.dtype == bool
        self.calls.append(
            {"labels": labels, "seed": seed, "first": first, "known": known, **options}
        )
        numbers = np.arange(first, first + num)[:, None, None, None]
        drawn = 100 + numbers + 0 * ids
        return np.where(known, ids, drawn).astype(np.int32)


def editor(num=1, labels=(None,), **fields):
    variants = [Variant("", f"{n}", label) for label in labels for n in range(num)]
    return Editor(Prior(), variants, **fields)


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 90, (height, width, 3), dtype=np.uint8)


def hole(shape, rows, columns):
    mask = np.zeros(shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


@pytest.mark.parametrize("size", [(16, 16), (15, 13), (5, 3), (40, 37), (16, 50)])
@pytest.mark.parametrize("blend", [0, 3])
def test_pixels_outside_the_mask_are_exact(size, blend):
    image, mask = picture(*size), hole(size, (1, 4), (2, 40))
    work = editor(num=2, blend=blend)
    done = work.inpaint(image, mask)
    assert len(done.results) == 2
    for number, result in enumerate(done.results):
        assert result.shape == image.shape and result.dtype == np.uint8
        np.testing.assert_array_equal(result[~mask], image[~mask])
        if not blend:
            assert (result[mask] == 100 + number).all()


def test_only_the_tokens_of_the_mask_are_drawn():
    work = editor()
    done = work.inpaint(picture(16, 16), hole((16, 16), (5, 6), (7, 9)))
    (call,) = work.prior.calls
    expected = ~hole((4, 4), (1, 2), (1, 3))
    np.testing.assert_array_equal(call["known"][0, :, :, 0], expected)
    assert (done.unknown, done.tokens, done.windows) == (2, 16, 1)
    work = editor(margin=1)
    assert work.inpaint(picture(16, 16), hole((16, 16), (5, 6), (7, 9))).unknown == 12


def test_repeated_edges_are_no_holes():
    work = editor()
    work.inpaint(picture(13, 13), hole((13, 13), (0, 1), (0, 1)))
    (call,) = work.prior.calls
    assert call["known"].sum() == 15 * 3


def test_what_the_mask_hides_does_not_reach_the_model():
    image, mask = picture(16, 16), hole((16, 16), (2, 9), (3, 11))
    seen = []
    work = editor()
    encode = work.tok.encode
    work.tok.encode = lambda images: seen.append(images) or encode(images)
    work.inpaint(image, mask)
    np.testing.assert_array_equal(seen[0][0], fill_holes(image, mask))


def test_nothing_masked_is_untouched_and_not_drawn():
    work = editor(num=2)
    image = picture(15, 13)
    done = work.inpaint(image, np.zeros((15, 13), bool))
    assert done.untouched and not work.prior.calls
    for result in done.results:
        np.testing.assert_array_equal(result, image)


def test_everything_masked_is_an_ordinary_sample():
    work = editor(num=2, seed=7, options={"steps": 3})
    done = work.inpaint(picture(16, 16), np.ones((16, 16), bool), number=5)
    (call,) = work.prior.calls
    assert (call["seed"], call["first"], call["steps"]) == (7, 10, 3)
    assert not call["known"].any() and done.unknown == done.tokens
    np.testing.assert_array_equal(done.results[1], np.full((16, 16, 3), 111))


def test_later_windows_have_other_seeds():
    work = editor(seed=7)
    done = work.inpaint(picture(16, 40), np.ones((16, 40), bool))
    seeds = [call["seed"] for call in work.prior.calls]
    assert done.windows == len(seeds) == len(set(seeds)) == 4
    assert seeds == [window_seed(7, turn) for turn in range(4)] and seeds[0] == 7


def test_labels_go_with_their_variants():
    work = editor(num=2, labels=(2, 0))
    work.inpaint(picture(16, 16), np.ones((16, 16), bool))
    np.testing.assert_array_equal(work.prior.calls[0]["labels"], [2, 2, 0, 0])
    work = editor(num=2)
    work.inpaint(picture(16, 16), np.ones((16, 16), bool))
    np.testing.assert_array_equal(work.prior.calls[0]["labels"], [3, 3])
    work = editor()
    work.prior.num_classes = 0
    work.inpaint(picture(16, 16), np.ones((16, 16), bool))
    assert work.prior.calls[0]["labels"] is None


@pytest.mark.parametrize("size", [(16, 16), (15, 13), (5, 3), (33, 30)])
@pytest.mark.parametrize(
    "margins", [(1, 0, 0, 0), (0, 5, 0, 3), (4, 4, 8, 0), (50, 0, 3, 9), (7, 1, 2, 35)]
)
def test_the_picture_within_a_larger_one_is_exact(size, margins):
    image, margins = picture(*size), Margins(*margins)
    for result in editor(num=2, blend=2).outpaint(image, margins).results:
        assert result.shape[:2] == margins.size(*size)
        inside = result[margins.top :, margins.left :][: size[0], : size[1]]
        np.testing.assert_array_equal(inside, image)


def test_what_is_added_is_drawn():
    done = editor().outpaint(picture(16, 16), Margins(left=5, top=3))
    beyond = np.ones((19, 21), bool)
    beyond[3:, 5:] = False
    assert (done.results[0][beyond] == 100).all()


def test_a_pictures_own_tokens_are_all_known_however_much_is_added():
    work = editor()
    done = work.outpaint(picture(16, 16), Margins(left=5, top=3))
    assert done.tokens - done.unknown == 16
    # A patch that is cut by the picture's edge is drawn, but not by an edge that stays.
    done = work.outpaint(picture(15, 15), Margins(right=1))
    assert (done.tokens, done.unknown) == (16, 4)
    done = work.outpaint(picture(15, 15), Margins(right=2))
    assert (done.tokens, done.unknown) == (20, 8)


def test_variations_keep_a_share_of_the_tokens():
    image = picture(16, 16)
    image[:] = image[::4, ::4].repeat(4, axis=0).repeat(4, axis=1)  # its own decoding
    done = editor(num=2, seed=3).variations(image, 0.25, number=1)
    assert done.unknown == 12
    for result in done.results:
        kept = (result[::4, ::4] == image[::4, ::4]).all(axis=2)
        assert kept.sum() == 4
    again = editor(num=2, seed=3).variations(image, 0.25, number=1)
    np.testing.assert_array_equal(done.results, again.results)
    other = editor(num=2, seed=4).variations(image, 0.25, number=1)
    assert (np.array(done.results) != other.results).any()


@pytest.mark.parametrize(("keep", "calls"), [(0.0, 1), (1.0, 0)])
def test_variations_of_all_and_of_nothing(keep, calls):
    work = editor()
    done = work.variations(picture(13, 16), keep)
    assert len(work.prior.calls) == calls and done.results[0].shape == (13, 16, 3)


def test_reconstruction_is_likeliest_at_once_and_drawn():
    work = editor(num=2, options={"steps": 8, "temperature": 0.9})
    done = work.reconstruct(picture(16, 14), 0.2)
    drawn, at_once = work.prior.calls
    assert (drawn["steps"], drawn["temperature"]) == (8, 0.9)
    assert (at_once["steps"], at_once["temperature"]) == (1, 0.0)
    assert len(drawn["known"]) == 2 and len(at_once["known"]) == 1
    np.testing.assert_array_equal(drawn["known"][:1], at_once["known"])
    assert sorted(done.extra) == ["kept", "top1"]
    titles = [title for title, _, _ in done.panels]
    assert titles == ["original", "18.8% of the tokens", "1 step, top-1"]
    assert all(caption.endswith("dB") for caption in done.captions)
