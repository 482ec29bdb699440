import base64
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

from movq_jax.evaluation import html_page
from movq_jax.evaluation.codebooks import sheets
from movq_jax.evaluation.codebooks.report import Picture, make_html
from movq_jax.evaluation.codebooks.tally import Counts
from movq_jax.evaluation.rows import Row

MEAN = {"psnr": 21.5, "ssim": None, "psnr_left_out": 1, "ssim_left_out": 0}
NEIGHBOURS = {"codes": 8, "min": 0.1, "median": 1.0, "max": 2.0, "equal": 3}


@pytest.fixture
def record():
    counts = Counts(8)
    counts.add(np.arange(7))
    numbers = counts.numbers()
    model = {
        "path": "runs/<a>",
        "fingerprint": "f" * 64,
        "quantizer": {"dim": 4, "name": "dual"},
        "factor": 4,
        "num_channels": 2,
        "bits_per_position": 6.0,
    }
    pair = {"pairs": 7, "most": 7, "positions": 7}
    score = {"psnr": float("inf"), "ssim": 1.0}
    image = {"name": "cat & dog", "width": 8, "height": 9, "model": score}
    return {
        "version": "1.2.3",
        "model": model,
        "second_model": model | {"path": "runs/b", "factor": 8},
        "data": {"name": "small", "split": "test", "num_images": 1234, "positions": 7},
        "protocol": {"preprocessing": "none", "model": {"weights": "random"}},
        "bits": {
            "per_position": 6.0,
            "entropy_per_position": 5.6,
            "per_image": {"mean": 42.0, "least": 40.0, "most": 44.0},
        },
        "quantisation_mse": 0.25,
        "books": {
            "global_codebook": numbers | {"neighbours": NEIGHBOURS},
            "local_codebook": numbers | {"neighbours": None},
        },
        "channels": [
            numbers | {"channel": 0, "book": "global_codebook"},
            numbers | {"channel": 1, "book": "local_codebook"},
        ],
        "pairs": [
            pair | {"channels": [0, 1], "mutual_information": 1.25, "corrected": -0.1}
        ],
        "reconstruction": {
            "model": MEAN,
            "second_model": MEAN,
            "best": [image | {"second_model": {"psnr": 20.0, "ssim": None}}],
            "worst": [],
        },
        "refused": [{"file": "<x>.png", "reason": "no image"}],
    }


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


class Reader(html.parser.HTMLParser):
    """Notes what tags are open, and where a page would fetch something from."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    return reader


def test_the_page_is_whole_and_needs_nothing_beside_it(record):
    data = png(np.zeros((2, 3, 3), np.uint8))
    picture = Picture("mosaics", "m.png", "Codes", "Each <code>.", 'a "mosaic"')
    reader = read(make_html(record, {picture: data}))
    (source,) = reader.sources
    head, _, code = source.partition(",")
    assert head == "data:image/png;base64" and base64.b64decode(code) == data
    text = " ".join(reader.text)
    for part in (
        "runs/<a>",
        "f" * 64,
        "dual (dim 4)",
        "global codebook 8, local codebook 8",
        "42 on average, 40 to 44",
        "1,234",
        "cat & dog",
        "exact",
        "21.50 dB",
        "1.250",
        "Each <code>.",
        "only 7 indices were counted for 8 codes",
        "Not in the means: 1 exact",
        "<x>.png",
    ):
        assert part in text, part
    assert "@import" not in html_page.STYLE and "url(" not in html_page.STYLE


def test_what_there_is_not_is_left_out_or_said(record):
    record |= {"second_model": None, "pairs": [], "refused": []}
    record["reconstruction"]["best"] = []
    for book in record["books"].values():
        book |= {"neighbours": None, "positions": 800}
    text = " ".join(read(make_html(record, {})).text)
    assert "no channels to compare" in text and "keeps no book" in text
    assert "second" not in text and "refused" not in text and "only" not in text


def test_many_pairs_are_cut_to_those_with_the_most_in_common(record):
    record["pairs"] = [
        record["pairs"][0] | {"channels": [0, n], "mutual_information": n / 100}
        for n in range(1, 41)
    ]
    page = make_html(record, {})
    assert "Of 40 pairs" in page
    assert "0 and 40" in page and not re.search("0 and 12<", page)


def test_a_mosaic_marks_the_dead_and_keeps_the_pixels_of_the_others():
    tiles = np.full((10, 4, 4, 3), 40, np.uint8)
    dead = np.arange(10) == 3
    sheet = sheets.mosaic(tiles, np.arange(10), dead)
    red = (sheet == sheets.DEAD_FRAME).all(-1)
    assert red.any()
    side = 36  # 4 pixels, each 9 wide
    assert (sheet == 40).all(-1).sum() == 9 * side**2
    clean = sheets.mosaic(tiles, np.arange(10), np.zeros(10, bool))
    assert not (clean == sheets.DEAD_FRAME).all(-1).any()


@pytest.mark.parametrize(("count", "factor"), [(1, 16), (4096, 16), (4096, 2), (5, 64)])
def test_mosaics_are_near_squares_of_a_size_to_look_at(count, factor):
    tiles = np.zeros((count, factor, factor, 3), np.uint8)
    height, width, _ = sheets.mosaic(
        tiles, np.arange(count), tiles[:, 0, 0, 0] > 0
    ).shape
    assert max(height, width) < 1400
    assert 0.5 < width / height < 2.2


def test_rows_of_images_of_any_size():
    rng = np.random.default_rng(0)
    items = []
    for name, shape in (("a" * 200, (30, 500, 3)), ("b", (400, 20, 3))):
        images = [rng.integers(255, size=shape).astype(np.uint8) for _ in range(3)]
        rows = [Row("", *shape[:2], 20.0, None), Row("", *shape[:2], np.inf, 0.5)]
        items.append(sheets.shown(name, images, rows))
    sheet = sheets.reconstructions(items, ("original", "reconstruction", "second"))
    assert sheet.shape[1] < 3 * 256 and sheet.dtype == np.uint8
    one = sheets.reconstructions(items[:1], ("original", "reconstruction", "second"))
    assert one.shape[0] < sheet.shape[0]
