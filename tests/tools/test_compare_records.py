import copy
import json
import os

import pytest

from movq_jax.errors import UserError
from movq_jax.evaluation.protocols import find_protocol
from movq_jax.tools.compare_records import read_records

PSNR = {"value": 30.0, "count": 9, "higher_is_better": True, "reference": "pairs"}
RECORD = {
    "tool": "evaluate",
    "protocol": find_protocol("default").as_record(),
    "reference": {"pairs": {"name": "photos", "fingerprint": "abc"}},
    "networks": {},
    "metrics": {"psnr": {**PSNR, "low": None, "high": None}},
}


@pytest.fixture
def read(tmp_path):
    def read_text(text):
        (tmp_path / "a.json").write_text(text)
        return read_records(str(tmp_path / "a.json"))

    return read_text


def test_one_or_several(read):
    assert read(json.dumps(RECORD)) == [RECORD]
    both = {"tool": "evaluate", "results": [RECORD, RECORD]}
    assert read(json.dumps(both)) == [RECORD, RECORD]


@pytest.mark.parametrize(
    "record", [[], {"tool": "reconstruct"}, {"tool": "evaluate", "results": [3]}]
)
def test_records_of_others(read, record):
    with pytest.raises(UserError, match="a.json is not what `movq evaluate --json"):
        read(json.dumps(record))


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("metrics.psnr", 30, "metrics.psnr is 30, not an object"),
        ("metrics.psnr.value", "30", 'metrics.psnr.value is "30", not a finite'),
        ("metrics.psnr.value", True, "metrics.psnr.value is true, not a finite"),
        ("metrics.psnr.value", 10**400, "metrics.psnr.value is 1000.*, not a finite"),
        ("metrics.psnr.low", [], "metrics.psnr.low is a list, not a finite number"),
        ("metrics.psnr.std", "x", "metrics.psnr.std is "),
        ("metrics.psnr.count", 1.5, "metrics.psnr.count is 1.5, not a whole number"),
        ("metrics.psnr.count", -1, "metrics.psnr.count is -1, not a whole number"),
        ("metrics.psnr.higher_is_better", 1, "is 1, not true or false"),
        ("metrics.psnr.reference", "sets", r"one of the keys of 'reference' \(pairs"),
        ("metrics.psnr.reference", {}, r"one of the keys of 'reference' \(pairs"),
        ("metrics.beauty", {}, "metrics.beauty is of no metric that is known"),
        ("reference", None, "reference is null, not an object"),
        ("reference", [], "reference is a list, not an object"),
        ("reference.pairs.name", 3, "reference.pairs.name is 3, not a text"),
        ("reference.pairs.fingerprint", {}, "fingerprint is an object, not a text"),
        ("networks.inception", 1, "networks.inception is 1, not a text"),
        ("protocol", None, "protocol is null, not an object"),
        ("protocol.name", 1, "protocol.name is 1, not a text"),
    ],
)
def test_what_was_edited_is_named(read, place, value, said):
    record = copy.deepcopy(RECORD)
    *folders, last = place.split(".")
    where = record
    for key in folders:
        where = where[key]
    where[last] = value
    with pytest.raises(UserError, match=f"a.json: {said}|a.json: .*{said}"):
        read(json.dumps(record))


def test_what_is_missing_is_named(read):
    for key in ("metrics", "networks", "reference", "protocol"):
        with pytest.raises(UserError, match=f"a.json has no {key}"):
            read(json.dumps({k: v for k, v in RECORD.items() if k != key}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("\udcff", "is not JSON"),
        (json.dumps(RECORD).replace("30.0", "NaN"), "NaN is no number of JSON"),
        (json.dumps(RECORD).replace("30.0", "1e999"), "metrics.psnr.value is Infinity"),
        ("[" * 10**5, "is nested too deeply"),
    ],
)
def test_files_that_are_no_records(tmp_path, text, said):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=said):
        read_records(str(path))


def test_what_is_no_file(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_records(str(tmp_path / "none.json"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="a pipe or a device"):
        read_records(str(tmp_path / "pipe"))
