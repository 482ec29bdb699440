import copy
import json
from pathlib import Path

import pytest

from movq_jax.evaluation.protocols import find_protocol
from movq_jax.tools import command, compare


def metric(value, low=None, high=None, *, up=True, count=100, of="sets"):
    record = {"value": value, "low": low, "high": high, "reference": of}
    return {**record, "count": count, "higher_is_better": up}


def psnr(value, low=None, high=None):
    return metric(value, low, high, of="pairs")


RECORD = {
    "tool": "evaluate",
    "version": "1",
    "protocol": find_protocol("default").as_record(),
    "num_images": 100,
    "reference": {
        "pairs": {"name": "photos", "fingerprint": "abc"},
        "sets": {"name": "coco", "fingerprint": "def"},
    },
    "networks": {"inception": "weights"},
    "metrics": {
        "psnr": psnr(30.0, 29.5, 30.5),
        "lpips_vgg": metric(0.2, 0.19, 0.21, up=False, of="pairs"),
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
        psnr=psnr(32.0, 31.5, 32.5),
        lpips_vgg=metric(0.3, 0.29, 0.31, up=False, of="pairs"),
        fid=metric(11.0, up=False),
    )
    near = changed("metrics", psnr=psnr(30.4, 29.9, 30.9))
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
        ("networks", {"inception": "other"}, "fid: it has other weights of inception"),
        (
            "reference",
            {"pairs": {"name": "photos", "fingerprint": "z"}},
            "psnr, lpips_vgg: it is compared with other images (photos, but changed)",
        ),
        (
            "reference",
            {"sets": {"name": "ffhq", "fingerprint": "z"}},
            "b.json: fid: it is compared with other images (ffhq, not coco)",
        ),
        (
            "metrics",
            {"fid": metric(1, up=False, count=9)},
            "fid: of 9 images, not 100",
        ),
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
    paths = [write("a", RECORD), write("b", other)]
    assert command.run(compare.main, paths) == 0
    first, second = copy.deepcopy(RECORD), copy.deepcopy(other)
    for record in (first, second):
        record["metrics"]["is"] = metric(100.0, of="")
        del record["metrics"]["is"]["reference"]
    paths = [write("a", first), write("b", second)]
    assert command.run(compare.main, paths) == 2
    assert "is_variant one_block, not adm" in capsys.readouterr().err


def test_several_protocols_in_a_file_are_kept_apart(write, changed, capsys):
    second = changed("protocol", name="clean", network_resize="clean")
    both = {"tool": "evaluate", "version": "1", "results": [RECORD, second]}
    paths = [write("a", both), write("b", RECORD)]
    assert command.run(compare.main, paths) == 0
    text = capsys.readouterr().out
    assert text.startswith("protocol default\n") and "protocol clean\n" not in text
    assert f"note: the protocol clean is in {paths[0]} alone" in text
    other = {**both, "results": [second, changed("protocol", name="other")]}
    third = changed("protocol", name="third")
    paths = [write("a", both), write("b", both), write("c", other)]
    assert command.run(compare.main, [*paths, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert {r["protocol"]: len(r["records"]) for r in results} == {
        "default": 2,
        "clean": 3,
    }
    assert command.run(compare.main, [paths[0], write("c", third)]) == 2
    assert "have no protocol in common" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "ours", "theirs", "said"),
    [
        (
            "kid",
            {"subset_size": 1000},
            {"subset_size": 100},
            "subsets of 100, not 1000",
        ),
        ("is", {}, {"count": 9}, "is: of 9 images, not 100"),
        ("precision", {}, {"count": 9}, "precision: of 9 images, not 100"),
        ("coverage", {}, {"count": 9}, "coverage: of 9 images, not 100"),
    ],
)
def test_numbers_of_sets_that_depend_on_more(write, capsys, name, ours, theirs, said):
    paths = []
    for file, changes in {"a": ours, "b": theirs}.items():
        metrics = {name: metric(1.0) | changes}
        paths.append(write(file, {**RECORD, "metrics": metrics}))
    assert command.run(compare.main, paths) == 2
    assert said in capsys.readouterr().err


NLL = metric(5.0, 4.9, 5.1, up=False) | {
    "split": "coco validation",
    "fingerprint": "f",
    "tokenizer": "t",
    "preprocessing": "resized",
    "maskings": 8,
    "seed": 0,
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split": "coco train"}, "of the split coco train, not coco validation"),
        ({"tokenizer": "u"}, "of indices of the tokenizer u, not t"),
        ({"preprocessing": "cut"}, "of images prepared by cut, not resized"),
        ({"maskings": 4}, "of as many maskings as 4, not 8"),
        ({"seed": 1}, "of maskings of the seed 1, not 0"),
        ({"fingerprint": "g"}, "of other images, though the split is called the same"),
    ],
)
def test_bits_that_are_not_to_be_compared(write, capsys, changes, said):
    alone = {**RECORD, "protocol": None, "reference": {}}
    first = {**alone, "metrics": {"nll": NLL}}
    second = {**alone, "metrics": {"nll": NLL | changes}}
    paths = [write("a", first), write("b", second)]
    assert command.run(compare.main, paths) == 2
    assert f"nll: {said}" in capsys.readouterr().err
    # An exact number has no maskings; protocols of images do not matter.
    exact = {key: NLL[key] for key in NLL if key not in ("maskings", "seed")}
    paths[1] = write("b", {**RECORD, "metrics": {"nll": exact}})
    assert command.run(compare.main, paths) == 0


def test_rounding_is_of_a_models_output(write, changed, capsys):
    other = changed("protocol", rounding="truncate")
    paths = [write("a", RECORD), write("b", other)]
    assert command.run(compare.main, paths) == 0
    models = [{**record, "model": {"path": "m"}} for record in (RECORD, other)]
    paths = [write(name, x) for name, x in zip("ab", models, strict=True)]
    assert command.run(compare.main, paths) == 2
    assert "rounding truncate, not round" in capsys.readouterr().err


def test_no_metric_in_common(write, capsys):
    other = {**RECORD, "metrics": {"ssim": psnr(0.9)}}
    paths = [write("a", RECORD), write("b", other)]
    assert command.run(compare.main, paths) == 2
    assert "no metric in common (ssim, not psnr, lpips" in capsys.readouterr().err


def test_what_is_not_to_be_compared_has_no_mark(write, changed, capsys):
    other = changed("reference", pairs={"name": "x", "fingerprint": "x"})
    other["metrics"]["psnr"] = psnr(40.0, 39.0, 41.0)
    paths = [write("a", RECORD), write("b", other)]
    assert command.run(compare.main, [*paths, "--force", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    assert [one["mark"] for one in found["psnr"]] == ["", ""]


def test_a_result_is_not_written_over_a_record(write, capsys):
    paths = [write("a", RECORD), write("b", RECORD)]
    assert command.run(compare.main, [*paths, f"--json={paths[0]}"]) == 2
    assert "--json would overwrite the input" in capsys.readouterr().err
    assert json.loads(Path(paths[0]).read_text())["tool"] == "evaluate"


def test_one_record_is_no_comparison(write, capsys):
    assert command.run(compare.main, [write("a", RECORD)]) == 2
    assert "two records at least" in capsys.readouterr().err
