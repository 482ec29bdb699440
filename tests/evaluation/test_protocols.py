import json

import numpy as np
import pytest
from PIL import Image

from movq_jax.data import resampling
from movq_jax.errors import UserError
from movq_jax.evaluation.metric_table import METRICS
from movq_jax.evaluation.protocols import PROTOCOLS, difference, find_protocol

IMAGE = np.random.default_rng(0).integers(0, 256, (41, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_makes_squares_and_a_record(name):
    protocol = find_protocol(name).with_size(16)
    assert protocol.name == name
    square = protocol.prepare(IMAGE)
    assert square.shape == (16, 16, 3) and square.dtype == np.uint8
    record = protocol.as_record()
    assert json.loads(json.dumps(record)) == record
    assert set(record) >= {"name", "size", "resize", "crop", "rounding", "network"}


@pytest.mark.parametrize("name", ["clean", "pytorch_fid", "torch_fidelity"])
def test_tools_that_take_files_as_they_are(name):
    protocol = find_protocol(name)
    assert protocol.prepare(IMAGE) is IMAGE
    assert protocol.as_record()["resize"] == {"name": "none"}
    assert not protocol.enlarges(IMAGE)


def test_default_is_antialiased_bicubic_and_the_middle():
    small = Image.fromarray(IMAGE).resize((29, 20), Image.Resampling.BICUBIC)
    expected = np.asarray(small)[:, 4:24]
    prepared = find_protocol("default").with_size(20).prepare(IMAGE)
    np.testing.assert_array_equal(prepared, expected)


def test_titok_rounds_as_torchvision_does():
    # 60 * 20 / 41 = 29.3; of 29 columns 9 are left, and round(4.5) is 4.
    wide = np.repeat(IMAGE, 2, axis=1)[:, :95]  # 46.3 -> 46; default: 46, too
    titok = find_protocol("titok").with_size(21).prepare(wide)
    small = Image.fromarray(wide).resize((int(21 * 95 / 41), 21), Image.BICUBIC)
    left = round((small.width - 21) / 2)
    np.testing.assert_array_equal(titok, np.asarray(small)[:, left : left + 21])


def test_taming_has_no_antialias():
    protocol = find_protocol("taming").with_size(10)
    expected = resampling.resize_linear(IMAGE, 10, 15)[:, 2:12]
    np.testing.assert_array_equal(protocol.prepare(IMAGE), expected)


def test_adm_halves_first():
    protocol = find_protocol("adm").with_size(10)
    boxed = Image.fromarray(IMAGE).resize((30, 20), Image.BOX)
    boxed = boxed.resize((15, 10), Image.BOX)
    expected = np.asarray(boxed)[:, 2:12]
    np.testing.assert_array_equal(protocol.prepare(IMAGE), expected)


def test_images_that_are_made_larger_are_known():
    protocol = find_protocol("default").with_size(42)
    assert protocol.enlarges(IMAGE) and not protocol.with_size(41).enlarges(IMAGE)
    assert protocol.changes(IMAGE) and not protocol.with_size(0).changes(IMAGE)
    assert not protocol.changes(np.zeros((42, 42, 3), np.uint8))


def test_no_such_protocol():
    with pytest.raises(UserError, match="no protocol 'tiktok'; did you mean 'titok'"):
        find_protocol("tiktok")


def test_protocols_differ_in_what_is_done_to_images():
    ours, theirs = (find_protocol(n).as_record() for n in ("default", "titok"))
    keys = METRICS["fid"].looks_at
    assert "resize short_side bicubic down there" in difference(ours, theirs, keys)
    assert not difference(ours, dict(ours, name="other", reference="else"), keys)
    whole = find_protocol("default").with_size(0).as_record()
    assert difference(whole, find_protocol("torch_fidelity").as_record(), keys) == ""
    clean = find_protocol("clean").as_record()
    assert difference(whole, clean, keys) == "network_resize clean there, tf1 here"
    assert difference(whole, clean, METRICS["squeezenet_fd"].looks_at) == ""
