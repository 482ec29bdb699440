from html.parser import HTMLParser

import numpy as np

from movq_jax.evaluation.evaluation_page import make_html
from movq_jax.evaluation.pair_values import Shown
from movq_jax.evaluation.protocols import find_protocol

PICTURE = np.zeros((8, 8, 3), np.uint8)


def record(name="default", **changes):
    found = {"value": 30.25, "low": 30.0, "high": 30.5, "count": 12, "left_out": 1}
    return {
        "version": "1",
        "protocol": find_protocol(name).as_record(),
        "model": None,
        "num_images": 12,
        "images": {"name": "<made>"},
        "reference": {"name": "photos", "fingerprint": "abc"},
        "networks": {"inception": "def"},
        "metrics": {"psnr": {**found, "higher_is_better": True}},
        "warnings": ["biased"],
        "refused": [],
        **changes,
    }


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.sources = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        links = [value for name, value in attrs if name in ("src", "href")]
        self.sources += links


def test_the_page_has_it_all_inside():
    worst = {"psnr": [Shown("a & b", PICTURE, PICTURE, 12.5)], "ssim": []}
    text = make_html([record()], [worst])
    for part in ("30.250", "30.000 to 30.500", "&lt;made&gt;", "abc", "def", "biased"):
        assert part in text
    assert "1 exact pair is left out" in text
    assert "short_side (bicubic)" in text
    assert "a &amp; b   12.500" in text
    (source,) = Tags(text).sources
    assert source.startswith("data:image/png;base64,")


def test_several_protocols_and_refused_files():
    refused = [{"file": "x.png", "reason": "is empty"}]
    records = [record(refused=refused), record("clean", refused=refused)]
    text = make_html(records, [{}, {}])
    assert "different protocols are not to be compared" in text
    assert text.count("<h2>Protocol ") == 2 and "<h2>Refused</h2>" in text
    assert "as they are" in text and "is empty" in text


def test_a_model_is_named():
    model = {"path": "runs/a", "fingerprint": "123"}
    assert "Evaluation of runs/a" in make_html([record(model=model)], [{}])
