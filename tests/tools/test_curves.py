import json

import pytest
from PIL import Image

from movq_jax.errors import UserError
from movq_jax.tools import curves


@pytest.fixture
def run(tmp_path):
    """Make a run's folder with the given records."""

    def make(name, *records, tail=""):
        folder = tmp_path / name
        folder.mkdir()
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / "metrics.jsonl").write_text(lines + tail)
        return str(folder)

    return make


def test_it_reads_what_is_a_number(run):
    folder = run(
        "a",
        {"step": 1, "loss": 2.0, "gone": None},
        {"step": 1, "alarm": "spike", "message": "look"},
        {"step": 2, "loss": 1.0},
        tail='[1]\n7\n{"step": 3, "lo',
    )
    assert curves.read_curves(folder) == {"loss": {1: 2.0, 2: 1.0}}


def test_damaged_lines_are_passed_over(run, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    folder = run("a", {"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0})
    lines = [
        b'{"step": 3, "loss": "\xff"}',
        b'{"step": Infinity, "loss": 3}',
        b'{"step": NaN, "loss": 3}',
        b'{"step": 1' + b"0" * 400 + b', "loss": 3}',
        b'{"step": 4, "loss": 1' + b"0" * 400 + b"}",
        b'{"step": 5, "loss": 1' + b"0" * 5000 + b"}",
        b'{"step": 6, "loss": -1e308}',
        b"[" * 100_000,
    ]
    with (tmp_path / "a" / "metrics.jsonl").open("ab") as file:
        file.write(b"\n".join(lines))
    assert curves.read_curves(folder) == {"loss": {1: 2.0, 2: 1.0}}
    output = tmp_path / "curves.png"
    curves.main([f"--run={folder}", "--metrics=loss", f"--output={output}"])
    assert output.exists()


def test_labels():
    assert curves.label_runs(
        [("x", ["a"]), (None, ["r/y/b", "r/c"]), ("x", ["d", "e"]), (None, ["f/"])]
    ) == {"x": ["a", "d", "e"], "b": ["r/y/b", "r/c"], "f": ["f/"]}
    unnamed = [(None, [folder]) for folder in ("p/x/a", "p/y/a", "q/x/a")]
    assert list(curves.label_runs(unnamed)) == ["p/x/a", "y/a", "q/x/a"]
    alike = curves.label_runs([(None, ["r/b"]), ("b", ["c"]), (None, ["./r/b"])])
    assert alike == {"r/b": ["r/b", "./r/b"], "b": ["c"]}
    nested = curves.label_runs([(None, ["/a"]), (None, ["/a/a"])])
    assert len(nested) == 2


def test_a_metric_with_one_point_is_seen(run, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    folder = run("a", {"step": 1, "psnr": 20.0, "usage": 0.5})
    output = tmp_path / "curves.png"
    curves.main([f"--run={folder}", "--metrics=psnr,usage", f"--output={output}"])
    picture = Image.open(output).convert("RGB")
    right = picture.crop((picture.width // 2, 0, *picture.size))  # without the legend
    assert (0x1F, 0x77, 0xB4) in {colour for _, colour in right.getcolors(2**24)}


def test_the_median_is_of_the_steps_that_all_have():
    runs = [{1: 1.0, 2: 5.0}, {1: 3.0, 2: 6.0, 3: 0.0}, {1: 2.0, 2: 9.0}]
    assert curves.median_curve(runs) == {1: 2.0, 2: 6.0}


def test_it_draws(run, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `plots` is not installed")
    a, b = (
        run(name, *({"step": s, "val/psnr": s + add} for s in range(5)))
        for name, add in (("a", 0.0), ("b", 1.0))
    )
    output, record = tmp_path / "curves.png", tmp_path / "medians.json"
    curves.main(
        [
            f"--run=both={a},{b}",
            f"--run={b}",
            "--metrics=val/psnr",
            "--mark=2",
            f"--output={output}",
            f"--json={record}",
        ]
    )
    assert len(Image.open(output).convert("RGB").getcolors(2**24)) > 10
    assert json.loads(record.read_text())["both"]["val/psnr"]["4"] == 4.5
    assert list(json.loads(record.read_text())) == ["both", "b"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--run=x=nowhere"], "nowhere is not the folder of a run"),
        (["--run=x="], "is not LABEL=DIR,DIR..."),
        (["--run={run}", "--metrics=val/pnsr"], "did you mean 'val/psnr'"),
        (["--run={run}", "--metrics=,"], "--metrics names none"),
    ],
)
def test_what_is_wrong_is_said(run, tmp_path, flags, message):
    folder = run("a", {"step": 1, "val/psnr": 20.0})
    flags = [flag.format(run=folder) for flag in flags]
    with pytest.raises(UserError, match=message):
        curves.main([*flags, f"--output={tmp_path / 'curves.png'}"])
