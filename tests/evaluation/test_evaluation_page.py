from html.parser import HTMLParser

import numpy as np

from movq_jax.evaluation import evaluation_page
from movq_jax.evaluation.evaluation_page import make_html
from movq_jax.evaluation.metric_text import DIFFERENT_PROTOCOLS
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
        "reference": {"pairs": {"name": "photos", "fingerprint": "abc"}},
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
    warnings = [DIFFERENT_PROTOCOLS]
    records = [record(refused=refused, warnings=warnings)]
    other = {"pairs": {"name": "photos", "fingerprint": "of other crops"}}
    records += [record("clean", warnings=warnings, reference=other)]
    text = make_html(records, [{}, {}])
    assert text.count("different protocols are not to be compared") == 1
    assert "<td>abc</td>" in text and "of other crops" in text
    assert text.count("<h2>Protocol ") == 2 and "<h2>Refused</h2>" in text
    assert "as they are" in text and "is empty" in text


def test_a_model_is_named():
    model = {"path": "runs/a", "fingerprint": "123", "protocol": {"step": 4500}}
    model["sampling"] = {"seed": 77, "top_k": None}
    text = make_html([record(model=model)], [{}])
    assert "Evaluation of runs/a" in text and "4500" in text and "77" in text


def test_bits_have_no_protocol():
    nll = {"value": 5.5, "count": 3, "higher_is_better": False, "split": "coco train"}
    found = record(protocol=None, reference={}, metrics={"nll": nll})
    text = make_html([found], [{}])
    assert "<h2>Likelihood</h2>" in text and "coco train" in text


def test_names_that_cannot_be_written():
    name = "a\nb\udcff"
    worst = {"psnr": [Shown(name, PICTURE, PICTURE, 12.5)]}
    text = make_html([record(images={"name": name})], [worst])
    text.encode("utf-8")
    assert "a\ufffdb\ufffd   12.500" in text


def test_what_the_two_sides_are_called(monkeypatch):
    seen = []
    grid = evaluation_page.comparison_grid

    def noting(*args, titles, **keywords):
        seen.append(titles)
        return grid(*args, titles=titles, **keywords)

    monkeypatch.setattr(evaluation_page, "comparison_grid", noting)
    worst = {"psnr": [Shown("a", PICTURE, PICTURE, 12.5)]}
    model = {"path": "runs/a", "fingerprint": "123", "protocol": {}}
    for chosen in (None, model):
        make_html([record(model=chosen)], [worst])
    assert seen == [("reference", "image"), ("original", "reconstruction")]
