import importlib.util
import sys

import pytest

from movq_jax.data.builders import photos
from movq_jax.data.images import decode_image
from movq_jax.errors import UserError

SIZES = {
    "astronaut.png": (512, 512),
    "hubble_deep_field.jpg": (872, 1000),
    "retina.jpg": (1411, 1411),
    "rocket.jpg": (427, 640),
    "china.jpg": (427, 640),
    "flower.jpg": (427, 640),
    "chelsea.png": (300, 451),
    "coffee.png": (400, 600),
}


def test_eight_photographs_two_of_them_held_out():
    pytest.importorskip("skimage", reason="needs the extra `photos`")
    pytest.importorskip("sklearn", reason="needs the extra `photos`")
    splits = photos.find().splits
    sizes = {
        split: {e.key: decode_image(e.path).shape[:2] for e in examples}
        for split, examples in splits.items()
    }
    assert set(sizes["validation"]) == {"chelsea.png", "coffee.png"}
    assert sizes["train"] | sizes["validation"] == SIZES
    assert not set(sizes["train"]) & set(sizes["validation"])


def test_packages_are_found_without_importing_them(monkeypatch):
    for package in ("skimage", "sklearn"):
        pytest.importorskip(package, reason="needs the extra `photos`")
    for name in [n for n in sys.modules if n.split(".")[0] in ("skimage", "sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    photos.find()
    assert "skimage" not in sys.modules and "sklearn" not in sys.modules


def test_packages_that_are_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"skimage: pip install 'movq_jax\[photos\]'"):
        photos.find()


def test_a_package_without_the_photograph(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_loader("skimage", loader=None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match=r"skimage has no data/astronaut\.png"):
        photos.find()
