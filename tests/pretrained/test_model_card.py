import json
import shutil

import numpy as np
import pytest

from movq_jax.pretrained.bundle import read_bundle, write_bundle
from movq_jax.pretrained.model_card import licence_of, model_card


def record_of(kind="tokenizer", model=None, **protocol):
    return {
        "format_version": 2,
        "kind": kind,
        "fingerprint": "f" * 64,
        "model": {} if model is None else model,
        "protocol": protocol,
    }


def front_matter(card):
    yaml = pytest.importorskip("yaml")
    start, matter, rest = card.split("---\n", 2)
    assert not start and rest.startswith("\n# ")
    return yaml.safe_load(matter)


def rows(card):
    """The rows of all tables: name -> value."""
    lines = [line for line in card.splitlines() if line.startswith("| ")]
    return dict(line[2:-2].split(" | ", 1) for line in lines)


def test_a_tokenizers_card(tiny_movq):
    card = model_card(
        record_of(
            model=tiny_movq,
            step=1000,
            weights="average over training, decay 0.999",
            dataset="photos",
            split="validation",
            eval={"image_size": 64, "resize": {"name": "short_side"}},
            metrics={"val/psnr": 21.123456789, "val/ssim": None},
            version="0.1.0",
            licence="CC0-1.0",
        ),
        12345,
        "hf://me/net",
    )
    matter = front_matter(card)
    assert matter["license"] == "cc0-1.0" and matter["library_name"] == "movq_jax"
    assert "image-tokenizer" in matter["tags"]
    facts = rows(card)
    assert facts["Parameters"] == "12,345" and facts["Pixels a position"] == "4 x 4"
    assert facts["Codebook"] == "32 x 32" and facts["Bits a position"] == "10"
    assert facts["Quantizer"] == "multichannel" and facts["Decoder's norm"] == "spatial"
    assert facts["Fingerprint"] == f"`{'f' * 64}`" and facts["Licence"] == "CC0-1.0"
    assert facts["Data"] == "photos" and facts["Training steps"] == "1000"
    assert facts["Split that it was evaluated on"] == "validation"
    assert facts["Evaluation"] == "image_size: 64; resize: name: short_side"
    assert facts["val/psnr"] == "21.1235" and facts["val/ssim"] == "None"
    assert 'movq_jax.load("hf://me/net")' in card and "## Limits" in card


def test_a_priors_card(tiny_prior_bundle):
    card = (tiny_prior_bundle / "model" / "README.md").read_text()
    assert "image-generation" in front_matter(card)["tags"]
    facts = rows(card)
    assert facts["Draws"] == "masked" and facts["Classes"] == "3"
    assert facts["Grid"] == "4 x 4 positions of 2 indices"
    assert facts["Bits an image"] == "160"
    inside = read_bundle(tiny_prior_bundle / "model" / "tokenizer")
    assert facts["Tokenizer"] == f"`{inside.fingerprint}`"
    assert "prior.sample(16)" in card
    other = (tiny_prior_bundle / "model" / "tokenizer" / "README.md").read_text()
    assert rows(other)["Kind"] == "tokenizer"


def test_a_converted_models_card(tiny_movq):
    source = {
        "name": "net",
        "file": "net.ckpt",
        "sha256": "0" * 64,
        "licence": "Apache-2.0",
        "skipped": {"loss.disc.weight": "of the losses"},
        "part": "",
    }
    record = record_of(
        model=tiny_movq, weights="converted from net.ckpt", source=source
    )
    card = model_card(record, 1)
    facts = rows(card)
    assert "# net: image tokenizer" in card
    assert facts["Source: file"] == "net.ckpt" and facts["Source: sha256"] == "0" * 64
    assert facts["Source: skipped"] == "loss.disc.weight: of the losses"
    assert "Source: part" not in facts and facts["Licence"] == "Apache-2.0"
    assert front_matter(card)["license"] == "apache-2.0"


@pytest.mark.parametrize(
    ("licence", "named"),
    [("a licence: of mine\n---", True), ("GPL 3", True), ("mit", False)],
)
def test_any_licence_is_valid_yaml(licence, named):
    matter = front_matter(model_card(record_of(licence=licence), 1))
    assert matter["license"] == ("other" if named else licence)
    assert matter.get("license_name") == (licence if named else None)


def test_no_licence_is_unknown():
    assert licence_of({}) == licence_of({"licence": 3, "source": []}) == "unknown"
    assert licence_of({"source": {"licence": "MIT"}}) == "MIT"
    assert licence_of({"licence": "GPL", "source": {"licence": "MIT"}}) == "GPL"
    assert front_matter(model_card(record_of(), 1))["license"] == "unknown"


def test_nothing_breaks_out_of_its_cell():
    text = "a | b\n\n# title <script>alert(1)</script> [x](y) `z`"
    card = model_card(record_of(weights=text, metrics={text: text}), 1)
    assert "<script>" not in card.replace("\\<script", "")
    assert not any(line.startswith("# title") for line in card.splitlines())


def test_any_record_has_a_card():
    for model in ({}, {"quantizer": None}, {"prior": 3, "tokens": {}}):
        for kind in ("tokenizer", "prior", "fish"):
            for protocol in ({}, {"metrics": [1], "source": 3, "eval": None}):
                assert "## Limits" in model_card(record_of(kind, model, **protocol), 1)


def test_the_card_is_no_part_of_the_bundle(tiny_bundle, tmp_path):
    shutil.copytree(tiny_bundle, tmp_path / "run")
    card = tmp_path / "run" / "model" / "README.md"
    text = card.read_text()
    card.write_text("something else")
    bundle = read_bundle(tmp_path / "run")
    assert bundle.fingerprint == read_bundle(tiny_bundle).fingerprint
    parts = {
        key: getattr(bundle, key) for key in ("kind", "params", "model", "protocol")
    }
    write_bundle(tmp_path / "run" / "model", **parts)
    assert card.read_text() == text
    card.unlink()
    assert read_bundle(tmp_path / "run").fingerprint == bundle.fingerprint


def test_the_card_counts_the_weights_that_are_there(tmp_path):
    params = {"a": np.zeros((3, 4), np.float32), "b": {"c": np.zeros(5, np.float32)}}
    parts = {"kind": "tokenizer", "model": {}, "protocol": {}}
    write_bundle(tmp_path / "model", params=params, **parts)
    assert rows((tmp_path / "model" / "README.md").read_text())["Parameters"] == "17"
    assert json.loads((tmp_path / "model" / "config.json").read_text())
