import copy
import json

import pytest

from movq_jax.evaluation.protocols import find_protocol
from movq_jax.tools import command, compare


def metric(value, low=None, high=None, *, up=True, count=100):
    record = {"value": value, "low": low, "high": high}
    return {**record, "count": count, "higher_is_better": up}


RECORD = {
    "tool": "evaluate",
    "version": "1",
    "protocol": find_protocol("default").as_record(),
    "num_images": 100,
    "reference": {"name": "photos", "fingerprint": "abc"},
    "networks": {"inception": "weights"},
    "metrics": {
        "psnr": metric(30.0, 29.5, 30.5),
        "lpips_vgg": metric(0.2, 0.19, 0.21, up=False),
        "fid": metric(12.0, up=False),
    },
}


@pytest.fixture
def write(tmp_path):
    def write(name, record):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(record))
        return str(path)

    return write


@pytest.fixture
def changed():
    """A function that returns RECORD with changes to one of its parts."""

    def make(part, **changes):
        record = copy.deepcopy(RECORD)
        record[part] |= changes
        return record

    return make


def test_differences_beyond_the_intervals_are_marked(write, changed, capsys):
    better = changed(
        "metrics",
        psnr=metric(32.0, 31.5, 32.5),
        lpips_vgg=metric(0.3, 0.29, 0.31, up=False),
        fid=metric(11.0, up=False),
    )
    near = changed("metrics", psnr=metric(30.4, 29.9, 30.9))
    del near["metrics"]["lpips_vgg"]
    paths = [write(n, r) for n, r in [("a", RECORD), ("b", better), ("c", near)]]
    assert command.run(compare.main, [*paths, "--json"]) == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    marks = {k: [one["mark"] for one in v] for k, v in record["metrics"].items()}
    assert marks == {
        "psnr": ["", "+", "="],
        "lpips_vgg": ["", "-", ""],
        "fid": ["", "", ""],
    }
    assert record["records"] == paths and not record["not_comparable"]
    assert "32.000 (31.500 to 32.500) +" in captured.err
    assert "0.3000 (0.2900 to 0.3100) -" in captured.err


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("protocol", {"network_resize": "clean"}, "network_resize clean, not tf1"),
        ("protocol", {"size": 32}, "size 32, not 256"),
        ("networks", {"inception": "other"}, "other weights of inception"),
        ("reference", {"fingerprint": "z"}, "other images (photos, but changed)"),
        ("metrics", {"fid": metric(1, up=False, count=9)}, "FID of 9 images, not 100"),
    ],
)
def test_what_is_not_to_be_compared(write, changed, capsys, part, changes, said):
    paths = [write("a", RECORD), write("b", changed(part, **changes))]
    assert command.run(compare.main, paths) == 2
    assert said in capsys.readouterr().err
    assert command.run(compare.main, [*paths, "--force"]) == 0
    text = capsys.readouterr().out
    assert "NOT COMPARABLE" in text and said in text


def test_what_no_metric_looks_at_may_differ(write, changed, capsys):
    """How the Inception score is parted matters to the score alone."""
    other = changed("protocol", is_variant="one_block", name="other")
    del other["networks"]["inception"]
    paths = [write("a", RECORD), write("b", other)]
    assert command.run(compare.main, paths) == 0
    first, second = copy.deepcopy(RECORD), copy.deepcopy(other)
    for record in (first, second):
        record["metrics"]["is"] = metric(100.0)
    paths = [write("a", first), write("b", second)]
    assert command.run(compare.main, paths) == 2
    assert "is_variant one_block, not adm" in capsys.readouterr().err


def test_several_protocols_in_a_file_are_kept_apart(write, changed, capsys):
    second = changed("protocol", name="clean", network_resize="clean")
    both = {"tool": "evaluate", "version": "1", "results": [RECORD, second]}
    paths = [write("a", both), write("b", RECORD)]
    assert command.run(compare.main, paths) == 2
    assert "a.json clean: its protocol has" in capsys.readouterr().err


@pytest.mark.parametrize(
    "record",
    [
        [],
        {"tool": "reconstruct"},
        {**RECORD, "metrics": {"psnr": 30}},
        {**RECORD, "protocol": {}},
        {"tool": "evaluate", "results": [3]},
    ],
)
def test_records_of_others(write, capsys, record):
    assert command.run(compare.main, [write("a", RECORD), write("b", record)]) == 2
    assert "is not what `movq evaluate --json=FILE` writes" in capsys.readouterr().err


def test_files_that_are_none(write, tmp_path, capsys):
    (tmp_path / "text.json").write_text("{")
    for name, said in {"none.json": "No such file", "text.json": "is not JSON"}.items():
        path = str(tmp_path / name)
        assert command.run(compare.main, [write("a", RECORD), path]) == 2
        assert said in capsys.readouterr().err
    assert command.run(compare.main, [write("a", RECORD)]) == 2
    assert "two records at least" in capsys.readouterr().err
